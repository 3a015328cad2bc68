"""Memory that is there once and for all: what batches pass through on the host and on the device.

Shape suffixes: B images, C channels, H x W pixels, D vector width, L labels.
"""

from typing import NamedTuple, Self

import torch

from vision.model.manifest import Manifest


class BatchBuffers(NamedTuple):
    """Room for images and their answers."""

    pixels_BCHW: torch.Tensor  # uint8
    vectors_BD: torch.Tensor  # float32
    probabilities_BL: torch.Tensor  # float32

    @classmethod
    def empty(
        cls, manifest: Manifest, size: int, device: torch.device, *, pinned: bool = False
    ) -> Self:
        """Return room for ``size`` images; ``pinned`` memory of the host is copied by the GPU."""

        def room(shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
            return torch.empty(shape, dtype=dtype, device=device, pin_memory=pinned)

        return cls(
            room(manifest.preprocessing.batch_shape(size), torch.uint8),
            room((size, manifest.architecture.width), torch.float32),
            room((size, len(manifest.labels)), torch.float32),
        )

    def like(self, size: int) -> Self:
        """Return room for ``size`` images on the same device."""
        return type(self)(*(part.new_empty((size, *part.shape[1:])) for part in self))


class InFlight(NamedTuple):
    """What belongs to one batch under way: the same on the host and on the device."""

    host: BatchBuffers
    device: BatchBuffers

    @classmethod
    def empty(cls, manifest: Manifest, size: int, device: torch.device) -> Self:
        """Return room for ``size`` images on both sides."""
        pinned = device.type == "cuda"
        host = BatchBuffers.empty(manifest, size, torch.device("cpu"), pinned=pinned)
        return cls(host, BatchBuffers.empty(manifest, size, device))

    def upload(self, count: int) -> None:
        """Copy the pixels of the first images to the device."""
        self.device.pixels_BCHW[:count].copy_(self.host.pixels_BCHW[:count], non_blocking=True)

    def download(self, count: int) -> None:
        """Copy the answers for the first images to the host."""
        self.host.vectors_BD[:count].copy_(self.device.vectors_BD[:count], non_blocking=True)
        self.host.probabilities_BL[:count].copy_(
            self.device.probabilities_BL[:count], non_blocking=True
        )
