"""The first bytes of a file that is not taken in, a sentence that says what it is out."""

import re
from collections.abc import Sequence
from typing import Final

from vision.formats.detect import Format, in_words, sniff_format

# Signatures of pictures that are not read, and what a person calls them.
_PICTURES: Final = (
    (rb"....ftypcrx ", "a raw picture of a camera (CR3)"),
    (rb"FUJIFILMCCD-RAW", "a raw picture of a camera (RAF)"),
    (rb"IIU\0", "a raw picture of a camera (RW2)"),
    (rb"IIR[OS]|MMOR", "a raw picture of a camera (ORF)"),
    (rb"FOVb", "a raw picture of a camera (X3F)"),
    (rb"....ftypjp[2xm] |\0\0\0\x0cjP  |\xff\x4f\xff\x51", "a JPEG 2000 picture"),
    (rb"\xff\x0a|\0\0\0\x0cJXL ", "a JPEG XL picture"),
    (rb"II\xbc[\0\x01]", "a JPEG XR picture"),
    (rb"P[1-7]\s+[#\d]", "a PPM picture"),
    (rb"qoif", "a QOI picture"),
    (rb"v/1\x01", "an OpenEXR picture"),
    (rb"#\?(RADIANCE|RGBE)", "a Radiance HDR picture"),
    (rb"DDS \x7c\0\0\0", "a DirectDraw texture (DDS)"),
    (rb"SIMPLE  =", "a FITS picture"),
    (rb".{128}DICM", "a DICOM picture"),
)
# And of what people send instead.
_OTHERS: Final = (
    (rb"....ftyp(qt  |moov)|\0...(moov|mdat|wide|free)", "a QuickTime video (MOV)"),
    (rb"....ftyp|\x1aE\xdf\xa3|RIFF....AVI |\0\0\x01\xba|FLV\x01", "a video"),
    (rb"RIFF....WAVE|ID3|fLaC|OggS", "a sound"),
    (rb"8BP[SB]", "a Photoshop file (PSD)"),
    (rb"gimp xcf", "a GIMP file (XCF)"),
    (rb"%PDF-", "a PDF document"),
    (rb"%!PS|\xc5\xd0\xd3\xc6", "a PostScript file (EPS)"),
    (rb"\0\0[\x01\x02]\0[^\0]", "a Windows icon (ICO)"),
    (
        rb"(\xef\xbb\xbf)?\s*(<\?xml[^>]*>\s*)?(<!--.*?-->\s*)?(<!DOCTYPE svg[^>]*>\s*)?<svg",
        "an SVG drawing",
    ),
    (
        rb"(?i)(\xef\xbb\xbf)?\s*(<!--.*?-->\s*)?<(!doctype html|html|head|body|script|title)\b",
        "a page of the web (HTML), and not the picture that it shows",
    ),
    (rb"(\xef\xbb\xbf)?\s*<\?xml", "an XML document"),
    (rb"PK\x03\x04.{26}(word|xl|ppt)/", "an Office document"),
    (rb"PK\x03\x04|PK\x05\x06", "a ZIP archive"),
    (rb"\x1f\x8b|7z\xbc\xaf|Rar!|BZh|\xfd7zXZ|\x28\xb5\x2f\xfd", "an archive"),
    (rb"MZ\x90|\x7fELF", "a program"),
    (rb"SQLite format 3", "a database"),
    (rb"version https://git-lfs", "a pointer of Git LFS, and not the file itself"),
    (rb"data:image/", "the text of a data: URI, and not the bytes it stands for"),
    (rb"(\xef\xbb\xbf)?\s*[\[{]\s*[\"\[{\]}\d]", "a JSON text"),
    (rb"\0+\Z", "nothing but zero bytes, as a copy that was cut short leaves it"),
)
_PICTURE_PATTERNS: Final = tuple((re.compile(one, re.DOTALL), name) for one, name in _PICTURES)
_OTHER_PATTERNS: Final = tuple((re.compile(one, re.DOTALL), name) for one, name in _OTHERS)
HEAD_BYTES: Final = 1024  # that are looked at


def unsupported_message(data: bytes, accepted: Sequence[Format]) -> str:
    """Return a sentence for ``data`` that is of none of the formats ``accepted``."""
    found = sniff_format(data)
    if found is not None:
        article = "an" if found.name[0] in "AEIOU" else "a"
        return conversion_advice(
            f"{article} {found.name} picture, which is not accepted here", accepted
        )
    if (name := describe_content(data)) is not None:
        return conversion_advice(name, accepted)
    kind = "text" if _is_text(data[:HEAD_BYTES]) else "of no kind that is known here"
    return f"this is {kind}, and not a {in_words(accepted)} picture"


def describe_content(head: bytes) -> str | None:
    """Return what a person calls a file that begins with ``head``, and is no format of ours.

    >>> describe_content(b"%PDF-1.7")
    'a PDF document'
    """
    found = (
        name
        for pattern, name in (*_PICTURE_PATTERNS, *_OTHER_PATTERNS)
        if pattern.match(head[:HEAD_BYTES])
    )
    return next(found, None)


def is_unsupported_image(head: bytes) -> bool:
    """Say whether it is a picture, though one that is not read."""
    return any(pattern.match(head[:HEAD_BYTES]) for pattern, _ in _PICTURE_PATTERNS)


def conversion_advice(name: str, accepted: Sequence[Format]) -> str:
    """Return a sentence for a file that is ``name``, which nothing here reads."""
    return f"this is {name}; {in_words(accepted)} is expected: convert it first"


def _is_text(head: bytes) -> bool:
    try:
        text = head.decode("utf-8", "strict" if len(head) < HEAD_BYTES else "ignore")
    except UnicodeDecodeError:
        return False
    return all(letter.isprintable() or letter.isspace() for letter in text)
