"""A file's bytes, unless they are too many, and whether the first of them are a picture's."""

import stat
from pathlib import Path
from typing import Final

from vision.image import OWN_FILE_LIMITS, ImageLimits, too_many_bytes

# A file with one of these endings is offered to the decoder, whose refusal says what is wrong with
# it; any other file is looked into first.
IMAGE_ENDINGS: Final = frozenset(
    (
        *(".jpg", ".jpeg", ".jpe", ".jfif", ".jif", ".png", ".apng", ".webp", ".gif", ".bmp"),
        *(".dib", ".tif", ".tiff", ".heic", ".heif", ".hif", ".avif", ".jxl", ".jp2", ".j2k"),
    )
)
HEAD_BYTES: Final = 32
_STARTS: Final = (
    b"\xff\xd8\xff",  # JPEG
    b"\x89PNG\r\n\x1a\n",
    b"GIF87a",
    b"GIF89a",
    b"II*\0",  # TIFF
    b"MM\0*",
    b"\xff\x0a",  # JPEG XL
    b"\0\0\0\x0cJXL ",
    b"\0\0\0\x0cjP  ",  # JPEG 2000
    b"\xff\x4f\xff\x51",
)
_HEIF_BRANDS: Final = (b"heic", b"heix", b"heif", b"hevc", b"mif1", b"msf1", b"avif", b"avis")
_BMP_HEADERS: Final = (12, 40, 52, 56, 64, 108, 124)  # bytes


def is_picture(head: bytes) -> bool:
    """Return whether a file that begins with ``head`` is a picture of any kind we know of.

    >>> is_picture(b"GIF89a..."), is_picture(b"BM is short for Bath Museum, where this was taken")
    (True, False)
    """
    if head.startswith(_STARTS):
        return True
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return True
    if head[4:8] == b"ftyp":
        return head[8:12] in _HEIF_BRANDS
    return head[:2] == b"BM" and int.from_bytes(head[14:18], "little") in _BMP_HEADERS


def looks_like_picture(path: Path) -> bool:
    """Return whether ``path``, a regular file, has a picture's ending or a picture's first bytes.

    What cannot be opened counts as one: whoever reads it then says why not.
    """
    if path.suffix.lower() in IMAGE_ENDINGS:
        return True
    try:
        with path.open("rb") as file:
            return is_picture(file.read(HEAD_BYTES))
    except OSError:
        return True


def read_file(path: Path, *, limits: ImageLimits = OWN_FILE_LIMITS) -> bytes:
    """Return the bytes of ``path``.

    Raises:
        TooManyBytesError: there are more than ``limits`` allow; none is read.
        OSError: it cannot be read, or is not a file: opening a pipe would wait for ever.
    """
    facts = path.stat()
    if not stat.S_ISREG(facts.st_mode):
        raise OSError("not a regular file")
    if facts.st_size > limits.max_bytes:
        raise too_many_bytes(facts.st_size, limits)
    return path.read_bytes()
