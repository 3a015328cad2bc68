"""What a network says about a batch of images, and who says it; knows no torch.

Shape suffixes: N images, B of them in a batch, C channels, H x W pixels, D vector width, L labels.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from vision.model.export_accuracy import Difference
from vision.model.manifest import Manifest

# Through a network at once, without gradients: more only leaves the processor's caches (measured at
# 288 pixels on the CPU: 512 images at once took 1.6 times as long as 8).
PIXELS_AT_ONCE: Final = 800_000
MOST_AT_ONCE: Final = 512


class Encoding(NamedTuple):
    """Vectors and class probabilities, row by row in the order of the batch."""

    vectors_BD: NDArray[np.float32]  # unit length
    probabilities_BL: NDArray[np.float32]  # calibrated, each row sums to 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Runtime:
    """What computes, and how exactly."""

    name: str  # "torch", or what the model was exported for
    precision: str  # of most of the numbers
    difference: Difference | None = None  # to torch in fp32; None: it is that, or not measured
    note: str | None = None  # why it is not as exact, or as quick, as the export was made to be


class ImageEncoder(Protocol):
    """A trained network, ready on one device by one runtime.

    Not for several threads at once: give it one lane. While it computes, other threads run.
    """

    @property
    def manifest(self) -> Manifest:
        """The model, and how its input is made."""
        ...

    @property
    def device_name(self) -> str:
        """Where it runs: ``cpu``, ``cuda`` or ``cuda:N``."""
        ...

    @property
    def runtime(self) -> Runtime:
        """By what it runs."""
        ...

    @property
    def batch_size(self) -> int:
        """How many images a batch should have at most: more of them gain nothing."""
        ...

    def encode(self, pixels_BCHW: NDArray[np.uint8]) -> Encoding:
        """Return vectors (B, D) and probabilities (B, L) of pixels (B, C, H, W), B at least 1.

        The array may be any view, and one that must not be written to; it stays as it is.
        """
        ...

    def warm_up(self, batch_sizes: Sequence[int]) -> None:
        """Run the network before the first request, so that it pays for nothing."""
        ...


@runtime_checkable
class PipelinedEncoder(ImageEncoder, Protocol):
    """An encoder that takes a batch while it computes the one before."""

    def start(self, pixels_BCHW: NDArray[np.uint8]) -> Callable[[], Encoding]:
        """Begin with at most ``batch_size`` images; return what waits for the answer.

        At most two batches are under way, and they are finished in the order in which they were
        begun. The pixels stay as they are until then. After an error, which may come from either
        function, the next batch may be begun.
        """
        ...


def encode_all(
    encoder: ImageEncoder, images_NCHW: NDArray[np.uint8], *, batch: int | None = None
) -> Encoding:
    """Return vectors (N, D) and probabilities (N, L) of every image, in order.

    ``batch`` images are encoded at once; without it, as many as the encoder is quick with.
    """
    if batch is None:
        batch = encoder.batch_size
        if encoder.runtime.name == "torch" and encoder.device_name == "cpu":  # that is for serving
            batch = images_at_once(encoder.manifest.preprocessing.size)
    parts = [
        encoder.encode(np.ascontiguousarray(images_NCHW[start : start + batch]))
        for start in range(0, len(images_NCHW), batch)
    ]
    return Encoding(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))


def images_at_once(side: int) -> int:
    """Return how many images of ``side`` pixels go through a network at once, without gradients."""
    return max(1, min(MOST_AT_ONCE, PIXELS_AT_ONCE // side**2))
