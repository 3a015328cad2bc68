"""Untrusted bytes in, an upright RGB picture out, or one of our errors.

The order of the checks is the defence: bytes are counted, then the format is read from the content
(never from a file name or a client's header), then the header's width and height are checked, and
only then is a single pixel decoded.
"""

import io
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
from PIL import Image, ImageOps, PngImagePlugin

from vision.errors import (
    CorruptImageError,
    EmptyImageError,
    TooManyBytesError,
    TooManyPixelsError,
    UnsupportedImageError,
)

_ALPHA_MODES: Final = ("RGBA", "LA", "PA", "La", "RGBa")
ACCEPTED: Final = "JPEG, PNG, WebP, GIF or BMP"

# What Pillow's decoders raise on damaged input, found with thousands of mutated files. It has no
# common base class for "this file is broken"; MemoryError is a header that lies about its sizes.
DECODER_ERRORS: Final = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    EOFError,
    struct.error,
    ArithmeticError,
    AttributeError,
    NotImplementedError,
    RuntimeError,
    AssertionError,
    MemoryError,
    Image.DecompressionBombWarning,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageLimits:
    """What one encoded image may cost."""

    max_bytes: int = 20 * 2**20  # bytes as received
    max_pixels: int = 25_000_000  # decoded; a hostile WebP of this size peaks at 0.7 GB
    max_side: int = 16_384  # pixels

    def __post_init__(self) -> None:
        for name in ("max_bytes", "max_pixels", "max_side"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")


DEFAULT_LIMITS: Final = ImageLimits()


def decode_image(
    data: bytes,
    *,
    limits: ImageLimits = DEFAULT_LIMITS,
    draft_side: int | None = None,
    before_pixels: Callable[[int], None] | None = None,
) -> Image.Image:
    """Decode ``data`` to an upright RGB image.

    Alpha is composited on white, 16-bit samples keep their upper byte, animations give their first
    frame, EXIF orientation is applied, a broken EXIF block is ignored.

    Args:
        data: JPEG, PNG, WebP, GIF or BMP; the content decides, not a name.
        limits: bytes and pixels allowed; pixels are read from the header, before decoding.
        draft_side: let the JPEG decoder shrink by 2, 4 or 8 while both sides stay at least this
            many pixels (ISO/IEC 10918-1 scaled inverse DCT; pixels change slightly, so indexing and
            querying must pass the same value). ``None`` decodes at full size.
        before_pixels: called, before the first pixel is decoded, with the most bytes that decoding
            will hold at once, an estimate from the header; it may wait until there is room.

    Raises:
        EmptyImageError: no bytes.
        TooManyBytesError: more than ``limits.max_bytes`` bytes.
        UnsupportedImageError: not one of the five formats.
        TooManyPixelsError: the header promises more than the limits allow.
        CorruptImageError: truncated or damaged.
    """
    if not data:
        raise EmptyImageError("the image is empty: 0 bytes")
    if len(data) > limits.max_bytes:
        raise TooManyBytesError(
            f"the image has {len(data)} bytes; at most {limits.max_bytes} are allowed"
        )
    image_format = sniff_format(data)
    if image_format is None:
        raise UnsupportedImageError(f"the content is not a {ACCEPTED} image")
    try:
        with Image.open(io.BytesIO(data), formats=(image_format,)) as image:
            _check_size(image.size, limits)
            full_pixels = image.width * image.height
            if draft_side is not None and image_format == "JPEG":
                image.draft("RGB", (draft_side, draft_side))
            if before_pixels is not None:
                before_pixels(_decode_bytes(image, full_pixels))
            image.load()
            return _to_rgb(_upright(image))
    except Image.DecompressionBombError as error:  # Pillow's own limit, met while opening
        raise TooManyPixelsError(
            f"the image has more than the {limits.max_pixels} pixels allowed"
        ) from error
    except DECODER_ERRORS as error:
        raise CorruptImageError(f"the {image_format} image is truncated or damaged") from error


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


def harden_pillow() -> None:
    """Set Pillow's process-wide limits; each entry point (server, command line) calls it once.

    A compressed PNG text chunk may inflate to 1 MiB, all of them to 4 MiB. Pillow's own pixel limit
    stays as a second wall behind ours; its warning at half the limit is silenced by raising it.
    Large pictures are allocated in blocks that glibc always gives back to the system when they are
    freed (its threshold adapts up to 32 MiB): with blocks of 16 MiB threads kept up to 0.7 GB.
    """
    Image.core.set_block_size(64 * 2**20)  # type: ignore[attr-defined]
    PngImagePlugin.MAX_TEXT_CHUNK = 2**20
    PngImagePlugin.MAX_TEXT_MEMORY = 4 * 2**20
    Image.MAX_IMAGE_PIXELS = 2**28


def _check_size(size: tuple[int, int], limits: ImageLimits) -> None:
    width, height = size
    if width < 1 or height < 1:
        raise CorruptImageError(f"the image header says {width} x {height} pixels")
    if max(size) > limits.max_side:
        raise TooManyPixelsError(
            f"the image has {width} x {height} pixels; a side may have at most {limits.max_side}"
        )
    if width * height > limits.max_pixels:
        raise TooManyPixelsError(
            f"the image has {width} x {height} pixels; at most {limits.max_pixels} are allowed"
        )


def _decode_bytes(image: Image.Image, full_pixels: int) -> int:
    """Return an upper bound, measured with one-coloured images of 25 million pixels.

    ``image`` may be about to be decoded at a smaller size than ``full_pixels``: a progressive JPEG
    keeps the coefficients of all of them, 2 bytes a channel. WebP has two canvases of its own.
    """
    if image.mode in _ALPHA_MODES or "transparency" in image.info:
        per_pixel = 20
    elif image.mode in ("RGB", "RGBX", "P", "L", "1"):
        per_pixel = 8
    else:  # CMYK, and 16 bits a sample
        per_pixel = 12
    if image.format == "WEBP":
        per_pixel += 8
    coefficients = 2 * len(image.getbands()) * full_pixels if image.format == "JPEG" else 0
    return per_pixel * image.width * image.height + coefficients


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except DECODER_ERRORS:  # a broken EXIF block says nothing about the pixels
        return image


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode.startswith("I;16"):  # convert("RGB") would clip 99.6 % of the values to white
        return _gray_to_rgb(np.asarray(image).astype(np.uint16) >> 8)
    if image.mode == "I":  # Pillow opens some 16-bit grayscale PNGs as 32-bit integers
        return _gray_to_rgb(np.clip(np.asarray(image), 0, 65535) >> 8)
    if image.mode in _ALPHA_MODES or "transparency" in image.info:
        is_rgba = image.mode == "RGBA" and "transparency" not in image.info
        layer = image if is_rgba else image.convert("RGBA")  # a copy costs 0.2 s at 25 megapixels
        white = Image.new("RGBA", layer.size, (255, 255, 255, 255))
        white.alpha_composite(layer)
        return white.convert("RGB")
    return image.convert("RGB")


def _gray_to_rgb(values_HW: np.ndarray) -> Image.Image:
    return Image.fromarray(values_HW.astype(np.uint8), "L").convert("RGB")
