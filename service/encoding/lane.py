"""A batch of decoded images in, what the network said of them out, wherever the network is.

Shape suffixes: B images, C channels, H x W pixels.
"""

import sys
import time
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from vision.inference.encoder import Encoding


class EncodedBatch(NamedTuple):
    """What the network said of a batch."""

    encoding: Encoding
    seconds: float  # that the network took for all images that were in it at once
    images: int  # how many these were


class Lane(Protocol):
    """A way to a network, for one batch at a time; the calling thread waits."""

    @property
    def most(self) -> int:
        """How many images a batch may have now; another network behind the lane may take fewer."""
        ...

    def __call__(self, images: Sequence[NDArray[np.uint8]], *, is_bulk: bool) -> EncodedBatch:
        """Encode images (C, H, W), at least one; ``is_bulk``: others go before them."""
        ...


class OwnNetwork:
    """The lane to a network in this very process."""

    most: Final = sys.maxsize  # no limit: the encoder cuts what is too large for it

    def __init__(
        self,
        encode: Callable[[NDArray[np.uint8]], Encoding],
        on_batch: Callable[[int, float], None],
    ) -> None:
        """Take what encodes pixels (B, C, H, W), and what is told the size and time of batches."""
        self._encode = encode
        self._on_batch = on_batch

    def __call__(self, images: Sequence[NDArray[np.uint8]], *, is_bulk: bool) -> EncodedBatch:
        """Encode images (C, H, W), at least one."""
        started = time.perf_counter()
        encoding = self._encode(np.stack(images))
        seconds = time.perf_counter() - started
        self._on_batch(len(images), seconds)
        return EncodedBatch(encoding, seconds, len(images))
