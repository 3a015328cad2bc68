"""An image of a dataset in, a picture that an HTML page can hold in itself out.

Shape suffixes: C channels (1 grey, 3 RGB), H x W pixels.
"""

import base64
import io
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from training.data.images.labelled_images import LabelledImages

PIXELATED_SIDE: Final = 64  # up to here every pixel is kept, and shown as a square
MAX_SIDE: Final = 160  # pixels; larger images are shown smaller
JPEG_QUALITY: Final = 82  # of 95


@dataclass(frozen=True, slots=True)
class InlineImage:
    """An encoded picture, as the value of an ``src``."""

    uri: str  # data:image/png or data:image/jpeg
    width: int  # pixels
    height: int  # pixels
    pixelated: bool


@dataclass(frozen=True, slots=True)
class ExampleImage:
    """One image of a dataset, as the network saw it."""

    image: InlineImage
    label: str  # the one it has; empty: none
    position: int  # among its part of the dataset


def example_image(images: LabelledImages, position: int) -> ExampleImage:
    """Return the image at ``position``."""
    label = images.label_names[int(images.labels_N[position])] if images.label_names else ""
    return ExampleImage(inline_image(images.images_NCHW[position]), label, int(position))


def inline_image(image_CHW: NDArray[np.uint8]) -> InlineImage:
    """Return the image as a lossless PNG up to 64 pixels a side, else as a JPEG of at most 160."""
    pixels = image_CHW[0] if image_CHW.shape[0] == 1 else image_CHW.transpose(1, 2, 0)
    image = Image.fromarray(np.ascontiguousarray(pixels))
    pixelated = max(image.size) <= PIXELATED_SIDE
    if not pixelated:
        image.thumbnail((MAX_SIDE, MAX_SIDE), Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    if pixelated:
        image.save(buffer, "PNG", optimize=True)
    else:
        image.save(buffer, "JPEG", quality=JPEG_QUALITY, optimize=True)
    kind = "png" if pixelated else "jpeg"
    text = base64.b64encode(buffer.getvalue()).decode()
    return InlineImage(f"data:image/{kind};base64,{text}", *image.size, pixelated)
