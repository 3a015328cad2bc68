"""The boxes of an ISO base media file (ISO/IEC 14496-12), and where its items lie: HEIC and AVIF.

The file is untrusted: a box that does not end within the one around it ends the walk. Nothing is
copied, and no count that the file states is believed before so many bytes are there.
"""

import struct
from collections.abc import Iterator
from typing import Final, NamedTuple

FULL: Final = 4  # bytes of version and flags, at the start of some boxes
_MOST_BOXES: Final = 20_000  # of one box; a picture of 200 megapixels has some 1,000 tiles
_MOST_HELD: Final = 2  # times the file, that its items together say they have bytes
_IN_FILE: Final = 0  # construction method: offsets count from the start of the file
_IN_BOX: Final = 1  # or of the box `idat`

_WIDE_ENTRIES: Final = 3  # version of `infe` from which numbers have 4 bytes


class Span(NamedTuple):
    """A part of the file, from one byte up to another."""

    start: int
    end: int


class Reader:
    """Whole numbers, one after another, of a part of a file."""

    def __init__(self, data: bytes, span: Span) -> None:
        self._data = data
        self._at, self._end = span

    def number(self, size: int) -> int:
        """Return the next number of ``size`` bytes.

        Raises:
            struct.error: there are not so many.
        """
        at, self._at = self._at, self._at + size
        if self._at > self._end:
            raise struct.error("the box ends within a number")
        return int.from_bytes(self._data[at : self._at], "big")


def boxes(data: bytes, span: Span) -> Iterator[tuple[bytes, Span]]:
    """Yield the name of each box in ``span``, and where its content lies."""
    at, end = span
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
        yield kind, Span(at + header, stop)
        at = stop


def find(data: bytes, span: Span, *path: bytes) -> Span | None:
    """Return where the content of the box lies that ``path`` leads to, box within box.

    Raises:
        struct.error: there are several: one could be checked here, and another one be read there.
    """
    found: Span | None = span
    for wanted in path:
        if found is None:
            return None
        inner = [where for kind, where in boxes(data, found) if kind == wanted]
        if len(inner) > 1:
            raise struct.error(f"there are {len(inner)} boxes of one kind")
        found = inner[0] if inner else None
    return found


def meta_of(data: bytes) -> Span | None:
    """Return where the boxes lie that tell of the file's items.

    Raises:
        struct.error: there are several such places.
    """
    meta = find(data, Span(0, len(data)), b"meta")
    return None if meta is None else Span(meta.start + FULL, meta.end)


def extents(data: bytes, meta: Span) -> Iterator[tuple[int, Span]]:
    """Yield each piece of an item (``iloc``) and whose it is, by the item's number.

    Of method 2 and of length 0 it is all of the file.

    Raises:
        struct.error: the box is damaged.
    """
    locations = find(data, meta, b"iloc")
    if locations is None:
        return
    inside = find(data, meta, b"idat") or Span(0, 0)
    reader = Reader(data, locations)
    version = reader.number(4) >> 24
    sizes = reader.number(2)
    offset, length, base, index = (sizes >> shift & 15 for shift in (12, 8, 4, 0))
    wide = 4 if version > 1 else 2
    for _ in range(reader.number(wide)):
        item = reader.number(wide)
        method = reader.number(2) & 15 if version > 0 else _IN_FILE
        reader.number(2)
        start = reader.number(base) + (inside.start if method == _IN_BOX else 0)
        for _ in range(reader.number(2)):
            if version > 0:
                reader.number(index)
            first, count = start + reader.number(offset), reader.number(length)
            if count == 0 or method > _IN_BOX:
                yield item, Span(0, len(data))
            else:
                yield item, Span(first, first + count)


def check_held(data: bytes, meta: Span) -> None:
    """Check that the items do not repeat the same bytes over and over: each would be copied.

    Raises:
        struct.error: they do, or it cannot be told.
    """
    held = 0
    for _, piece in extents(data, meta):
        held += piece.end - piece.start
        if held > _MOST_HELD * len(data):
            raise struct.error("the items have more bytes than the file")


def items(data: bytes, meta: Span) -> Iterator[tuple[int, bytes]]:
    """Yield number and words of each item (``iinf``): its type, of 4 bytes, and names behind it."""
    table = find(data, meta, b"iinf")
    if table is None:
        return
    count = 2 if data[table.start : table.start + 1] == b"\0" else 4
    for kind, entry in boxes(data, Span(table.start + FULL + count, table.end)):
        if kind == b"infe":
            at = entry.start + FULL
            wide = 4 if data[entry.start] >= _WIDE_ENTRIES else 2
            number = int.from_bytes(data[at : min(at + wide, entry.end)], "big")
            yield number, data[at + wide + 2 : entry.end]


def declared_sizes(data: bytes, meta: Span) -> list[tuple[int, int]]:
    """Return width and height of each picture that the file declares (``ispe``)."""
    properties = find(data, meta, b"iprp", b"ipco")
    found = [] if properties is None else list(boxes(data, properties))
    return [
        struct.unpack_from(">II", data, inner.start + FULL)
        for kind, inner in found
        if kind == b"ispe" and inner.end - inner.start >= FULL + 8
    ]
