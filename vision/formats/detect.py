"""The formats of pictures that are taken: the first bytes of a file in, which of them it is out.

This is the one list: what decodes, what the service takes, what its document, its page and its
commands say, and which endings count as pictures in folders, all follow it. Names and types that
come along with a file lie; its content decides.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Format:
    """A format of pictures."""

    name: str  # as a person writes it
    media_types: tuple[str, ...]  # the usual one first
    endings: tuple[str, ...]  # of files, lower case, the usual one first

    @property
    def key(self) -> str:
        """What settings call it, such as ``webp``."""
        return self.name.lower()

    @property
    def pillow_name(self) -> str:
        """What Pillow calls it; HEIC is read without Pillow's list of formats."""
        return self.name.upper()


JPEG: Final = Format("JPEG", ("image/jpeg",), (".jpg", ".jpeg", ".jpe", ".jfif", ".jif"))
PNG: Final = Format("PNG", ("image/png",), (".png", ".apng"))
WEBP: Final = Format("WebP", ("image/webp",), (".webp",))
GIF: Final = Format("GIF", ("image/gif",), (".gif",))
BMP: Final = Format("BMP", ("image/bmp",), (".bmp", ".dib"))
TIFF: Final = Format("TIFF", ("image/tiff",), (".tif", ".tiff"))
AVIF: Final = Format("AVIF", ("image/avif",), (".avif", ".avifs"))
HEIC: Final = Format("HEIC", ("image/heic", "image/heif"), (".heic", ".heif", ".hif"))
FORMATS: Final = (JPEG, PNG, WEBP, GIF, BMP, TIFF, AVIF, HEIC)

_STARTS: Final = (
    (b"\xff\xd8\xff", JPEG),
    (b"\x89PNG\r\n\x1a\n", PNG),
    ((b"GIF87a", b"GIF89a"), GIF),
    (b"BM", BMP),
    ((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"), TIFF),
)
_AVIF_BRANDS: Final = frozenset((b"avif", b"avis"))
_HEVC_BRANDS: Final = frozenset(
    (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"heif")
)
_ANY_CODEC: Final = frozenset(
    (b"mif1", b"msf1", b"mif2", b"mif3")
)  # the brands beside it say which
_MOST_BRANDS: Final = 64


def sniff_format(data: bytes) -> Format | None:
    """Return the format whose signature opens ``data``, or ``None``.

    >>> sniff_format(b"GIF89a").name
    'GIF'
    """
    for start, image_format in _STARTS:
        if data.startswith(start):
            return image_format
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return WEBP
    return _of_brands(data) if data[4:8] == b"ftyp" else None


def in_words(formats: Iterable[Format]) -> str:
    """Return their names as a list in a sentence.

    >>> in_words([JPEG, PNG, GIF])
    'JPEG, PNG or GIF'
    """
    *names, last = (one.name for one in formats)
    return f"{', '.join(names)} or {last}" if names else last


def formats_called(names: Iterable[str]) -> tuple[Format, ...]:
    """Return the formats that settings name, in the order of the list, each once.

    Raises:
        ValueError: there are none, or a name is not one of the list.
    """
    keys = {name.strip().lower() for name in names} - {""}
    known = {one.key: one for one in FORMATS}
    unknown = sorted(keys - known.keys())
    if unknown:
        raise ValueError(
            f"{unknown[0]!r} is not a format that can be read; these are: {', '.join(known)}"
        )
    if not keys:
        raise ValueError(f"no format is named; these can be read: {', '.join(known)}")
    return tuple(one for one in FORMATS if one.key in keys)


def _of_brands(data: bytes) -> Format | None:
    """Return the format of an ISO base media file (ISO/IEC 14496-12, section 4.3: ``ftyp``)."""
    length = min(int.from_bytes(data[:4], "big"), 16 + 4 * _MOST_BRANDS, len(data))
    major = data[8:12]
    brands = {data[at : at + 4] for at in range(16, length - 3, 4)}
    if major in _AVIF_BRANDS:
        return AVIF
    if major in _HEVC_BRANDS:
        return HEIC
    if major in _ANY_CODEC:
        return AVIF if brands & _AVIF_BRANDS else HEIC
    return None
