"""One picture on its way from bytes of a known format to upright RGB pixels, within its limits.

Sizes are those that the file states; nothing is decoded, nor memory taken for it, before they and
what decoding holds were compared with the limits.
"""

import hashlib
import io
import re
import struct
import threading
from collections.abc import Callable
from functools import partial
from typing import Final, NamedTuple

from PIL import ExifTags, Image, ImageChops, ImageFile, ImageOps, UnidentifiedImageError

from vision.errors import CorruptImageError, TooManyPixelsError, UnsupportedImageError
from vision.formats.avif import coded_size
from vision.formats.decoding_cost import check_chunks, check_scans
from vision.formats.detect import AVIF, HEIC, JPEG, PNG, TIFF, Format
from vision.formats.heic import declared_size, open_heic
from vision.formats.jpeg import Frame, read_frame
from vision.formats.repair import repaired
from vision.formats.tiff import is_white_zero, read_directory, stored_bits, unreadable
from vision.formats.unsupported import conversion_advice
from vision.image.bit_depth import FULL, depth_of
from vision.image.limits import MOST_PIXELS, ImageLimits
from vision.image.memory_cost import peak_bytes
from vision.image.strips import shrink_in_strips
from vision.image.to_rgb import to_rgb

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
BYTES_PER_PIXEL: Final = 8  # of an RGB picture while it is decoded; 4, and a copy of them
SCALES: Final = (1, 2, 4, 8)  # by which the JPEG decoder can shrink
SHRUNK_PIXELS: Final = (
    2**25
)  # larger pictures are made smaller strip by strip, where that is wanted
LARGE_BYTES: Final = 2**28  # while decoded
_ONE_LARGE: Final = threading.Lock()

_NUMBER: Final = re.compile(r"\d+")  # of pixels, in what Pillow says


class Decoding(NamedTuple):
    """How one picture is decoded, at first as it came, and then without its damage."""

    image_format: Format
    limits: ImageLimits
    draft_side: int | None
    before_pixels: Callable[[int], None] | None
    before_repair: Callable[[], None] | None
    managed: bool
    bits: int

    def picture(self, data: bytes) -> Image.Image:
        """Return the picture, repaired where it is damaged and all of its pixels are there.

        Raises:
            UnsupportedImageError, TooManyPixelsError, CorruptImageError: as ``decode_image``.
        """
        try:
            try:
                return self._decode(data)
            except DECODER_ERRORS:
                if self.before_repair is not None:
                    self.before_repair()
                return self._decode_repaired(data)
        except Image.DecompressionBombError as error:  # Pillow's own limit, met while opening
            found = _NUMBER.search(str(error))
            count = found[0] if found else f"more than {MOST_PIXELS}"
            raise TooManyPixelsError(
                f"the image has {count} pixels; at most {self.limits.max_pixels} are allowed"
            ) from error
        except DECODER_ERRORS as error:
            name = self.image_format.name
            raise CorruptImageError(f"the {name} image is truncated or damaged") from error

    def _decode(self, data: bytes) -> Image.Image:
        beside = self._size_beside(data)
        self._check_size(beside, beside, 0)
        frame = self._counted(data)
        with self._opened(data) as image:
            full_size = image.size
            if min(full_size) < 1:
                raise CorruptImageError(f"the image header says {full_size[0]} x {full_size[1]}")
            kept_bytes = 0
            if self.image_format is JPEG:
                kept_bytes = self._draft(image, frame)
            self._check_size(image.size, full_size, kept_bytes)
            by = self._shrinking(image.size)
            pixels = max(_area(image.size), _area(beside))
            held = peak_bytes(image, self.image_format, pixels=pixels, in_strips=by > 1)
            if self.before_pixels is not None:
                coded = _area(full_size) if self.image_format is JPEG else 0
                # As if all of a JPEG were kept: where it is not, reading it takes that long.
                self.before_pixels(held + 2 * len(image.getbands()) * coded)
            elif held + kept_bytes > LARGE_BYTES:
                with _ONE_LARGE:
                    return self._pixels(image, by)
            return self._pixels(image, by)

    def _size_beside(self, data: bytes) -> tuple[int, int]:
        """Return the size of what is decoded beside, or around, the picture that is digest.

        Raises:
            UnsupportedImageError: it is of a kind that cannot be read.
        """
        if self.image_format is HEIC:
            return declared_size(data)
        if self.image_format is AVIF:
            return coded_size(data)
        if self.image_format is TIFF:
            directory = read_directory(data)
            if (kind := unreadable(data, directory)) is not None:
                raise UnsupportedImageError(conversion_advice(kind, self.limits.formats))
            return directory.tile_size
        return 0, 0

    def _counted(self, data: bytes) -> Frame | None:
        """Return what the header of a JPEG says.

        Raises:
            CostlyImageError: a JPEG or PNG has too many parts.
        """
        if self.image_format is PNG:
            check_chunks(data)
        if self.image_format is not JPEG:
            return None
        frame = read_frame(data)
        if frame is not None:
            check_scans(data, frame)
        return frame

    def _opened(self, data: bytes) -> Image.Image:
        """Return the picture, of which only the header is read."""
        if self.image_format is HEIC:
            return open_heic(data)
        try:
            return Image.open(io.BytesIO(data), formats=(self.image_format.pillow_name,))
        except UnidentifiedImageError as error:
            if self.image_format is not TIFF or not read_directory(data).has_size:
                raise
            kind = "a TIFF picture of a kind that is not read"
            raise UnsupportedImageError(conversion_advice(kind, self.limits.formats)) from error

    def _pixels(self, image: Image.Image, by: int) -> Image.Image:
        image.load()
        to_eight = partial(to_rgb, managed=self.managed, bits=self._sample_bits(image))
        if by == 1:
            rgb = to_eight(_upright(image))
        else:
            small = shrink_in_strips(image, by, to_eight)
            _keep_orientation(image, small)
            rgb = _upright(small)
        return ImageChops.invert(rgb) if is_white_zero(image) else rgb

    def _sample_bits(self, image: Image.Image) -> int:
        """Return how many bits count of gray samples that have more than 8."""
        if not image.mode.startswith("I") or self.image_format is HEIC:
            return FULL  # libheif has made 16 of them
        bits = min(self.bits, stored_bits(image))
        if bits == FULL:
            return FULL
        largest = image.getextrema()[1]  # of all strips
        return max(bits, depth_of(int(largest)))  # type: ignore[arg-type] # one band: a number

    def _decode_repaired(self, data: bytes) -> Image.Image:
        versions = repaired(data, self.image_format)
        digest = None
        for version in versions:
            image = self._decode(version)
            found = hashlib.blake2b(image.tobytes()).digest() if len(versions) > 1 else b""
            if digest not in (None, found):
                raise OSError("the pixels depend on bytes that are missing")
            digest = found
        if digest is None:
            raise OSError("nothing can be repaired")
        return image

    def _draft(self, image: Image.Image, frame: Frame | None) -> int:
        """Set the scale at which a JPEG is decoded; return the bytes kept of it whole."""
        width, height = image.size
        if self.draft_side is not None:
            fine = [s for s in SCALES if min(width, height) // s >= self.draft_side]
            small = [s for s in SCALES if not self._is_too_large((-(-width // s), -(-height // s)))]
            scale = max(*fine, min(small, default=1), 1)
            if scale > 1:
                assert isinstance(image, ImageFile.ImageFile)  # it was opened from bytes
                image.draft("RGB", (max(1, width // scale), max(1, height // scale)))
        return frame.coefficient_bytes if frame is not None else 0

    def _shrinking(self, size: tuple[int, int]) -> int:
        """Return how many pixels on a side become one, of a picture that is too large to copy."""
        if self.draft_side is None or size[0] * size[1] <= SHRUNK_PIXELS:
            return 1
        return max(1, min(size) // self.draft_side)

    def _is_too_large(self, size: tuple[int, int]) -> bool:
        return max(size) > self.limits.max_side or size[0] * size[1] > self.limits.max_pixels

    def _check_size(
        self, size: tuple[int, int], full_size: tuple[int, int], kept_bytes: int
    ) -> None:
        """Refuse what costs too much: pixels that are decoded, those that are read, or are kept."""
        limits = self.limits
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


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except DECODER_ERRORS:  # a broken EXIF block says nothing about the pixels
        return image


def _keep_orientation(image: Image.Image, small: Image.Image) -> None:
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation)
    except DECODER_ERRORS:
        return
    if orientation is not None:
        small.getexif()[ExifTags.Base.Orientation] = orientation


def _area(size: tuple[int, int]) -> int:
    return size[0] * size[1]
