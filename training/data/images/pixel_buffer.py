"""The one array that all pixels of a dataset lie in: made, and put in order.

Shape suffixes: N images, C channels, H x W pixels.
"""

import math
import os
import tempfile
from typing import Final

import numpy as np
from numpy.typing import NDArray

from files.resource_limits import usable_memory_bytes
from training.errors import DataError

# Above this the pixels lie in a temporary file, and the operating system keeps what it has room
# for: 28,000 RGB images of 224 x 224 are the first that do.
MAX_BYTES_IN_MEMORY: Final = 4 * 2**30
MAX_SHARE: Final = 0.25  # of the memory that this process may use: training needs some as well


def pixel_array(shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Return an array to be filled; a large one lies in a nameless file that goes when it goes.

    Raises:
        DataError: the folder for temporary files has no room for it.
    """
    size = math.prod(shape)
    memory_bytes = usable_memory_bytes()
    share = math.inf if memory_bytes is None else MAX_SHARE * memory_bytes
    if size <= min(MAX_BYTES_IN_MEMORY, share):
        return np.empty(shape, np.uint8)
    try:
        with tempfile.TemporaryFile() as file:
            # Reserved now: a disk that fills up later would kill the process (SIGBUS) at a write.
            os.posix_fallocate(file.fileno(), 0, size)
            return np.asarray(np.memmap(file, np.uint8, mode="r+", shape=shape))
    except OSError as error:
        raise DataError(
            f"the images need {size / 2**30:.2f} GiB in {tempfile.gettempdir()}, which cannot be "
            f"had ({error.strerror}); set TMPDIR to a folder with more room"
        ) from error


def put_in_order(images_NCHW: NDArray[np.uint8], order_M: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Move images within their array and return ``images_NCHW[order_M]`` as a view of it.

    Every image is moved once at most and no second array is needed. ``order_M`` names no image
    twice; the images that it does not name end up behind the view.
    """
    rest = np.setdiff1d(np.arange(len(images_NCHW)), order_M)
    order_N = np.concatenate([order_M, rest])
    moved_N = order_N == np.arange(len(order_N))
    for start in np.flatnonzero(~moved_N):
        if moved_N[start]:
            continue
        first_CHW = images_NCHW[start].copy()  # the others of its cycle move up, one by one
        place = start
        while order_N[place] != start:
            images_NCHW[place] = images_NCHW[order_N[place]]
            moved_N[place] = True
            place = order_N[place]
        images_NCHW[place] = first_CHW
        moved_N[place] = True
    return images_NCHW[: len(order_M)]
