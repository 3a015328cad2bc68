"""Pixels and their embedded ICC profile in, pixels in sRGB out.

What a profile does is found out once and remembered. A profile that is broken, made for other
pixels, or makes no sense is ignored, and one that changes nothing is not applied.
"""

import io
from functools import lru_cache
from typing import Final

import numpy as np
from PIL import Image, ImageCms

# Printers' profiles have up to 3 MB; a camera's or a screen's 0.5 to 10 kB.
MAX_PROFILE_BYTES: Final = 4 * 2**20
REMEMBERED: Final = 8  # profiles; the pictures of one source have one or two
_HEADER: Final = 128  # bytes (ICC.1, section 7.2)
_CLASSES: Final = (b"mntr", b"scnr", b"prtr", b"spac")
_SPACES: Final = {"RGB": b"RGB ", "RGBA": b"RGB ", "L": b"GRAY", "CMYK": b"CMYK"}
_RESULTS: Final = {"RGB": "RGB", "RGBA": "RGBA", "L": "RGB", "CMYK": "RGB"}
_STEPS: Final = 6  # values per channel that are tried; 216 colours of RGB
_UNCHANGED: Final = 2  # of 255, of any of them: rounding, and curves of other makers of sRGB
# White must come out bright and black darker than it, or the profile is nonsense.
_WHITE: Final = 200  # of 255
_CONTRAST: Final = 100  # of 255

# Transforms are used by several threads at once; without its cache of one pixel LittleCMS changes
# nothing of a transform when it is applied.
_FLAGS: Final = ImageCms.Flags.NOCACHE


def to_srgb(image: Image.Image, profile: bytes) -> Image.Image:
    """Return ``image`` (RGB, RGBA, L or CMYK) in sRGB, as its ``profile`` says.

    It is ``image`` itself where there is nothing to do. The result is RGB, or RGBA.
    """
    if len(profile) > MAX_PROFILE_BYTES or image.mode not in _SPACES:
        return image
    if profile[16:20] != _SPACES[image.mode]:
        return image
    transform = _transform(profile, image.mode)
    return image if transform is None else _applied(image, transform)


@lru_cache(REMEMBERED)
def _transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """Return what brings pixels of ``mode`` to sRGB; ``None`` where they shall stay as they are."""
    if len(profile) < _HEADER or profile[36:40] != b"acsp" or profile[12:16] not in _CLASSES:
        return None
    try:
        transform = ImageCms.buildTransform(
            ImageCms.getOpenProfile(io.BytesIO(profile)),
            ImageCms.createProfile("sRGB"),
            mode,
            _RESULTS[mode],
            renderingIntent=ImageCms.Intent.PERCEPTUAL,
            flags=_FLAGS,
        )
        colours = _colours(mode)
        converted = _applied(colours, transform)
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return None
    before = np.asarray(colours.convert("RGB"), int).reshape(-1, 3)
    after = np.asarray(converted.convert("RGB"), int).reshape(-1, 3)
    brightness_N = before.sum(axis=1)
    white, black = after[brightness_N.argmax()], after[brightness_N.argmin()]
    if white.min() < _WHITE or white.mean() - black.mean() < _CONTRAST:
        return None
    if mode != "CMYK" and np.abs(after - before).max() <= _UNCHANGED:
        return None
    return transform


def _applied(image: Image.Image, transform: ImageCms.ImageCmsTransform) -> Image.Image:
    converted = ImageCms.applyTransform(image, transform)
    assert converted is not None  # it is, of what changes an image in place
    return converted


def _colours(mode: str) -> Image.Image:
    """Return a picture of colours from all over ``mode``."""
    if mode == "L":
        return Image.fromarray(np.arange(256, dtype=np.uint8)[np.newaxis])
    channels = len(Image.new(mode, (1, 1)).getbands())
    values = np.linspace(0, 255, _STEPS).astype(np.uint8)
    grid = np.stack(np.meshgrid(*[values] * channels, indexing="ij"), axis=-1)
    flat = np.ascontiguousarray(grid.reshape(1, -1, channels))
    if mode == "RGBA":
        flat[..., 3] = 255
    return Image.frombytes(mode, (flat.shape[1], 1), flat.tobytes())
