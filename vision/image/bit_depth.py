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

from vision.formats.detect import PNG, TIFF, sniff_format
from vision.formats.tiff import read_directory

DEPTHS: Final = (8, 10, 12, 14, 16)  # bits that sensors give
LEAST, FULL = DEPTHS[0], DEPTHS[-1]
_PNG_HEADER: Final = 26  # bytes, up to the colour type
_GRAY: Final = 0  # PNG's colour type
_READ_AS_8: Final = (2, 4, 6)  # colour, or with alpha: of such samples Pillow gives the upper byte


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


def is_deep_gray(data: bytes) -> bool:
    """Say whether a file is a gray PNG or TIFF with 16 bits a sample.

    Of a PNG the first 26 bytes say so; of a TIFF it takes the whole file.
    """
    return _colour_of_deep(data) is False


def is_deep_colour(data: bytes) -> bool:
    """Say whether it is one with 16 bits a sample of which only the upper 8 can be read."""
    return _colour_of_deep(data) is True


def _colour_of_deep(data: bytes) -> bool | None:
    """Return whether a picture of 16 bits a sample has more than gray; ``None`` of fewer bits."""
    image_format = sniff_format(data)
    if image_format is PNG and len(data) >= _PNG_HEADER and data[24] == FULL:
        return data[25] != _GRAY if data[25] in (_GRAY, *_READ_AS_8) else None
    if image_format is TIFF:
        directory = read_directory(data)
        return not directory.is_gray if directory.bits == FULL else None
    return None


def largest_sample(data: bytes) -> int:
    """Return the largest sample of a PNG or TIFF of 16 bits; in colour, the most it can be.

    Alpha is left aside.

    Raises:
        OSError and what else Pillow's decoders raise: ``data`` is damaged.
    """
    with Image.open(io.BytesIO(data), formats=("PNG", "TIFF")) as image:
        extrema = np.reshape(image.getextrema(), (-1, 2))
        is_gray = image.mode.startswith("I")
        count = len(image.getbands()) - image.mode.endswith("A")
    largest = int(extrema[:count, 1].max())
    return largest if is_gray else (largest << LEAST) | 0xFF
