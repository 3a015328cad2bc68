"""A stand-in for a network on a GPU: it takes as long as one was measured to, and only waits.

A batch of 32 images of VGG-19 took 5.6 ms on an H200, and one image 0.88 ms. So the stand-in's
device takes max(0.88 ms, n x 5.6 / 32 ms) for n images, one batch after the other; a batch may be
sent to it while it is at the one before, as with CUDA's streams. What it says of an image follows
from the sum of its pixels, so that an answer shows whose it is. It is no part of the product: only
``benchmarks.serving.front.apart`` starts a server with it.

Shape suffixes: B images, C channels, H x W pixels.
"""

import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from service.config import ServiceSettings
from service.encoding.program import run
from vision.inference.encoder import Encoding, Runtime
from vision.model.manifest import read_manifest

IMAGE_S = 0.0056 / 32
LEAST_S = 0.00088


class StandInEncoder:
    """Answers when a GPU would."""

    device_name = "stand-in"
    runtime = Runtime(name="stand-in", precision="fp32")
    batch_size = 128

    def __init__(self, folder: Path) -> None:
        self.manifest = read_manifest(folder)
        self._free = 0.0  # when the device has done what it was given; of ``perf_counter``

    def start(self, pixels_BCHW: NDArray[np.uint8]) -> Callable[[], Encoding]:
        """Give the device a batch; return what waits until it has done it."""
        ready = max(time.perf_counter(), self._free) + seconds(len(pixels_BCHW))
        self._free = ready
        encoding = self._answer(pixels_BCHW)

        def finish() -> Encoding:
            time.sleep(max(0.0, ready - time.perf_counter()))
            return encoding

        return finish

    def encode(self, pixels_BCHW: NDArray[np.uint8]) -> Encoding:
        """Return vectors (B, D) and probabilities (B, L)."""
        return self.start(pixels_BCHW)()

    def warm_up(self, batch_sizes: Sequence[int]) -> None:
        """Do nothing."""

    def _answer(self, pixels_BCHW: NDArray[np.uint8]) -> Encoding:
        sums_B = pixels_BCHW.reshape(len(pixels_BCHW), -1).sum(axis=1, dtype=np.int64)
        width, labels = self.manifest.architecture.width, len(self.manifest.labels)
        return Encoding(*(one_hot(sums_B, count) for count in (width, labels)))


def one_hot(sums_B: NDArray[np.int64], width: int) -> NDArray[np.float32]:
    """Return a row for each sum, with a 1 at its remainder."""
    rows = np.zeros((len(sums_B), width), np.float32)
    if width:
        rows[np.arange(len(sums_B)), sums_B % width] = 1
    return rows


def seconds(images: int) -> float:
    """Return how long the device takes for a batch."""
    return max(LEAST_S, images * IMAGE_S)


if __name__ == "__main__":
    socket, folder = int(sys.argv[1]), Path(sys.argv[2])
    sys.exit(run(socket, lambda: StandInEncoder(folder), ServiceSettings.from_environment()))
