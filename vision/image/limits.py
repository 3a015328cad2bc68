"""What one encoded image may be, and may cost: bytes, pixels, sides and formats."""

from dataclasses import dataclass
from typing import Final

from vision.errors import TooManyBytesError
from vision.formats.detect import FORMATS, Format

MOST_PIXELS: Final = 2**29  # Pillow's own limit, a second wall behind ours
# A plain JPEG is read 8 times as quickly at an eighth of its size as it would be whole.
CODED_PER_PIXEL: Final = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageLimits:
    """What one encoded image may be, and may cost.

    Pixels and sides are those that are decoded: a JPEG that is decoded at an eighth of its size may
    have more of them, ``max_coded_pixels``. What its decoder keeps of all of them counts as well.
    """

    max_bytes: int = 20 * 2**20  # bytes as received
    max_pixels: int = 25_000_000  # decoded; a hostile WebP of this size peaks at 0.7 GB
    max_side: int = 16_384  # pixels
    formats: tuple[Format, ...] = FORMATS  # that are taken

    def __post_init__(self) -> None:
        for name in ("max_bytes", "max_pixels", "max_side"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")

    @property
    def max_coded_pixels(self) -> int:
        """Pixels in the file, however few of them are decoded: they all cost time."""
        return min(CODED_PER_PIXEL * self.max_pixels, MOST_PIXELS)


DEFAULT_LIMITS: Final = ImageLimits()
# For one's own files, which nobody made to do harm: a phone's photo of 200 megapixels, a scanned
# sheet, a long panorama. Large ones are decoded in turn, and what a pixel takes is bounded: see
# ``decode_image``.
OWN_FILE_LIMITS: Final = ImageLimits(max_bytes=2**30, max_pixels=250_000_000, max_side=100_000)


def too_many_bytes(count: int, limits: ImageLimits) -> TooManyBytesError:
    """Return the refusal of an image of ``count`` bytes."""
    return TooManyBytesError(f"the image has {count} bytes; at most {limits.max_bytes} are allowed")
