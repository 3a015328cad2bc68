"""The bytes of a HEIC or HEIF picture in, the picture with its pixels still to be decoded out.

libheif checks what it decodes against the sizes that the file declares (``ispe``), and this module
checks those, and how much the file says that it holds, before libheif sees any of it. The boxes are
those of ISO/IEC 14496-12 and ISO/IEC 23008-12. Nothing is registered with Pillow.
"""

import io
import struct
from collections.abc import Iterator
from typing import Final

from PIL import ImageFile

from vision.errors import CorruptImageError

_MOST_BOXES: Final = 20_000  # of one box; a picture of 200 megapixels has some 1,000 tiles
_MOST_HELD: Final = 2  # times the file, that its items together say they have bytes
_FULL_BOX: Final = 4  # bytes of version and flags
_SIZE: Final = b"ispe"


def open_heic(data: bytes) -> ImageFile.ImageFile:
    """Return the primary picture, turned upright by the file's own ``irot`` and ``imir``.

    Its EXIF orientation says the same once more, and is taken back: libheif has applied it. Samples
    of 10 and 12 bits become 8.

    Raises:
        OSError and what else Pillow's decoders raise: ``data`` is damaged.
    """
    # 25 ms that only those wait for who have such pictures.
    from pi_heif.as_plugin import HeifImageFile  # type: ignore[import-untyped] # noqa: PLC0415

    image: ImageFile.ImageFile = HeifImageFile(io.BytesIO(data))
    return image


def declared_size(data: bytes) -> tuple[int, int]:
    """Return width and height of the largest picture that the file declares, before it is cut.

    A picture may show a small part of a huge one (``clap``), which is decoded all the same.

    Raises:
        CorruptImageError: nothing is declared, or more bytes than the file can hold.
    """
    meta = _first(data, 0, len(data), b"meta")
    if meta is None:
        raise CorruptImageError("the HEIC image is truncated or damaged")
    inside = (meta[0] + _FULL_BOX, meta[1])
    _check_held(data, *inside)
    sizes = []
    properties = _first(data, *inside, b"iprp")
    container = _first(data, *properties, b"ipco") if properties is not None else None
    if container is not None:
        for kind, start, end in _boxes(data, *container):
            if kind == _SIZE and end - start >= _FULL_BOX + 8:
                width, height = struct.unpack_from(">II", data, start + _FULL_BOX)
                sizes.append((width, height))
    if not sizes:
        raise CorruptImageError("the HEIC image is truncated or damaged")
    return max(sizes, key=lambda size: size[0] * size[1])


def _check_held(data: bytes, start: int, end: int) -> None:
    """Check that the items do not repeat the same bytes over and over: each would be copied.

    Raises:
        CorruptImageError: they do, or it cannot be told.
    """
    locations = _first(data, start, end, b"iloc")
    try:
        held = 0 if locations is None else _held(data, *locations)
    except struct.error:
        held = len(data) * _MOST_HELD + 1
    if held > len(data) * _MOST_HELD:
        raise CorruptImageError("the HEIC image says that it holds more bytes than it has")


def _held(data: bytes, start: int, end: int) -> int:
    """Return how many bytes all items have together (``iloc``)."""
    reader = _Reader(data, start, end)
    version = reader.number(4) >> 24
    sizes = reader.number(2)
    offset, length, base, index = (sizes >> shift & 15 for shift in (12, 8, 4, 0))
    held = 0
    for _ in range(reader.number(4 if version > 1 else 2)):
        reader.number(4 if version > 1 else 2)  # the item's number
        if version > 0:
            reader.number(2)
        reader.number(2)
        reader.number(base)
        for _ in range(reader.number(2)):
            if version > 0:
                reader.number(index)
            reader.number(offset)
            held += reader.number(length) or len(data)  # 0: all of the file
    return held


class _Reader:
    """Whole numbers, one after another, of a part of the bytes."""

    def __init__(self, data: bytes, start: int, end: int) -> None:
        self._data = data
        self._at = start
        self._end = end

    def number(self, size: int) -> int:
        """Return the next number of ``size`` bytes.

        Raises:
            struct.error: there are not so many.
        """
        at, self._at = self._at, self._at + size
        if self._at > self._end:
            raise struct.error("the box ends within a number")
        return int.from_bytes(self._data[at : self._at], "big")


def _first(data: bytes, start: int, end: int, wanted: bytes) -> tuple[int, int] | None:
    """Return where the content of the first box called ``wanted`` begins and ends."""
    found = (where for kind, *where in _boxes(data, start, end) if kind == wanted)
    first = next(found, None)
    return None if first is None else (first[0], first[1])


def _boxes(data: bytes, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Yield the name of each box, and where its content begins and ends."""
    at = start
    for _ in range(_MOST_BOXES):
        if at + 8 > end:
            return
        size, kind = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8]
        header = 8
        if size == 1:  # of 64 bits
            size, header = int.from_bytes(data[at + 8 : at + 16], "big"), 16
        stop = end if size == 0 else at + size
        if stop > end or stop < at + header:
            return
        yield kind, at + header, stop
        at = stop
