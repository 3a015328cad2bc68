"""One epoch of training batches: shuffled, on the device, augmented, normalised.

The images stay in memory as they are (uint8); each batch is cut out and changed as a whole, which
costs 1 to 2 % of a training step, so no worker processes are needed.

Shape suffixes: N images in all, B in a batch, C channels, H x W pixels.
"""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Generator, Tensor

from training.augment import Augmentation
from training.data import LabelledImages
from vision.normalisation import Normalisation
from vision.preprocess import Preprocessing


class Batches:
    """Cuts images into batches; every pass has a new order and new augmentations."""

    def __init__(
        self,
        images: LabelledImages,
        preprocessing: Preprocessing,
        *,
        batch_size: int,
        device: torch.device,
    ) -> None:
        self._images_NCHW = torch.from_numpy(np.ascontiguousarray(images.images_NCHW))
        self._labels_N = torch.from_numpy(images.labels_N)
        self._batch_size = min(batch_size, len(images))
        self._device = device
        self._normalise = Normalisation(preprocessing, device)

    def __len__(self) -> int:
        """Batches in a pass; images that do not fill a last batch wait for another pass."""
        return len(self._labels_N) // self._batch_size

    @property
    def batch_size(self) -> int:
        """Images in each batch."""
        return self._batch_size

    def shuffled(
        self, augmentation: Augmentation, generator: Generator
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield normalised images (B, C, H, W), channels last, and labels (B,), once through."""
        order_N = torch.randperm(len(self._labels_N), generator=generator)
        for batch_B in torch.split(order_N, self._batch_size)[: len(self)]:
            images_BCHW = self._images_NCHW[batch_B].to(self._device, non_blocking=True)
            labels_B = self._labels_N[batch_B].to(self._device, non_blocking=True)
            yield self._normalise(augmentation(images_BCHW, generator)), labels_B

    def in_order(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield every image once as it is, in order; the last batch may be smaller."""
        for images_BCHW, labels_B in zip(
            torch.split(self._images_NCHW, self._batch_size),
            torch.split(self._labels_N, self._batch_size),
            strict=True,
        ):
            yield self._normalise(images_BCHW.to(self._device)), labels_B.to(self._device)
