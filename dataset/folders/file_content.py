"""A file's bytes, unless they are too many, and what the first of them say that it is."""

import stat
from pathlib import Path
from typing import Final

from vision.formats.detect import BMP, FORMATS, sniff_format
from vision.formats.unsupported import HEAD_BYTES, describe_content, is_unsupported_image
from vision.image.limits import OWN_FILE_LIMITS, ImageLimits, too_many_bytes

NOT_AN_IMAGE: Final = "not a picture, by its content"
# A file with one of these endings is offered to the decoder, whose refusal says what is wrong with
# it; any other file is looked into first. The last are pictures that are not read.
IMAGE_ENDINGS: Final = frozenset(
    (
        *(ending for one in FORMATS for ending in one.endings),
        *(".jxl", ".jp2", ".j2k"),
    )
)
# Bytes of the header that follows; of text that happens to start with the letters it is another.
_BMP_HEADERS: Final = (12, 16, 40, 52, 56, 64, 108, 124)


def is_image(head: bytes) -> bool:
    """Return whether a file that begins with ``head`` is a picture of any kind we know of.

    >>> is_image(b"GIF89a..."), is_image(b"BM is short for Bath Museum, where this was taken")
    (True, False)
    """
    found = sniff_format(head)
    if found is BMP:
        return int.from_bytes(head[14:18], "little") in _BMP_HEADERS
    return found is not None or is_unsupported_image(head)


def describe_non_image(path: Path) -> str | None:
    """Return what ``path``, a regular file, is where it is no picture; ``None`` where it is one.

    A picture's ending, or its first bytes, make it one. What cannot be opened counts as one as
    well: whoever reads it then says why not.
    """
    if path.suffix.lower() in IMAGE_ENDINGS:
        return None
    try:
        with path.open("rb") as file:
            head = file.read(HEAD_BYTES)
    except OSError:
        return None
    if is_image(head):
        return None
    kind = describe_content(head)
    return NOT_AN_IMAGE if kind is None else f"{NOT_AN_IMAGE}: {kind}"


def read_image_file(path: Path, *, limits: ImageLimits = OWN_FILE_LIMITS) -> bytes:
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
