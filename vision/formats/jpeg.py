"""The markers of a JPEG file: what its decoder will hold, and how much of the picture is missing.

Structure after ITU-T T.81, annex B. Nothing is decoded here but a file whose end is missing, to see
how far the picture goes.
"""

import io
import re
import struct
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vision.errors import CostlyImageError

END: Final = b"\xff\xd9"
_MARKER: Final = re.compile(rb"[^\xff]*\xff+([^\xff])", re.DOTALL)
_SCAN: Final = b"\xff\xda"  # in coded data 0xFF is followed by 0 or a restart marker
# Up to the first scan: a profile has up to 255 of them, a map of depth in XMP some hundreds.
MOST_SEGMENTS: Final = 10_000
_BLOCK: Final = 8  # pixels on a side
_COEFFICIENTS: Final = _BLOCK * _BLOCK
_EIGHTH: Final = 8  # as small as the decoder makes it: one pixel per block, its mean
_WITHOUT_LENGTH: Final = frozenset((0x00, 0x01, *range(0xD0, 0xD9)))  # 0: no marker at all
_FILL: Final = 0xFF  # and the first byte of each marker
_START_OF_SCAN: Final = 0xDA
_FRAMES: Final = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
# Huffman codes, sequential or progressive; arithmetic codes take far longer to read.
_HUFFMAN: Final = frozenset((0xC0, 0xC1, 0xC2))
_PROGRESSIVE: Final = frozenset((0xC2, 0xC6, 0xCA, 0xCE))
# Bytes that go on where the file ends. What is shown of a picture that is all there does not depend
# on them. None is 0xFF, which would be a marker.
_TAILS: Final = tuple(
    bytes((first, *((step * number + first) % 251 for number in range(63))))
    for first, step in ((0x0B, 37), (0xAA, 101), (0x55, 73), (0xFE, 19), (0x7F, 151), (0, 0))
)
_FEW: Final = 2  # tails for larger pictures, of which a pixel more or less is no matter
_SMALL: Final = 2**17  # pixels
_DETAILED: Final = 2**22  # pixels that are compared of a progressive picture
_INVISIBLE: Final = 0.5  # of 255, the mean over a small picture


class Frame(NamedTuple):
    """What a JPEG's header says of how it is coded."""

    width: int  # pixels
    height: int
    is_progressive: bool
    sampling: tuple[tuple[int, int], ...]  # per component, horizontal and vertical
    first_scan: int  # components in it
    scan_at: int  # where the first scan begins in the file, bytes
    is_huffman: bool = True

    @property
    def has_one_scan(self) -> bool:
        """Whether the decoder reads one scan and no other, stripe by stripe."""
        return not self.is_progressive and self.first_scan == len(self.sampling)

    @property
    def coefficient_bytes(self) -> int:
        """What the decoder keeps of the whole picture: 2 bytes a sample, where scans are several.

        A picture of one scan is decoded stripe by stripe, and nothing is kept.
        """
        if self.has_one_scan:
            return 0
        widest, highest = self.mcu
        shares = sum(across * down for across, down in self.sampling) / (widest * highest)
        return round(2 * shares * self.width * self.height)

    @property
    def mcu(self) -> tuple[int, int]:
        """Width and height of a minimum coded unit, in blocks of 8 pixels."""
        if len(self.sampling) == 1:
            return 1, 1
        return max(across for across, _ in self.sampling), max(down for _, down in self.sampling)


def read_frame(data: bytes, *, most: int = MOST_SEGMENTS) -> Frame | None:
    """Return what the header of the JPEG ``data`` says, or ``None`` where it is damaged.

    Raises:
        CostlyImageError: it has more than ``most`` segments before the first scan.
    """
    at = 2
    frame: tuple[int, int, bool, tuple[tuple[int, int], ...]] | None = None
    is_huffman = True
    try:
        for _ in range(most):
            kind = data[at + 1]
            if data[at] == _FILL != kind:
                at += 2
            else:  # more is between the segments, which decoders skip
                marker = _MARKER.match(data, at)
                if marker is None:
                    return None
                at, kind = marker.end(), marker[1][0]
            if kind in _WITHOUT_LENGTH:
                continue
            if kind in _FRAMES:
                height, width = struct.unpack_from(">HH", data, at + 3)
                factors = [data[at + 9 + 3 * number] for number in range(data[at + 7])]
                sampling = tuple((max(1, one >> 4), max(1, one & 15)) for one in factors)
                frame = (width, height, kind in _PROGRESSIVE, sampling)
                is_huffman = kind in _HUFFMAN
            elif kind == _START_OF_SCAN and frame is not None and frame[3]:
                return Frame(*frame, data[at + 2], at - 2, is_huffman)
            elif kind in (_START_OF_SCAN, END[1]):
                return None
            at += max(2, int.from_bytes(data[at : at + 2], "big"))
    except (IndexError, struct.error):
        return None
    raise too_many("JPEG", most, "segments")


def too_many(name: str, most: int, parts: str) -> CostlyImageError:
    """Return the refusal of a picture of the format ``name`` with more ``parts`` than allowed."""
    return CostlyImageError(
        f"the {name} picture has more than {most} {parts}, the most that are allowed: save it "
        "again with another program"
    )


def count_scans(data: bytes) -> int:
    """Return how many scans begin in ``data``, those of pictures within its metadata included.

    Takes 0.8 ms for a million bytes, whatever they are: ``bytes.count`` would take up to 7.
    """
    bytes_N = np.frombuffer(data, np.uint8)
    return int(((bytes_N[:-1] == _SCAN[0]) & (bytes_N[1:] == _SCAN[1])).sum())


def share_missing(data: bytes) -> float:
    """Return which share of the picture the end of ``data``, that is missing, would have held.

    0 where all the pixels are there. The file must end within its coded data, without a marker.

    Raises:
        OSError and what else Pillow's decoder raises: ``data`` is damaged.
    """
    frame = read_frame(data)
    refines = None if frame is None else _last_scan(data, frame)
    if frame is None or refines is None:
        return 1.0
    if refines:  # only the last bit of some coefficients is missing
        return 0.0
    coded = data.rstrip(b"\xff")
    is_small = frame.width * frame.height <= _SMALL
    scale = _scale(frame)
    whole_HWC = _pixels(coded + END, scale)
    height, width = whole_HWC.shape[:2]
    unlike_HW: NDArray[np.bool_] = np.zeros((height, width), bool)
    for tail in _TAILS[: None if is_small else _FEW]:
        other_HWC = _pixels(coded + tail + END, scale)
        differences_HWC = np.abs(other_HWC.astype(np.int16) - whole_HWC)
        if not is_small or differences_HWC.mean() > _INVISIBLE:
            unlike_HW |= differences_HWC.any(axis=2)
    if not unlike_HW.any():
        return 0.0
    across, down = frame.mcu[0] * _BLOCK // scale, frame.mcu[1] * _BLOCK // scale
    per_row, rows = -(-width // across), -(-height // down)
    row = int(unlike_HW.any(axis=1).argmax()) // down
    column = int(unlike_HW[row * down : (row + 1) * down].any(axis=0).argmax()) // across
    missing: float = 1 - (row * per_row + column) / (rows * per_row)
    return missing


def _scale(frame: Frame) -> int:
    """Return by how much to shrink; of a progressive picture the detail matters most."""
    most = _DETAILED if frame.is_progressive else _SMALL
    pixels = frame.width * frame.height
    return next((scale for scale in (1, 2, 4) if pixels <= most * scale * scale), _EIGHTH)


def _pixels(data: bytes, scale: int) -> NDArray[np.uint8]:
    with Image.open(io.BytesIO(data), formats=("JPEG",)) as image:
        if scale > 1:
            image.draft(None, (max(1, image.width // scale), max(1, image.height // scale)))
        pixels = np.asarray(image)
    return pixels.reshape(*pixels.shape[:2], -1)


def _last_scan(data: bytes, frame: Frame) -> bool | None:
    """Say whether the last scan refines what others told.

    ``None`` where the last scan has not begun, and something is missing everywhere.
    """
    begun: dict[int, set[int]] = {}
    bits = 0
    for scan in re.compile(_SCAN).finditer(data, frame.scan_at):
        at = scan.end() + 2
        if at >= len(data) or at + 4 + 2 * data[at] > len(data):
            return None
        end = at + 1 + 2 * data[at]
        first, last, bits = data[end : end + 3]
        for component in data[at + 1 : end : 2]:
            coefficients = begun.setdefault(component, set())
            if not frame.is_progressive:
                coefficients.update(range(_COEFFICIENTS))
            elif bits & 15 == 0:
                coefficients.update(range(first, last + 1))
    complete = [one for one in begun.values() if one.issuperset(range(_COEFFICIENTS))]
    return bits >> 4 > 0 if len(complete) >= len(frame.sampling) else None
