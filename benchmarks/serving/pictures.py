"""Pictures for the serving benchmark, the same ones in every run."""

import io

import numpy as np
from PIL import Image

PHOTO_BYTES = 12_000
QUALITIES = range(95, 20, -1)


def photo(number: int, *, width: int = 300, height: int = 400) -> bytes:
    """Return a JPEG of about 12 kB: soft shapes and shadows with a weave on them."""
    rng = np.random.default_rng(number)
    coarse = rng.integers(0, 256, (8, 6, 3), np.uint8)
    soft_HWC = np.asarray(
        Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC), np.float32
    )
    rows_H1, columns_1W = np.arange(height)[:, None], np.arange(width)[None]
    period = rng.uniform(3, 9)
    weave_HW = np.sin(2 * np.pi * rows_H1 / period) * np.sin(2 * np.pi * columns_1W / period)
    grain_HW = rng.normal(0, 4, (height, width))
    picture = soft_HWC + (10 * weave_HW + grain_HW)[..., None]
    image = Image.fromarray(picture.clip(0, 255).astype(np.uint8))
    return next(
        data
        for quality in QUALITIES
        if len(data := _encoded(image, "JPEG", quality)) <= PHOTO_BYTES
    )


def small(number: int) -> bytes:
    """Return a grayscale PNG of 28 x 28 pixels, as large as Fashion-MNIST's (some 500 bytes)."""
    rng = np.random.default_rng(number)
    coarse = rng.integers(0, 256, (7, 7), np.uint8)
    return _encoded(Image.fromarray(coarse).resize((28, 28)), "PNG")


def _encoded(image: Image.Image, image_format: str, quality: int = 75) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, image_format, quality=quality)
    return buffer.getvalue()
