"""A decoded picture of any mode in, an RGB picture on white out.

Shape suffix: H x W pixels.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vision.image.bit_depth import eight_bits
from vision.image.icc_profile import to_srgb

ALPHA_MODES: Final = ("RGBA", "LA", "PA", "La", "RGBa")
PROFILE: Final = "icc_profile"  # in the info of a picture whose colours were left as they are
_GRAY_MODES: Final = ("L", "LA", "La", "1")


def to_rgb(image: Image.Image, *, managed: bool, bits: int) -> Image.Image:
    """Return ``image`` as RGB; of what else the file said only an unused colour profile is kept.

    Args:
        image: decoded, of any mode that the decoders of our formats give.
        managed: convert the colours to sRGB as the embedded profile says.
        bits: of 16-bit gray samples, how many are used, 8 to 16.
    """
    profile = image.info.get(PROFILE)
    if not isinstance(profile, bytes):
        profile = None
    if image.mode.startswith("I"):
        image = Image.fromarray(eight_bits(_samples(image), bits))
    if image.mode == "La":  # Pillow knows no way from it to RGBA
        image = image.convert("LA")
    if has_alpha(image):
        rgb = _on_white(image, profile if managed else None)
    elif managed and profile is not None:
        rgb = to_srgb(image.convert("RGB") if image.mode == "P" else image, profile)
    else:
        rgb = image
    rgb = rgb if rgb.mode == "RGB" else rgb.convert("RGB")
    rgb.info = {} if managed or profile is None else {PROFILE: profile}
    return rgb


def has_alpha(image: Image.Image) -> bool:
    """Say whether ``image`` has transparent parts."""
    return image.mode in ALPHA_MODES or "transparency" in image.info


def _samples(image: Image.Image) -> NDArray[np.uint16]:
    """Return 16-bit samples; Pillow opens some 16-bit grayscale PNGs as 32-bit integers."""
    values_HW = np.asarray(image)
    if image.mode == "I":
        values_HW = np.clip(values_HW, 0, 65535)
    return values_HW.astype(np.uint16)


def _on_white(image: Image.Image, profile: bytes | None) -> Image.Image:
    is_rgba = image.mode == "RGBA" and "transparency" not in image.info
    layer = image if is_rgba else image.convert("RGBA")  # a copy costs 0.2 s at 25 megapixels
    if profile is not None and image.mode in _GRAY_MODES:
        coloured = to_srgb(layer.getchannel("R"), profile).convert("RGBA")
        coloured.putalpha(layer.getchannel("A"))
        layer = coloured
    elif profile is not None:
        layer = to_srgb(layer, profile)
    white = Image.new("RGBA", layer.size, (255, 255, 255, 255))
    white.alpha_composite(layer)
    return white.convert("RGB")
