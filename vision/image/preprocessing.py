"""One frozen description of how a picture becomes the network's input, used alike everywhere.

Training, indexing and serving all go through ``Preprocessing.pixels``; the description is saved
with the model and is part of its fingerprint. Only numpy and Pillow are needed, so that decoding
can run on many threads and in servers without torch.

Shape suffixes: C channels, H x W pixels, B images.
"""

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal, Self, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vision.errors import CropError
from vision.image.bit_depth import FULL, LEAST
from vision.image.decode import decode_image
from vision.image.limits import DEFAULT_LIMITS, ImageLimits

# Pillow is asked to keep at least this many source pixels per output pixel when it shrinks in two
# steps; at 3 its documentation calls the result indistinguishable from one fair resampling.
REDUCING_GAP = 3.0
# The JPEG decoder may shrink as long as it leaves twice the pixels needed: measured mean difference
# 0.57 of 255 to a full decode, at 2.5 times the speed.
DRAFT_FACTOR = 2
DRAFT_MIN_SIDE = 256  # never below what a thumbnail needs

# Of a side. Thinner crops than a pixel hold one, but numbers next to nothing are mistakes.
MIN_CROP = 2**-32

Fit = Literal["crop", "pad", "squash"]
# How files become pixels. 1: colour profiles are ignored, of 16-bit gray the upper byte counts, as
# up to version 0.4.0. 2: colours are converted to sRGB, and of 16-bit gray so many bits count.
Decoding = Literal[1, 2]
FIRST_DECODING: Final = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class CropBox:
    """The part of an image to look at, in fractions of its sides, origin at the top left."""

    top: float
    left: float
    bottom: float
    right: float

    def __post_init__(self) -> None:
        inside = 0 <= self.top < self.bottom <= 1 and 0 <= self.left < self.right <= 1
        if not inside:
            raise CropError(
                f"a crop needs 0 <= top < bottom <= 1 and 0 <= left < right <= 1, got {self._shown}"
            )
        if min(self.bottom - self.top, self.right - self.left) < MIN_CROP:
            raise CropError(
                f"a crop needs at least {MIN_CROP:.1e} of the height and the width, got "
                f"{self._shown}"
            )

    @property
    def _shown(self) -> str:
        return f"top={self.top}, left={self.left}, bottom={self.bottom}, right={self.right}"

    def cut(self, image: Image.Image) -> Image.Image:
        """Return the part of ``image`` inside this box, at least one pixel wide and high."""
        width, height = image.size
        left, top = int(self.left * width), int(self.top * height)
        right = max(left + 1, round(self.right * width))
        bottom = max(top + 1, round(self.bottom * height))
        return image.crop((left, top, right, bottom))


@dataclass(frozen=True, slots=True, kw_only=True)
class Preprocessing:
    """How a picture becomes ``uint8`` pixels, and pixels become the network's numbers.

    ``fit="crop"`` scales the shorter side to ``size / crop_fraction`` and cuts the middle;
    ``fit="pad"`` scales the longer side to ``size`` and fills the rest with the mean: all of the
    picture is seen, in its own proportions;
    ``fit="squash"`` scales both sides to ``size`` and ignores the aspect ratio.
    """

    size: int  # height and width of the network's input, pixels
    channels: Literal[1, 3]  # 1: luminance (ITU-R 601-2), 3: RGB
    mean: tuple[float, ...]  # per channel, of values in [0, 1]
    std: tuple[float, ...]  # per channel, of values in [0, 1]
    fit: Fit = "crop"
    crop_fraction: float = 1.0  # share of the scaled shorter side that stays, in (0, 1]
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    decoding: Decoding = 2
    bits: int = 16  # that count of gray samples of 16 bits, 8 to 16

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ValueError(f"size must be at least 1 pixel, got {self.size}")
        if self.channels not in (1, 3):
            raise ValueError(f"channels must be 1 or 3, got {self.channels}")
        if len(self.mean) != self.channels or len(self.std) != self.channels:
            raise ValueError(f"mean and std need {self.channels} values, one per channel")
        if min(self.std) <= 0:
            raise ValueError(f"std must be positive, got {self.std}")
        if not 0 < self.crop_fraction <= 1:
            raise ValueError(f"crop_fraction must lie in (0, 1], got {self.crop_fraction}")
        if self.fit not in get_args(Fit):
            raise ValueError(f"fit must be one of {', '.join(get_args(Fit))}, got {self.fit!r}")
        if self.interpolation not in ("bilinear", "bicubic"):
            raise ValueError(f"interpolation must be bilinear or bicubic, got {self.interpolation}")
        if self.decoding not in get_args(Decoding):
            raise ValueError(f"decoding must be 1 or 2, got {self.decoding!r}: use a newer program")
        if not LEAST <= self.bits <= FULL:
            raise ValueError(f"bits must lie between {LEAST} and {FULL}, got {self.bits}")

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON values, without what says nothing new.

        Folders written before there were several decodings keep their text and their fingerprint.
        """
        fields = asdict(self)
        if self.decoding == FIRST_DECODING:
            del fields["decoding"]
        if self.bits == FULL:
            del fields["bits"]
        return fields

    @classmethod
    def from_json(cls, fields: dict[str, object]) -> Self:
        """Return the description that ``to_json`` and JSON turned into ``fields``.

        Raises:
            TypeError, ValueError: a field is missing, unknown or out of range.
        """
        mean, std = fields.get("mean"), fields.get("std")
        if not isinstance(mean, list) or not isinstance(std, list):
            raise TypeError("mean and std must be lists")
        values = {"decoding": FIRST_DECODING, **fields, "mean": tuple(mean), "std": tuple(std)}
        return cls(**values)  # type: ignore[arg-type]

    def decode(
        self,
        data: bytes,
        *,
        limits: ImageLimits = DEFAULT_LIMITS,
        crop: CropBox | None = None,
        before_pixels: Callable[[int], None] | None = None,
        before_repair: Callable[[], None] | None = None,
    ) -> Image.Image:
        """Decode encoded ``data`` to a picture with all the detail that ``pixels`` will use.

        ``before_pixels`` and ``before_repair`` are called as by
        ``vision.image.decode.decode_image``.

        Raises:
            ImageError: as ``vision.image.decode.decode_image``.
        """
        least_side = self.least_side
        if crop is not None:
            least_side = math.ceil(least_side / min(crop.bottom - crop.top, crop.right - crop.left))
        return decode_image(
            data,
            limits=limits,
            draft_side=least_side,
            before_pixels=before_pixels,
            before_repair=before_repair,
            managed=self.decoding != FIRST_DECODING,
            bits=self.bits,
        )

    def pixels(self, image: Image.Image, *, crop: CropBox | None = None) -> NDArray[np.uint8]:
        """Return ``image`` (RGB) as the network's input before normalising: uint8 (C, H, W).

        The array is contiguous, the caller's own, and may be written to.
        """
        if crop is not None:
            image = crop.cut(image)
        if self.channels == 1:
            image = image.convert("L")
        if image.size != (self.size, self.size):
            image = self._fitted(image)
        pixels_HWC = np.asarray(image).reshape(self.size, self.size, self.channels)
        return np.require(pixels_HWC.transpose(2, 0, 1), requirements=("C", "W"))

    def batch_shape(self, images: int) -> tuple[int, int, int, int]:
        """Return (B, C, H, W) of the network's input for so many ``images``."""
        return images, self.channels, self.size, self.size

    @property
    def least_side(self) -> int:
        """No side of a large picture is decoded to fewer pixels than this."""
        return max(self._scaled_side * DRAFT_FACTOR, DRAFT_MIN_SIDE)

    @property
    def _scaled_side(self) -> int:
        return round(self.size / self.crop_fraction) if self.fit == "crop" else self.size

    def _fitted(self, image: Image.Image) -> Image.Image:
        match self.fit:
            case "crop":
                return self._cropped(image)
            case "pad":
                return self._padded(image)
            case "squash":
                return self._resized(image, (self.size, self.size))

    def _padded(self, image: Image.Image) -> Image.Image:
        longer = max(image.size)
        width, height = (max(1, round(side * self.size / longer)) for side in image.size)
        mean = tuple(round(255 * value) for value in self.mean)
        padded = Image.new(image.mode, (self.size, self.size), mean[0] if len(mean) == 1 else mean)
        corner = ((self.size - width) // 2, (self.size - height) // 2)
        padded.paste(self._resized(image, (width, height)), corner)
        return padded

    def _cropped(self, image: Image.Image) -> Image.Image:
        width, height = image.size
        scale = self._scaled_side / min(width, height)
        # Cut the middle before scaling: the same pixels, but a 1 x 16,000 strip stays cheap.
        side = min(width, height) * self.size / self._scaled_side
        left, top = (width - side) / 2, (height - side) / 2
        if scale == 1 and left.is_integer() and top.is_integer():
            return image.crop((int(left), int(top), int(left + side), int(top + side)))
        box = (left, top, left + side, top + side)
        return self._resized(image, (self.size, self.size), box=box)

    def _resized(
        self,
        image: Image.Image,
        size: tuple[int, int],
        *,
        box: tuple[float, float, float, float] | None = None,
    ) -> Image.Image:
        resample = Image.Resampling[self.interpolation.upper()]
        return image.resize(size, resample, box=box, reducing_gap=REDUCING_GAP)
