"""What a failure of the GPU means: try fewer images, refuse them, or end the process."""

import time
from collections.abc import Callable
from typing import Final

import torch

from vision.errors import DeviceMemoryError

RETRY_S: Final = 60.0  # after which twice as many images are tried again
# Not every library that runs out of memory says so by torch's own exception.
OUT_OF_MEMORY: Final = ("out of memory", "STATUS_ALLOC_FAILED")


def is_out_of_memory(error: Exception) -> bool:
    """Say whether there was no room on the device; the same with less may succeed."""
    return isinstance(error, torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and any(text in str(error) for text in OUT_OF_MEMORY)
    )


class MemoryLimit:
    """How many images a turn may have, by what did not fit lately."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._most: int | None = None  # None: nothing failed
        self._since = 0.0

    def most(self, wanted: int) -> int:
        """Return how many images of ``wanted`` may be tried now."""
        if self._most is not None and self._clock() - self._since >= RETRY_S:
            self._most, self._since = 2 * self._most, self._clock()
        if self._most is not None and self._most >= wanted:
            self._most = None
        return wanted if self._most is None else self._most

    def halve(self, size: int) -> int:
        """Take note that ``size`` images did not fit; return how many are tried next.

        Raises:
            DeviceMemoryError: it was one.
        """
        self._since = self._clock()
        self._most = max(1, size // 2)
        if size == 1:
            raise DeviceMemoryError(
                "the GPU has no memory left for even one image; try again later"
            )
        return self._most
