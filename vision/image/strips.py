"""A large decoded picture in, a smaller one in RGB out, strip by strip: no copy is large."""

from collections.abc import Callable
from typing import Final

from PIL import Image

STRIP_PIXELS: Final = 2**22


def shrink_in_strips(
    image: Image.Image, by: int, to_rgb: Callable[[Image.Image], Image.Image]
) -> Image.Image:
    """Return ``image`` in RGB, each pixel the mean of ``by`` x ``by``, fewer at the far edges.

    Alpha and colours are dealt with before pixels are mixed, as they would be at full size.
    """
    width, height = image.size
    rows = by * max(1, STRIP_PIXELS // (width * by))
    result = Image.new("RGB", (-(-width // by), -(-height // by)))
    for top in range(0, height, rows):
        strip = to_rgb(image.crop((0, top, width, min(height, top + rows))))
        result.paste(strip.reduce(by), (0, top // by))
        result.info = strip.info
    return result
