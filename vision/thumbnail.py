"""A small copy of a picture, to show beside a search hit. RGB picture in, encoded bytes out."""

import io
from dataclasses import dataclass
from typing import Final

from PIL import Image

from vision.colour import to_srgb
from vision.rgb import PROFILE

MAX_SIDE: Final = 256  # pixels
LOSSLESS_SIDE: Final = 64  # up to here a PNG is as small as a JPEG, and shows every pixel
PNG_LEVEL: Final = 1  # of 9; at 28 x 28 the levels differ by a few hundred bytes
JPEG_QUALITY: Final = 85  # of 95


@dataclass(frozen=True, slots=True)
class Thumbnail:
    """An encoded small picture."""

    media_type: str  # "image/png" or "image/jpeg"
    data: bytes


def make_thumbnail(image: Image.Image) -> Thumbnail:
    """Return ``image`` (RGB) with its longest side at most 256 pixels; small ones stay lossless.

    The picture is encoded afresh, so nothing of the uploaded file but its pixels is kept. Its
    colours are those of the file in sRGB, also where the network saw them as they were.
    """
    longest = max(image.size)
    if longest > MAX_SIDE:
        image = image.copy()
        image.thumbnail((MAX_SIDE, MAX_SIDE), Image.Resampling.BICUBIC)
    if PROFILE in image.info:
        image = to_srgb(image, image.info[PROFILE])
    if longest <= LOSSLESS_SIDE:
        return Thumbnail("image/png", _encoded(image, "PNG", compress_level=PNG_LEVEL))
    return Thumbnail("image/jpeg", _encoded(image, "JPEG", quality=JPEG_QUALITY))


def _encoded(image: Image.Image, image_format: str, **settings: int) -> bytes:
    bare = Image.new("RGB", image.size)  # drops ICC profile, EXIF and text blocks
    bare.paste(image)
    buffer = io.BytesIO()
    bare.save(buffer, image_format, **settings)
    return buffer.getvalue()
