"""Untrusted bytes in, an upright RGB picture out, or one of our errors.

The order of the checks is the defence: bytes are counted, then the format is read from the content
(never from a file name or a client's header), then the header's width and height are checked, and
only then is a single pixel decoded.
"""

import hashlib
import io
import re
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, NamedTuple

from PIL import Image, ImageOps, PngImagePlugin

from vision.errors import (
    CorruptImageError,
    EmptyImageError,
    TooManyBytesError,
    TooManyPixelsError,
    UnsupportedImageError,
)
from vision.formats import refusal_of, sniff_format
from vision.jpeg import read_frame
from vision.mending import mended
from vision.rgb import has_alpha, to_rgb

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
    """What one encoded image may cost.

    Pixels and sides are those that are decoded: a JPEG that is decoded at an eighth of its size may
    have more of them, ``max_coded_pixels``. What its decoder keeps of all of them counts as well.
    """

    max_bytes: int = 20 * 2**20  # bytes as received
    max_pixels: int = 25_000_000  # decoded; a hostile WebP of this size peaks at 0.7 GB
    max_side: int = 16_384  # pixels

    def __post_init__(self) -> None:
        for name in ("max_bytes", "max_pixels", "max_side"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")

    @property
    def max_coded_pixels(self) -> int:
        """Pixels in the file, however few of them are decoded: they all cost time."""
        return min(CODED_PER_PIXEL * self.max_pixels, MOST_PIXELS)


# A plain JPEG is read 8 times as quickly at an eighth of its size as it would be whole.
CODED_PER_PIXEL: Final = 8
MOST_PIXELS: Final = 2**29  # Pillow's own limit, a second wall behind ours
SCALES: Final = (1, 2, 4, 8)  # by which the JPEG decoder can shrink
LARGE_BYTES: Final = 2**28  # while decoded
_ONE_LARGE: Final = threading.Lock()
BYTES_PER_PIXEL: Final = 8  # of an RGB picture while it is decoded; 4, and a copy of them

_NUMBER: Final = re.compile(r"\d+")  # of pixels, in what Pillow says

DEFAULT_LIMITS: Final = ImageLimits()
# For one's own files, which nobody made to do harm: a phone's photo of 200 megapixels, a scanned
# sheet, a long panorama. The largest may take 5 GB to decode, so large ones are decoded in turn.
OWN_FILE_LIMITS: Final = ImageLimits(max_bytes=2**30, max_pixels=250_000_000, max_side=100_000)


def decode_image(
    data: bytes,
    *,
    limits: ImageLimits = DEFAULT_LIMITS,
    draft_side: int | None = None,
    before_pixels: Callable[[int], None] | None = None,
    managed: bool = True,
    bits: int = 16,
) -> Image.Image:
    """Decode ``data`` to an upright RGB image.

    Alpha is composited on white, animations give their first frame, EXIF orientation is applied. A
    broken EXIF block or colour profile is ignored, as is metadata that is too large or has a wrong
    checksum. An end that is missing is no harm where the pixels are there; of a JPEG 1 % of them,
    the last, may be gray.

    Args:
        data: JPEG, PNG, WebP, GIF or BMP; the content decides, not a name.
        limits: bytes and pixels allowed; pixels are read from the header, before decoding.
        draft_side: let the JPEG decoder shrink by 2, 4 or 8 while both sides stay at least this
            many pixels (ISO/IEC 10918-1 scaled inverse DCT; pixels change slightly, so indexing and
            querying must pass the same value), and further where the limits ask for it. ``None``
            decodes at full size.
        before_pixels: called, before the first pixel is decoded, with the most bytes that decoding
            will hold at once, an estimate from the header; it may wait until there is room. Without
            it pictures of more than 256 MiB wait for one another.
        managed: convert colours to sRGB by the embedded profile; else it stays in ``info``.
        bits: that count of gray samples of 16 bits, 8 to 16.

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
        raise too_many_bytes(len(data), limits)
    image_format = sniff_format(data)
    if image_format is None:
        raise UnsupportedImageError(refusal_of(data))
    tell = None if before_pixels is None else _once(before_pixels)
    decoding = _Decoding(image_format, limits, draft_side, tell, managed, bits)
    try:
        try:
            return decoding.decode(data)
        except DECODER_ERRORS:
            return decoding.decode_mended(data)
    except Image.DecompressionBombError as error:  # Pillow's own limit, met while opening
        found = _NUMBER.search(str(error))
        count = found[0] if found else f"more than {MOST_PIXELS}"
        raise TooManyPixelsError(
            f"the image has {count} pixels; at most {limits.max_pixels} are allowed"
        ) from error
    except DECODER_ERRORS as error:
        raise CorruptImageError(f"the {image_format} image is truncated or damaged") from error


def too_many_bytes(count: int, limits: ImageLimits) -> TooManyBytesError:
    """Return the refusal of an image of ``count`` bytes."""
    return TooManyBytesError(f"the image has {count} bytes; at most {limits.max_bytes} are allowed")


def harden_pillow() -> None:
    """Set Pillow's process-wide limits; each entry point (server, command line) calls it once.

    A compressed PNG text chunk may inflate to 1 MiB, all of them to 4 MiB. Pillow's own pixel limit
    stays as a second wall behind ours: it warns at this number and refuses twice as many.
    Large pictures are allocated in blocks that glibc always gives back to the system when they are
    freed (its threshold adapts up to 32 MiB): with blocks of 16 MiB threads kept up to 0.7 GB.
    """
    Image.core.set_block_size(64 * 2**20)  # type: ignore[attr-defined]
    PngImagePlugin.MAX_TEXT_CHUNK = 2**20
    PngImagePlugin.MAX_TEXT_MEMORY = 4 * 2**20
    Image.MAX_IMAGE_PIXELS = MOST_PIXELS


def _once(tell: Callable[[int], None]) -> Callable[[int], None]:
    """Return ``tell`` for the first call alone: a picture may be decoded more than once."""
    told = False

    def tell_once(size: int) -> None:
        nonlocal told
        if not told:
            told = True
            tell(size)

    return tell_once


class _Decoding(NamedTuple):
    """How one picture is decoded, at first as it came, and then without its damage."""

    image_format: str
    limits: ImageLimits
    draft_side: int | None
    before_pixels: Callable[[int], None] | None
    managed: bool
    bits: int

    def decode(self, data: bytes) -> Image.Image:
        with Image.open(io.BytesIO(data), formats=(self.image_format,)) as image:
            full_size = image.size
            if min(full_size) < 1:
                raise CorruptImageError(f"the image header says {full_size[0]} x {full_size[1]}")
            kept_bytes = 0
            if self.image_format == "JPEG":
                kept_bytes = _draft(image, self.draft_side, self.limits, data)
            _check_size(image.size, full_size, kept_bytes, self.limits)
            if self.before_pixels is not None:
                coded = full_size[0] * full_size[1] if self.image_format == "JPEG" else 0
                # As if all of a JPEG were kept: where it is not, reading it takes that long.
                self.before_pixels(_decode_bytes(image) + 2 * len(image.getbands()) * coded)
            elif _decode_bytes(image) + kept_bytes > LARGE_BYTES:
                with _ONE_LARGE:
                    return self._load(image)
            return self._load(image)

    def _load(self, image: Image.Image) -> Image.Image:
        image.load()
        return to_rgb(_upright(image), managed=self.managed, bits=self.bits)

    def decode_mended(self, data: bytes) -> Image.Image:
        versions = mended(data, self.image_format)
        shown = None
        for version in versions:
            image = self.decode(version)
            pixels = hashlib.blake2b(image.tobytes()).digest() if len(versions) > 1 else b""
            if shown not in (None, pixels):
                raise OSError("the pixels depend on bytes that are missing")
            shown = pixels
        if shown is None:
            raise OSError("nothing can be mended")
        return image


def _draft(image: Image.Image, side: int | None, limits: ImageLimits, data: bytes) -> int:
    """Set the scale at which a JPEG is decoded; return the bytes kept of it whole."""
    width, height = image.size
    frame = read_frame(data)
    if side is not None:
        fine = [s for s in SCALES if min(width, height) // s >= side]
        small = [s for s in SCALES if not _is_too_large((-(-width // s), -(-height // s)), limits)]
        scale = max(*fine, min(small, default=1), 1)
        if scale > 1:
            image.draft("RGB", (max(1, width // scale), max(1, height // scale)))
    return frame.coefficient_bytes if frame is not None else 0


def _is_too_large(size: tuple[int, int], limits: ImageLimits) -> bool:
    return max(size) > limits.max_side or size[0] * size[1] > limits.max_pixels


def _check_size(
    size: tuple[int, int], full_size: tuple[int, int], kept_bytes: int, limits: ImageLimits
) -> None:
    """Refuse what costs too much: the pixels that are decoded, those that are read, or are kept."""
    full_pixels = full_size[0] * full_size[1]
    has = f"the image has {full_size[0]} x {full_size[1]} pixels"
    if max(size) > limits.max_side:
        raise TooManyPixelsError(f"{has}; a side may have at most {limits.max_side}")
    if size[0] * size[1] > limits.max_pixels:
        raise TooManyPixelsError(f"{has}; at most {limits.max_pixels} are allowed")
    if full_pixels > limits.max_coded_pixels:
        raise TooManyPixelsError(f"{has}; at most {limits.max_coded_pixels} are allowed")
    if kept_bytes > BYTES_PER_PIXEL * limits.max_pixels:
        most = BYTES_PER_PIXEL * limits.max_pixels * full_pixels // kept_bytes
        raise TooManyPixelsError(f"{has}; at most {most} are allowed in a progressive JPEG")


def _decode_bytes(image: Image.Image) -> int:
    """Return an upper bound, measured with one-coloured images of 25 million pixels.

    WebP has two canvases of its own.
    """
    if has_alpha(image):
        per_pixel = 20
    elif image.mode in ("RGB", "RGBX", "P", "L", "1"):
        per_pixel = BYTES_PER_PIXEL
    else:  # CMYK, and 16 bits a sample
        per_pixel = 12
    if image.format == "WEBP":
        per_pixel += 8
    return per_pixel * image.width * image.height


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except DECODER_ERRORS:  # a broken EXIF block says nothing about the pixels
        return image
