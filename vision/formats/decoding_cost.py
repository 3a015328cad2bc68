"""The structure of an encoded picture in, what decoding it costs out; nothing is decoded here.

The cost of a picture is the pixels that its decoder passes over: those that are coded, once for
each scan of a JPEG. All that is looked at for it is bounded, and so takes microseconds, whatever a
file is made of; what is counted in the whole file is counted where decoding may take its time.
"""

import struct
from collections.abc import Callable
from functools import partial
from typing import Final

from vision.errors import CostlyImageError
from vision.formats.detect import AVIF, BMP, GIF, HEIC, JPEG, PNG, TIFF, WEBP, Format, sniff_format
from vision.formats.jpeg import Frame, count_scans, read_frame, too_many
from vision.formats.tiff import read_directory

MAX_COST: Final = 2**31
# A progressive picture has some 10 scans, and hardly any program writes more than 20.
MOST_SCANS: Final = 100
_USUAL_SCANS: Final = 10
_UNKNOWN_COST: Final = 25_000_000  # where the first segments do not tell
# Of a PNG; at 8 KiB of pixels each, as libpng writes them, these are 800 MB.
MOST_CHUNKS: Final = 100_000
MOST_PROFILES: Final = 4  # of a PNG, which may have one; each is inflated to up to 1 MiB

# What is decoded at once, where it came in: some 20 ms at the worst, and mostly below 1 ms.
CHEAP_COST: Final = 2**22
CHEAP_BYTES: Final = 2**20  # of the file
_CHEAP_PARTS: Final = 64  # segments or chunks
_CHEAP_COMPONENTS: Final = 3  # profiles of four colours take 0.1 s to be prepared
_COSTED_PARTS: Final = 1000
_CHEAP_INFLATED: Final = 4  # compressed pieces of metadata; each may inflate to 1 MiB
_TINY_BYTES: Final = 2**12  # so small a PNG is cheap whatever its chunks: they inflate to 4 MiB
_CHEAP_TAGS: Final = 200  # of EXIF, each of which takes some µs; cameras write 20
_CHEAP_HEADER: Final = 2**16  # bytes of it, or of what is before the first scan

_PNG_SIGNATURE: Final = 8  # bytes
_PROFILE: Final = b"iCCP"
_EXIF: Final = b"eXIf"
_EXIF_AS_TEXT: Final = b"Raw profile type"  # as ImageMagick writes it
_EXIF_START: Final = b"Exif\0\0"
_MANY_PICTURES: Final = b"MPF\0"  # tags as those of EXIF
_COMPRESSED: Final = (_PROFILE, b"zTXt", b"iTXt")
_TEXTS: Final = (b"tEXt", b"zTXt", b"iTXt")
_OS2_HEADER: Final = 12  # bytes of a BMP's header that has sizes of 16 bits
_HEADER_BYTES: Final = 2**16  # in which sizes of AVIF and HEIC are looked for
_MOST_SIZES: Final = 64


def decoding_cost(data: bytes) -> int:
    """Return how many pixels decoding ``data`` passes over, at least 1, at most ``MAX_COST``.

    It is an estimate, from the header alone, in some µs: a progressive JPEG counts as if it had 10
    scans. What cannot be read costs 1: it is refused before anything is decoded.
    """
    image_format = sniff_format(data)
    try:
        cost = 0 if image_format is None else _COSTS[image_format](data)
    except (struct.error, IndexError):
        return 1
    return max(1, min(cost, MAX_COST))


def is_cheap(data: bytes) -> bool:
    """Say whether the header of ``data`` proves that it is decoded in some milliseconds.

    Only PNG and JPEG are looked at, the usual ones; others never are cheap. Costs some µs, and of
    a progressive JPEG up to 0.8 ms.
    """
    if len(data) > CHEAP_BYTES:
        return False
    image_format = sniff_format(data)
    if image_format is PNG:
        width, height = int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")
        return width * height <= CHEAP_COST and _has_cheap_chunks(data)
    return image_format is JPEG and _is_cheap_jpeg(data)


def check_chunks(data: bytes) -> None:
    """Refuse a PNG of so many chunks that hardly a sound program has written it.

    Raises:
        CostlyImageError: it has too many.
    """
    kinds = _png_chunks(data, MOST_CHUNKS + 1)
    if len(kinds) > MOST_CHUNKS:
        raise too_many("PNG", MOST_CHUNKS, "chunks")
    if kinds.count(_PROFILE) > MOST_PROFILES:
        raise too_many("PNG", MOST_PROFILES, "colour profiles")


def check_scans(data: bytes, frame: Frame) -> None:
    """Refuse a JPEG whose scans are repeated: each passes over all of its pixels.

    Raises:
        CostlyImageError: it has too many.
    """
    if not frame.has_one_scan and count_scans(data) > MOST_SCANS:
        raise too_many("JPEG", MOST_SCANS, "scans")


def _is_cheap_jpeg(data: bytes) -> bool:
    try:
        frame = read_frame(data, most=_CHEAP_PARTS)
    except CostlyImageError:
        return False
    if frame is None or not frame.is_huffman or len(frame.sampling) > _CHEAP_COMPONENTS:
        return False
    if not _has_cheap_header(data[: frame.scan_at]):
        return False
    scans = 1 if frame.has_one_scan else count_scans(data)
    return frame.width * frame.height * scans <= CHEAP_COST and scans <= MOST_SCANS


def _has_cheap_header(header: bytes) -> bool:
    if len(header) > _CHEAP_HEADER or _MANY_PICTURES in header:
        return False
    at = header.find(_EXIF_START)
    if at < 0:
        return True
    at += len(_EXIF_START)
    return header.find(_EXIF_START, at) < 0 and _has_few_tags(header[at:])


def _has_few_tags(exif: bytes) -> bool:
    """Say whether a block of EXIF, a TIFF without pixels, has few tags in its first directory."""
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(exif[:4])
    if order is None:  # no TIFF, or one that is written wrongly or is very large
        return not set(exif[2:4]) & set(b"*+")
    try:
        (first,) = struct.unpack_from(f"{order}I", exif, 4)
        return bool(struct.unpack_from(f"{order}H", exif, first)[0] <= _CHEAP_TAGS)
    except struct.error:  # there are none
        return True


def _has_cheap_chunks(data: bytes) -> bool:
    kinds = _png_chunks(data, _CHEAP_PARTS)
    if _EXIF in kinds and not _has_cheap_exif(data):
        return False
    if any(kind in _TEXTS for kind in kinds) and _EXIF_AS_TEXT in data:
        return False
    if len(data) <= _TINY_BYTES:
        return True
    inflated = sum(kind in _COMPRESSED for kind in kinds)
    return len(kinds) < _CHEAP_PARTS and inflated <= _CHEAP_INFLATED


def _has_cheap_exif(data: bytes) -> bool:
    at = data.index(_EXIF)
    size = int.from_bytes(data[at - 4 : at], "big")
    is_one = data.find(_EXIF, at + 4) < 0
    return is_one and size <= _CHEAP_HEADER and _has_few_tags(data[at + 4 : at + 4 + size])


def _png_chunks(data: bytes, most: int) -> list[bytes]:
    """Return the kinds of the chunks, of at most ``most``."""
    kinds: list[bytes] = []
    at, end = _PNG_SIGNATURE, len(data)
    while at + 12 <= end and len(kinds) < most:
        kinds.append(data[at + 4 : at + 8])
        at += 12 + int.from_bytes(data[at : at + 4], "big")
    return kinds


def _jpeg_cost(data: bytes) -> int:
    try:
        frame = read_frame(data[:CHEAP_BYTES], most=_COSTED_PARTS)
    except CostlyImageError:
        return _UNKNOWN_COST
    if frame is None:
        return 1 if len(data) <= CHEAP_BYTES else _UNKNOWN_COST
    return frame.width * frame.height * (1 if frame.has_one_scan else _USUAL_SCANS)


def _area_at(layout: str, at: int, data: bytes) -> int:
    """Return width times height, which are the two numbers at ``at``."""
    width, height = struct.unpack_from(layout, data, at)
    return abs(int(width * height))


def _bmp_cost(data: bytes) -> int:
    is_os2 = int.from_bytes(data[14:18], "little") == _OS2_HEADER
    return _area_at("<HH" if is_os2 else "<ii", 18, data)


def _webp_cost(data: bytes) -> int:
    """Return the pixels of a WebP (RFC 9649, sections 2.5 to 2.7)."""
    kind = data[12:16]
    if kind == b"VP8X":
        width, height = data[24:27], data[27:30]
        return (1 + int.from_bytes(width, "little")) * (1 + int.from_bytes(height, "little"))
    if kind == b"VP8L":
        bits = int.from_bytes(data[21:25], "little")
        return (1 + (bits & 0x3FFF)) * (1 + (bits >> 14 & 0x3FFF))
    lossy_width, lossy_height = struct.unpack_from("<HH", data, 26)
    return int((lossy_width & 0x3FFF) * (lossy_height & 0x3FFF))


def _tiff_cost(data: bytes) -> int:
    directory = read_directory(data)
    return max(width * height for width, height in (directory.size, directory.tile_size))


def _boxed_cost(data: bytes) -> int:
    """Return the pixels of the largest picture that an AVIF or HEIC declares near its start."""
    header = data[:_HEADER_BYTES]
    at, largest = -1, 0
    for _ in range(_MOST_SIZES):
        at = header.find(b"ispe", at + 1)
        if at < 0:
            break
        width, height = struct.unpack_from(">II", header, at + 8)
        largest = max(largest, width * height)
    return largest


_COSTS: Final[dict[Format, Callable[[bytes], int]]] = {
    JPEG: _jpeg_cost,
    PNG: partial(_area_at, ">II", 16),
    GIF: partial(_area_at, "<HH", 6),
    BMP: _bmp_cost,
    WEBP: _webp_cost,
    TIFF: _tiff_cost,
    AVIF: _boxed_cost,
    HEIC: _boxed_cost,
}
