"""The bytes of an AVIF picture in, the size of the largest picture that is decoded for it out.

libavif believes the size that the container declares, decodes what is coded at whatever size that
has, and scales it: a file of 50 kB that says 64 x 64 took 0.4 GB. The size that is coded stands in
the sequence header (AV1 Bitstream & Decoding Process Specification, sections 5.3 and 5.5).
"""

import struct
from collections.abc import Iterator
from typing import Final

from vision.errors import CorruptImageError
from vision.formats.iso_boxes import (
    FULL,
    Reader,
    Span,
    boxes,
    check_held,
    declared_sizes,
    extents,
    find,
    items,
    meta_of,
)

_SEQUENCE_HEADER: Final = 1
_MOST_UNITS: Final = 1000  # of one frame: headers, metadata, groups of tiles
_WITH_TIER: Final = 7  # levels above it say a tier
_SIZE_BITS: Final = 7  # of each byte of a size; the other says whether one follows
_MOST_CODED: Final = 4  # times what is shown: alpha, a map of brightness, thumbnails


def coded_size(data: bytes) -> tuple[int, int]:
    """Return width and height of the largest picture that is coded, or declared.

    Of a moving picture the first frame counts, of a still one every item: tiles, alpha, thumbnail.

    Raises:
        CorruptImageError: it cannot be told, or much more is coded than such a picture can show.
    """
    try:
        meta = meta_of(data)
        parts = [*_items(data, meta), *_first_frames(data)]
        coded = [size for part in parts for size in _sizes(part)]
        declared = [] if meta is None else declared_sizes(data, meta)
    except (struct.error, IndexError) as error:
        raise CorruptImageError("the AVIF image does not match its boxes") from error
    largest = max((*coded, *declared), key=_area, default=(0, 0))
    if not coded:
        raise CorruptImageError("the AVIF image is truncated or damaged")
    if sum(map(_area, coded)) > _MOST_CODED * _area(largest):
        raise CorruptImageError("the AVIF image codes more pixels than it shows")
    return largest


def _area(size: tuple[int, int]) -> int:
    return size[0] * size[1]


def _items(data: bytes, meta: Span | None) -> list[bytes]:
    """Return what each coded item holds."""
    if meta is None:
        return []
    check_held(data, meta)
    coded = {number: b"" for number, words in items(data, meta) if words.startswith(b"av01")}
    for number, (start, end) in extents(data, meta):
        if number in coded:
            coded[number] += data[start:end]
    return list(coded.values())


def _first_frames(data: bytes) -> Iterator[bytes]:
    """Yield the first frame of each track."""
    movie = find(data, Span(0, len(data)), b"moov")
    for kind, track in boxes(data, movie) if movie is not None else ():
        table = find(data, track, b"mdia", b"minf", b"stbl") if kind == b"trak" else None
        if table is None:
            continue
        sizes, near, far = (find(data, table, name) for name in (b"stsz", b"stco", b"co64"))
        if sizes is None or (near is None) == (far is None):
            raise struct.error("a track does not say where its frames lie")
        reader = Reader(data, sizes)
        reader.number(FULL)
        length = reader.number(4)  # of all, or each has its own
        if reader.number(4) and length == 0:
            length = reader.number(4)
        reader = Reader(data, near or far or sizes)
        reader.number(FULL)
        if reader.number(4):
            start = reader.number(8 if near is None else 4)
            yield data[start : start + length]


def _sizes(data: bytes) -> Iterator[tuple[int, int]]:
    """Yield the sizes that the sequence headers among the units of ``data`` tell."""
    at = 0
    for _ in range(_MOST_UNITS):
        if at >= len(data):
            return
        header = data[at]
        at += 2 if header & 4 else 1
        length = len(data) - at
        if header & 2:
            length, at = _size_at(data, at)
        if header >> 3 & 15 == _SEQUENCE_HEADER:
            yield _size_of(_Bits(data[at : at + length]))
        at += length
    raise struct.error("there are too many units")


def _size_at(data: bytes, at: int) -> tuple[int, int]:
    """Return a number in the notation leb128, and where it ends."""
    value = 0
    for place in range(8):
        value |= (data[at + place] & 0x7F) << (_SIZE_BITS * place)
        if not data[at + place] >> _SIZE_BITS:
            return value, at + place + 1
    raise struct.error("a size has more than eight bytes")


class _Bits:
    """Numbers of some bits each, one after another."""

    def __init__(self, data: bytes) -> None:
        self._value = int.from_bytes(data[:512], "big")
        self._left = 8 * len(data[:512])

    def __call__(self, count: int = 1) -> int:
        self._left -= count
        if self._left < 0:
            raise struct.error("the header ends early")
        return self._value >> self._left & ((1 << count) - 1)


def _size_of(bits: _Bits) -> tuple[int, int]:
    """Return the largest width and height of a frame, as the sequence header says (5.5.1)."""
    bits(3)  # profile
    bits()  # whether it is a still picture
    if bits():  # a reduced header
        bits(5)
    else:
        _skip_operating_points(bits)
    wide, high = bits(4) + 1, bits(4) + 1
    return bits(wide) + 1, bits(high) + 1


def _skip_operating_points(bits: _Bits) -> None:
    delay_bits = 0
    if bits():  # timing
        bits(64)
        if bits():
            zeros = 0
            while not bits():
                zeros += 1
            bits(min(zeros, 32))
        if bits():  # a model of the decoder
            delay_bits = bits(5) + 1
            bits(42)
    has_delays = bits()
    for _ in range(bits(5) + 1):
        bits(12)
        if bits(5) > _WITH_TIER:
            bits()
        if delay_bits and bits():
            bits(2 * delay_bits + 1)
        if has_delays and bits():
            bits(4)
