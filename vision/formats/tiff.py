"""A TIFF's first directory in; out, whether it is a camera's raw picture, and how it is coded.

Tags after TIFF 6.0, and after DNG 1.6 and TIFF/EP (ISO 12234-2) for what cameras write. The file is
untrusted: what is not where the directory says it is counts as not there.
"""

import math
import struct
from typing import Final, NamedTuple

from PIL import Image
from PIL.ExifTags import Base as Tag
from PIL.TiffImagePlugin import TiffImageFile

_SENSOR: Final = frozenset((32803, 34892))  # photometric: a colour filter array, and linear raw
_PREVIEW: Final = 1  # a bit of the subfile type: a smaller version of another picture
_OLD_JPEG: Final = 6  # compression
_WHITE_IS_ZERO: Final = 0  # photometric
# None, CCITT, LZW, JPEG, Deflate, PackBits, LZMA, Zstandard. Others are rare, and their
# decoders are where most faults of libtiff were found.
_COMPRESSIONS: Final = frozenset((1, 2, 3, 4, 5, 7, 8, 32771, 32773, 32946, 34925, 50000))
_BYTE, _FULL = 8, 16  # bits
_MOST_TAGS: Final = 4096
# How a value of each type is packed.
_LETTERS: Final = {1: "B", 2: "B", 3: "H", 4: "I", 6: "b", 7: "B", 8: "h", 9: "i", 13: "I", 16: "Q"}
_MOST_VALUES: Final = 64
# Who makes the cameras whose raw files open like TIFF, and what the files are called.
_RAWS: Final = (
    (b"nikon", "NEF"),
    (b"sony", "ARW"),
    (b"pentax", "PEF"),
    (b"ricoh", "PEF"),
    (b"canon", "CR2"),
    (b"samsung", "SRW"),
    (b"hasselblad", "3FR"),
    (b"phase one", "IIQ"),
)


class Directory(NamedTuple):
    """What the first directory says, as far as it can be read."""

    values: dict[int, tuple[int, ...]]  # by tag

    def one(self, tag: int, default: int = 0) -> int:
        """Return the first value of ``tag``."""
        return self.values.get(tag, (default,))[0]

    @property
    def bits(self) -> int:
        """How many bits a sample has, of the sample with most."""
        return max(self.values.get(Tag.BitsPerSample, (1,)))

    @property
    def is_gray(self) -> bool:
        """Whether a pixel is one sample."""
        return len(self.values.get(Tag.BitsPerSample, (1,))) == 1

    @property
    def has_size(self) -> bool:
        """Whether it says how wide and high the picture is."""
        return {Tag.ImageWidth, Tag.ImageLength} <= self.values.keys()

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the first picture; 0 where it says none."""
        return self.one(Tag.ImageWidth), self.one(Tag.ImageLength)

    @property
    def tile_size(self) -> tuple[int, int]:
        """Width and height of what is decoded at once, a tile; it may lie about the picture."""
        return self.one(Tag.TileWidth), self.one(Tag.TileLength)


def unreadable(data: bytes, directory: Directory) -> str | None:
    """Return what ``data`` is where its pixels cannot be read rightly; ``None`` where they can."""
    if (kind := _raw_kind(data, directory)) is not None:
        return "a raw picture of a camera" + ("" if kind == "RAW" else f" ({kind})")
    if directory.bits > _FULL:
        return f"a TIFF picture of {directory.bits} bits a sample, more than {_FULL}"
    compression = directory.one(Tag.Compression, 1)
    if compression not in _COMPRESSIONS:
        return f"a TIFF picture of a compression that is not read ({compression})"
    return None


def stored_bits(image: Image.Image) -> int:
    """Return how many bits each sample of an opened TIFF has: 16 where they were more than 8."""
    if not isinstance(image, TiffImageFile):
        return _FULL
    bits: int = image.tag_v2.get(Tag.BitsPerSample, (_FULL,))[0]
    return bits if bits > _BYTE else _FULL


def coded_bytes(image: Image.Image) -> int:
    """Return how many bytes a pixel of an opened TIFF has in the file, once it is unpacked."""
    assert isinstance(image, TiffImageFile)
    bits = image.tag_v2.get(Tag.BitsPerSample, (1,))
    samples = max(len(bits), image.tag_v2.get(Tag.SamplesPerPixel, 1))
    return math.ceil(int(samples) * int(max(bits)) / _BYTE)


def is_white_zero(image: Image.Image) -> bool:
    """Say whether white is 0 in samples of 16 bits, which Pillow leaves as they are."""
    return (
        isinstance(image, TiffImageFile)
        and image.mode.startswith("I")
        and image.tag_v2.get(Tag.PhotometricInterpretation) == _WHITE_IS_ZERO
    )


def read_directory(data: bytes) -> Directory:
    """Return the whole numbers and letters of the first directory; of long lists the start."""
    order = "<" if data[:2] == b"II" else ">"
    try:
        if data[2:4] in (b"+\0", b"\0+"):  # BigTIFF
            (at,) = struct.unpack_from(f"{order}Q", data, 8)
            (count,) = struct.unpack_from(f"{order}Q", data, at)
            return Directory(_values(data, order, at + 8, min(count, _MOST_TAGS), entry="HHQQ"))
        (at,) = struct.unpack_from(f"{order}I", data, 4)
        (count,) = struct.unpack_from(f"{order}H", data, at)
        return Directory(_values(data, order, at + 2, min(count, _MOST_TAGS), entry="HHII"))
    except (struct.error, OverflowError):
        return Directory({})


def _raw_kind(data: bytes, directory: Directory) -> str | None:
    """Return what the raw picture of a camera is called, such as ``NEF``; ``None`` of others.

    Raw files open like TIFF, and what a TIFF reader finds in them is a preview at best.
    """
    if data[8:10] == b"CR":
        return "CR2"
    if Tag.DNGVersion in directory.values:
        return "DNG"
    holds_others = Tag.SubIFDs in directory.values
    is_preview = bool(directory.one(Tag.NewSubfileType) & _PREVIEW)
    is_raw = directory.one(Tag.PhotometricInterpretation) in _SENSOR or (
        holds_others and (is_preview or directory.one(Tag.Compression) == _OLD_JPEG)
    )
    if not is_raw:
        return None
    make = bytes(value & 0xFF for value in directory.values.get(Tag.Make, ())).lower()
    return next((kind for maker, kind in _RAWS if make.startswith(maker)), "RAW")


def _values(
    data: bytes, order: str, start: int, count: int, *, entry: str
) -> dict[int, tuple[int, ...]]:
    """Read ``count`` entries of a directory that begin at ``start``."""
    layout = struct.Struct(f"{order}{entry}")
    room = layout.size - struct.calcsize(f"{order}{entry[:-1]}")  # bytes of the value itself
    values: dict[int, tuple[int, ...]] = {}
    for number in range(count):
        at = start + number * layout.size
        if at + layout.size > len(data):
            break
        tag, kind, length, offset = layout.unpack_from(data, at)
        if kind not in _LETTERS or length == 0:
            continue
        size = struct.calcsize(order + _LETTERS[kind])
        where = at + layout.size - room if length * size <= room else offset
        length = min(length, _MOST_VALUES)
        if where + length * size <= len(data):
            found = struct.unpack_from(f"{order}{length}{_LETTERS[kind]}", data, where)
            values[tag] = found
    return values
