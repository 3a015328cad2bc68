"""What decoding one picture holds in memory at once, from what its header says, before it does.

Upper bounds, measured with one-coloured pictures of 25 million pixels and with drawn ones.
"""

from typing import Final

from PIL import Image

from vision.formats.detect import AVIF, HEIC, TIFF, WEBP, Format
from vision.formats.tiff import coded_bytes
from vision.image.to_rgb import has_alpha

# Bytes per pixel beside what Pillow keeps: canvases, planes of luminance and colour, their copies.
# Of HEIC and AVIF for samples of more than 8 bits and without subsampling, which is the most.
_BESIDE: Final = {WEBP: 8, AVIF: 12, HEIC: 12}
_KEPT: Final = 4  # by Pillow, of every mode but gray
_ALPHA: Final = 16  # layers on white
_COPIES: Final = 4  # turned upright, colours converted
_DEEP: Final = 8  # CMYK, and 16 bits a sample
PLAIN_MODES: Final = ("RGB", "RGBX", "P", "L", "1", "YCbCr")
STRIP_BYTES: Final = 2**26  # what working on a strip of a large picture takes


def peak_bytes(image: Image.Image, image_format: Format, *, pixels: int, in_strips: bool) -> int:
    """Return the most bytes that decoding ``image`` will hold at once.

    Args:
        image: opened; nothing of it is decoded.
        image_format: that it is of.
        pixels: that are decoded.
        in_strips: it is worked on strip by strip, once decoded.
    """
    beside = coded_bytes(image) if image_format is TIFF else _BESIDE.get(image_format, 0)
    if in_strips:
        # A TIFF is turned, and a WebP copied from its canvas, before it can be cut into strips.
        copied = _KEPT if image_format in (TIFF, WEBP) else 0
        return (_KEPT + copied + beside) * pixels + STRIP_BYTES
    if has_alpha(image):
        own = _KEPT + _ALPHA
    elif image.mode in PLAIN_MODES:
        own = _KEPT + _COPIES
    else:
        own = _KEPT + _DEEP
    return (own + beside) * pixels
