"""One batch in memory that two processes share: pixels go one way, what the network says the other.

The memory has no name, so nothing of it stays when both processes have ended, however they did, and
it needs no room in /dev/shm. It is passed on as an open file, and sealed: neither side can take it
away from under the other.

Shape suffixes: B images, C channels, H x W pixels, D vector width, L labels.
"""

import fcntl
import math
import mmap
import os
from dataclasses import dataclass
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from vision.inference.encoder import Encoding

_SEALS: Final = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
_ALIGNED: Final = 64  # bytes; a line of the processor's cache


@dataclass(frozen=True, slots=True)
class BatchShape:
    """What one batch has room for."""

    images: int
    pixels: tuple[int, int, int]  # of an image, (C, H, W)
    width: int  # of a vector
    labels: int

    @property
    def offsets(self) -> tuple[int, int, int]:
        """Where vectors and probabilities begin, and the size of all, bytes."""
        vectors = _aligned(self.images * math.prod(self.pixels))
        probabilities = vectors + _aligned(4 * self.images * self.width)
        return vectors, probabilities, probabilities + _aligned(4 * self.images * self.labels)


class SharedBatch:
    """Room for the pixels of a batch and for the answer, in memory of two processes."""

    def __init__(self, shape: BatchShape, file: int) -> None:
        """Take the memory of an open file, which may be closed afterwards.

        Raises:
            ValueError: it is of another size, or could be made smaller by whoever sent it.
        """
        vectors, probabilities, size = shape.offsets
        is_sealed = fcntl.fcntl(file, fcntl.F_GET_SEALS) & _SEALS == _SEALS
        if os.fstat(file).st_size != size or not is_sealed:
            raise ValueError(f"shared memory of {size} bytes, sealed, was expected")
        memory = mmap.mmap(file, size)  # unmapped with the last array on it
        self.pixels_BCHW: NDArray[np.uint8] = np.frombuffer(
            memory, np.uint8, shape.images * math.prod(shape.pixels)
        ).reshape(shape.images, *shape.pixels)
        self.answer = Encoding(
            _floats(memory, vectors, (shape.images, shape.width)),
            _floats(memory, probabilities, (shape.images, shape.labels)),
        )

    @classmethod
    def make(cls, shape: BatchShape) -> tuple[Self, int]:
        """Return new memory and its open file, which the caller passes on and closes.

        Pages are taken from the system when they are first written to.
        """
        file = os.memfd_create("batch", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.ftruncate(file, shape.offsets[-1])
            fcntl.fcntl(file, fcntl.F_ADD_SEALS, _SEALS)
            return cls(shape, file), file
        except BaseException:
            os.close(file)
            raise

    def copy_answer(self, count: int) -> Encoding:
        """Return what was said of the first ``count`` images; it outlives the next batch."""
        return Encoding(*(array[:count].copy() for array in self.answer))

    def write_answer(self, encoding: Encoding) -> None:
        """Put an answer into the first rows."""
        for array, rows in zip(self.answer, encoding, strict=True):
            array[: len(rows)] = rows


def _floats(memory: mmap.mmap, offset: int, shape: tuple[int, int]) -> NDArray[np.float32]:
    count = math.prod(shape)
    if not count:  # a network without classes
        return np.empty(shape, np.float32)
    return np.frombuffer(memory, np.float32, count, offset).reshape(shape)


def _aligned(size: int) -> int:
    return -(-size // _ALIGNED) * _ALIGNED
