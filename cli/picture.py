"""What commands take from the command line besides names: an image file, JSON text."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer

from cli.console import say
from vision.depth import FULL, depth_of, is_deep_gray, largest_sample
from vision.errors import ImageError
from vision.image import OWN_FILE_LIMITS, harden_pillow, too_many_bytes
from vision.preprocess import Preprocessing

if TYPE_CHECKING:
    from PIL import Image

    from vision.encoding import Encoding, ImageEncoder

ImageArgument = Annotated[
    Path,
    typer.Argument(
        help="JPEG, PNG, WebP, GIF or BMP file.", exists=True, dir_okay=False, show_default=False
    ),
]


@dataclass(frozen=True, slots=True)
class Picture:
    """An image file, decoded for one model."""

    image: "Image.Image"
    content_sha256: str
    _encoder: "ImageEncoder"

    def encode(self) -> "Encoding":
        """Return vector and probabilities, as a batch of one."""
        pixels_CHW = self._encoder.manifest.preprocessing.pixels(self.image)
        return self._encoder.encode(pixels_CHW[np.newaxis])


def read_picture(encoder: "ImageEncoder", path: Path) -> Picture:
    """Return the image in a file.

    Raises:
        ImageError: it cannot be read, or is no image.
    """
    harden_pillow()
    try:
        size = path.stat().st_size
        if size > OWN_FILE_LIMITS.max_bytes:
            raise too_many_bytes(size, OWN_FILE_LIMITS)
        data = path.read_bytes()
        image = encoder.manifest.preprocessing.decode(data, limits=OWN_FILE_LIMITS)
    except OSError as error:
        raise ImageError(f"{path} cannot be read: {error.strerror}") from error
    except ImageError as error:
        raise type(error)(f"{path}: {error}") from error
    _say_if_dark(path, data, encoder.manifest.preprocessing)
    return Picture(image, hashlib.sha256(data).hexdigest(), encoder)


def _say_if_dark(path: Path, data: bytes, preprocessing: Preprocessing) -> None:
    """Say that the model sees next to nothing of a picture that uses few of its 16 bits."""
    if preprocessing.bits < FULL or not is_deep_gray(data):
        return
    depth = depth_of(largest_sample(data))
    if depth < FULL:
        say(
            f"{path} uses only {depth} of its {FULL} bits, and the model reads all {FULL}: it sees "
            f"a dark picture; a model trained with --bits {depth} would not"
        )


def json_option(text: str, option: str) -> dict[str, Any]:
    """Return the JSON object that an option was given.

    Raises:
        BadParameter: it is none.
    """
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise typer.BadParameter(f"not JSON: {error}", param_hint=option) from error
    if not isinstance(value, dict):
        raise typer.BadParameter("not a JSON object", param_hint=option)
    return value
