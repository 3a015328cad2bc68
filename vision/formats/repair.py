"""A damaged file in, the same picture without the damage out, where all of its pixels are there.

Decoders refuse files for faults that no pixel depends on: metadata that is too large or has a wrong
checksum, sizes that are off, a last few bytes that are missing. What is really cut stays refused.
"""

import struct
import zlib
from collections.abc import Callable
from typing import Final

from vision.formats.detect import BMP, GIF, JPEG, PNG, WEBP, Format
from vision.formats.jpeg import END, share_missing

MAX_INFLATED: Final = 2**20  # bytes of a compressed piece of metadata that is kept
MAX_CHUNKS: Final = 100_000  # of a PNG; at 8 KiB of pixels each these are 800 MB
# Of a JPEG: then some of the last pixels are gray. 4 rows of 400, of a photo.
MAX_MISSING: Final = 0.01
MAX_PADDING: Final = 8  # missing bytes of the last piece of a GIF or WebP, less of a BMP
_FILLINGS: Final = (b"\0", b"\x55", b"\xff")

_PNG_SIGNATURE: Final = 8
_PIXEL_CHUNKS: Final = (b"IHDR", b"PLTE", b"IDAT", b"IEND")
_TEXT_CHUNKS: Final = (b"tEXt", b"zTXt", b"iTXt")
_TURNING_TEXTS: Final = (b"XML:com.adobe.xmp", b"Raw profile type exif")  # may say: upright
_LONGEST_NAME: Final = 79  # of a colour profile, bytes
_WEBP_PIXELS: Final = (b"VP8 ", b"VP8L", b"ALPH", b"ANMF")
_BMP_PADDING: Final = 3  # bytes: within the last pixel, or the filling of its row


def repaired(data: bytes, image_format: Format) -> tuple[bytes, ...]:
    """Return versions of ``data`` without what a decoder stumbled over; none where that is no help.

    Of several versions each stands for the whole picture only where all show the same: they differ
    in the bytes that are missing.

    Raises:
        OSError and what else Pillow's decoders raise: ``data`` is damaged.
    """
    repair = _REPAIRS.get(image_format)
    return () if repair is None else repair(data)


def _repaired_jpeg(data: bytes) -> tuple[bytes, ...]:
    if data.rstrip(b"\0").endswith(END) or share_missing(data) > MAX_MISSING:
        return ()
    return (data.rstrip(b"\xff") + END,)


def _repaired_png(data: bytes) -> tuple[bytes, ...]:
    """Keep what shows pixels, and of metadata what turns or colours them and is sound."""
    kept = [data[:_PNG_SIGNATURE]]
    at = _PNG_SIGNATURE
    while at + 8 <= len(data) and len(kept) <= MAX_CHUNKS:
        length = int.from_bytes(data[at : at + 4], "big")
        kind, end = data[at + 4 : at + 8], at + 12 + length
        if not kind.isalnum() or len(kept) == MAX_CHUNKS:
            break
        if kind in _PIXEL_CHUNKS or _is_sound_chunk(kind, data[at + 8 : end - 4], data[at:end]):
            kept.append(data[at:end])
        at = end
        if kind == b"IEND":
            break
    result = b"".join(kept)
    return () if len(result) == len(data) else (result,)


def _is_sound_chunk(kind: bytes, content: bytes, chunk: bytes) -> bool:
    """Say whether an ancillary chunk is worth keeping, and cannot be what was stumbled over."""
    if chunk[-4:] != struct.pack(">I", zlib.crc32(chunk[4:-4])):
        return False
    name, _, rest = content.partition(b"\0")
    if kind == b"iCCP":
        return 0 < len(name) <= _LONGEST_NAME and rest[:1] == b"\0" and _inflates(rest[1:])
    if name in _TURNING_TEXTS and kind in _TEXT_CHUNKS:
        return _is_short_text(kind, rest)
    return kind == b"eXIf" or (kind == b"tRNS" and len(content) > 0)


def _is_short_text(kind: bytes, text: bytes) -> bool:
    if kind == b"zTXt":
        return text[:1] == b"\0" and _inflates(text[1:])
    if kind == b"iTXt" and text[:1] == b"\1":
        _language, _, rest = text[2:].partition(b"\0")
        _key, _, packed = rest.partition(b"\0")
        return text[1:2] == b"\0" and _inflates(packed)
    return len(text) <= MAX_INFLATED


def _inflates(data: bytes) -> bool:
    """Say whether ``data`` inflates to little; no more than that is ever inflated."""
    stream = zlib.decompressobj()
    try:
        stream.decompress(data, MAX_INFLATED)
    except zlib.error:
        return False
    return not stream.unconsumed_tail


def _repaired_webp(data: bytes) -> tuple[bytes, ...]:
    """Set the size right, and leave out metadata that is cut (WebP container, RIFF)."""
    kept, at = [data[8:12]], 12
    versions: tuple[bytes, ...] = ()
    while at + 8 <= len(data):
        kind, length = data[at : at + 4], int.from_bytes(data[at + 4 : at + 8], "little")
        end = at + 8 + length + length % 2
        if end <= len(data):
            kept.append(data[at:end])
        elif kind in _WEBP_PIXELS and end - len(data) <= MAX_PADDING:
            rest, missing = data[at:], end - len(data)
            versions = tuple(b"".join((*kept, rest, fill * missing)) for fill in _FILLINGS)
        elif kind in _WEBP_PIXELS:
            return ()
        at = end
    versions = versions or (b"".join(kept),)
    whole = tuple(b"RIFF" + struct.pack("<I", len(body)) + body for body in versions)
    return () if whole == (data,) else whole


def _repaired_gif(data: bytes) -> tuple[bytes, ...]:
    """Fill the last block of pixels up, and end the file."""
    return tuple(data + fill * (MAX_PADDING + 1) + b"\0;" for fill in _FILLINGS)


def _repaired_bmp(data: bytes) -> tuple[bytes, ...]:
    return (data + bytes(_BMP_PADDING),)


_REPAIRS: Final[dict[Format, Callable[[bytes], tuple[bytes, ...]]]] = {
    JPEG: _repaired_jpeg,
    PNG: _repaired_png,
    WEBP: _repaired_webp,
    GIF: _repaired_gif,
    BMP: _repaired_bmp,
}
