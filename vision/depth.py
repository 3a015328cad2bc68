"""Gray samples of 16 bits in, of 8 bits out; and how many of the 16 bits a camera used.

Sensors give 10, 12 or 14 bits, and files of 16 keep them in the lower ones: read as 16 bits, such a
picture is nearly black. No file says how many bits count; the largest sample of many does.

Shape suffix: H x W pixels.
"""

import io
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vision.formats import sniff_format

DEPTHS: Final = (8, 10, 12, 14, 16)  # bits that sensors give
LEAST, FULL = DEPTHS[0], DEPTHS[-1]
_PNG_HEADER: Final = 26  # bytes, up to the colour type
_GRAY: Final = 0  # PNG's colour type


def eight_bits(samples_HW: NDArray[np.uint16], bits: int) -> NDArray[np.uint8]:
    """Return the upper 8 of the ``bits`` that are used.

    A picture with larger samples than ``bits`` allow uses more: it is read as one of the next
    depth that holds them, and not as white.
    """
    used = max(bits, depth_of(int(samples_HW.max(initial=0)))) if bits < FULL else FULL
    return (samples_HW >> (used - LEAST)).astype(np.uint8)


def depth_of(largest: int) -> int:
    """Return how many bits pictures use whose largest sample is ``largest``: 8, 10, 12, 14 or 16.

    >>> depth_of(4000)
    12
    """
    return next(depth for depth in DEPTHS if largest < 1 << depth)


def is_deep_gray(head: bytes) -> bool:
    """Say whether ``head``, the first bytes of a file, are of a gray PNG with 16 bits a sample."""
    if sniff_format(head) != "PNG" or len(head) < _PNG_HEADER:
        return False
    return head[24] == FULL and head[25] == _GRAY


def largest_sample(data: bytes) -> int:
    """Return the largest sample of a gray PNG of 16 bits.

    Raises:
        OSError and what else Pillow's decoder raises: ``data`` is damaged.
    """
    with Image.open(io.BytesIO(data), formats=("PNG",)) as image:
        _least, largest = image.getextrema()
    assert isinstance(largest, int | float)
    return int(largest)
