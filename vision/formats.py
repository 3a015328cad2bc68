"""The first bytes of a file in, the name of its format out; names and types that came along lie."""

import re
from typing import Final

ACCEPTED: Final = "JPEG, PNG, WebP, GIF or BMP"

# Signatures of what people send instead, and what a person calls it.
_OTHERS: Final = (
    (rb"(II\*\0|II\+\0|MM\0\*|MM\0\+)", "a TIFF or camera raw picture"),
    (rb"....ftyp(heic|heix|heim|heis|hevc|hevx|heif|mif1|msf1)", "a HEIC photo"),
    (rb"....ftyp(avif|avis)", "an AVIF picture"),
    (rb"....ftypcrx |FUJIFILMCCD-RAW|IIU\0|IIRO", "a camera raw picture"),
    (rb"....ftypjp2 |\0\0\0\x0cjP  |\xff\x4f\xff\x51", "a JPEG 2000 picture"),
    (rb"\xff\x0a|\0\0\0\x0cJXL ", "a JPEG XL picture"),
    (rb"....ftyp|\x1aE\xdf\xa3|RIFF....AVI ", "a video"),
    (rb"8BPS", "a Photoshop file"),
    (rb"%PDF-", "a PDF document"),
    (rb"%!PS|\xc5\xd0\xd3\xc6", "a PostScript file"),
    (rb"\0\0[\1\2]\0[^\0]", "a Windows icon"),
    (rb"P[1-7]\s", "a PPM picture"),
    (
        rb"(\xef\xbb\xbf)?\s*(<\?xml[^>]*>\s*)?(<!--.*?-->\s*)?(<!DOCTYPE svg[^>]*>\s*)?<svg",
        "an SVG drawing",
    ),
    (rb"\x1f\x8b|PK\x03\x04|7z\xbc\xaf|Rar!", "an archive"),
    (rb"version https://git-lfs", "a pointer of Git LFS, and not the file itself"),
)
_PATTERNS: Final = tuple((re.compile(pattern, re.DOTALL), name) for pattern, name in _OTHERS)
_HEAD: Final = 1024  # bytes looked at


def sniff_format(data: bytes) -> str | None:
    """Return Pillow's name of the format whose signature opens ``data``, or ``None``."""
    if data[:3] == b"\xff\xd8\xff":
        return "JPEG"
    if data[:8] == b"\x89PNG\r\n\x1a\n":
        return "PNG"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    if data[:6] in (b"GIF87a", b"GIF89a"):
        return "GIF"
    if data[:2] == b"BM":
        return "BMP"
    return None


def refusal_of(data: bytes) -> str:
    """Return a sentence for ``data`` that is of none of the accepted formats."""
    head = data[:_HEAD]
    for pattern, name in _PATTERNS:
        if pattern.match(head):
            return f"the content is {name}; {ACCEPTED} is wanted: convert it first"
    return f"the content is not a {ACCEPTED} image"
