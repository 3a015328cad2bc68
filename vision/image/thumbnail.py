"""A small copy of a picture, to show beside a search hit. RGB picture in, encoded bytes out."""

import io
from dataclasses import dataclass
from typing import Final

from PIL import Image

from vision.image.decode import decode_image
from vision.image.icc_profile import to_srgb
from vision.image.limits import ImageLimits
from vision.image.preprocessing import Preprocessing
from vision.image.to_rgb import PROFILE

MAX_SIDE: Final = 256  # pixels, where nothing else is wanted
LEAST_SIDE: Final = 64  # that may be wanted
MOST_SIDE: Final = 2048
LOSSLESS_SIDE: Final = 64  # up to here a PNG is as small as a JPEG, and shows every pixel
PNG_LEVEL: Final = 1  # of 9; at 28 x 28 the levels differ by a few hundred bytes
JPEG_QUALITY: Final = 85  # of 95
# 0.9 ms for a photo of 400 x 533 where bicubic takes 1.5; they differ by less than the JPEG does.
RESAMPLING: Final = Image.Resampling.HAMMING


@dataclass(frozen=True, slots=True)
class Thumbnail:
    """An encoded small picture."""

    media_type: str  # "image/png" or "image/jpeg"
    data: bytes


def thumbnail_of(
    data: bytes,
    image: Image.Image,
    preprocessing: Preprocessing,
    *,
    limits: ImageLimits,
    max_side: int,
) -> Thumbnail:
    """Return the thumbnail of the file ``data``, which ``preprocessing`` decoded to ``image``.

    Where it decoded a large JPEG to fewer pixels than the thumbnail has, the file is decoded again:
    what the network sees does not depend on the size of thumbnails.

    Raises:
        ImageError: as ``vision.image.decode.decode_image``, of files that cost more at that size.
    """
    if preprocessing.least_side < max_side and max(image.size) < max_side:
        image = decode_image(
            data, limits=limits, draft_side=max_side, managed=True, bits=preprocessing.bits
        )
    return make_thumbnail(image, max_side=max_side)


def make_thumbnail(image: Image.Image, *, max_side: int = MAX_SIDE) -> Thumbnail:
    """Return ``image`` (RGB) with no side above ``max_side`` pixels; small ones stay lossless.

    The picture is encoded afresh, so nothing of the uploaded file but its pixels is kept. Its
    colours are those of the file in sRGB, also where the network saw them as they were.
    """
    longest = max(image.size)
    if longest > max_side:
        width, height = (max(1, round(side * max_side / longest)) for side in image.size)
        image = image.resize((width, height), RESAMPLING)
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
