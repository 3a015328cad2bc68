"""An image file that a command is given: its path in, the decoded image out."""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import numpy as np
import typer

from cli.support.console import print_info
from vision.errors import ImageError
from vision.formats.detect import FORMATS, in_words
from vision.image.bit_depth import FULL, depth_of, is_deep_colour, is_deep_gray, largest_sample
from vision.image.decode import harden_pillow
from vision.image.limits import OWN_FILE_LIMITS, too_many_bytes
from vision.image.preprocessing import Preprocessing
from vision.image.thumbnail import Thumbnail, thumbnail_of

if TYPE_CHECKING:
    from PIL import Image

    from vision.inference.encoder import Encoding, ImageEncoder

DASH: Final = Path("-")  # standard input


def require_file(path: Path) -> Path:
    """Return the path of a picture, or the dash; refuse what does not exist as wrong use."""
    if path != DASH and not path.exists():
        raise typer.BadParameter(f"file {str(path)!r} does not exist.")
    return path


ImageArgument = Annotated[
    Path,
    typer.Argument(
        help=f"{in_words(FORMATS)} file; - reads standard input.",
        callback=require_file,
        dir_okay=False,
        show_default=False,
    ),
]


@dataclass(frozen=True, slots=True)
class LoadedImage:
    """An image file, decoded for one model."""

    image: "Image.Image"
    content_sha256: str
    _data: bytes
    _encoder: "ImageEncoder"

    def encode(self) -> "Encoding":
        """Return vector and probabilities, as a batch of one."""
        pixels_CHW = self._encoder.manifest.preprocessing.pixels(self.image)
        return self._encoder.encode(pixels_CHW[np.newaxis])

    def thumbnail(self, *, max_side: int) -> Thumbnail:
        """Return the picture as a gallery keeps it, with no side above ``max_side`` pixels."""
        preprocessing = self._encoder.manifest.preprocessing
        return thumbnail_of(
            self._data, self.image, preprocessing, limits=OWN_FILE_LIMITS, max_side=max_side
        )


def load_image(encoder: "ImageEncoder", path: Path) -> LoadedImage:
    """Return the image in a file, or on standard input where ``path`` is ``-``.

    Raises:
        ImageError: it cannot be read, or is no image.
    """
    harden_pillow()
    name = "standard input" if path == DASH else str(path)
    try:
        with path.open("rb") if path != DASH else os.fdopen(0, "rb", closefd=False) as file:
            size = os.fstat(file.fileno()).st_size  # 0 of a pipe
            if size > OWN_FILE_LIMITS.max_bytes:
                raise too_many_bytes(size, OWN_FILE_LIMITS)
            data = file.read(OWN_FILE_LIMITS.max_bytes + 1)
        image = encoder.manifest.preprocessing.decode(data, limits=OWN_FILE_LIMITS)
    except OSError as error:
        raise ImageError(f"{name} cannot be read: {error.strerror}") from error
    except ImageError as error:
        raise type(error)(f"{name}: {error}") from error
    _warn_if_dark(name, data, encoder.manifest.preprocessing)
    return LoadedImage(image, hashlib.sha256(data).hexdigest(), data, encoder)


def _warn_if_dark(name: str, data: bytes, preprocessing: Preprocessing) -> None:
    """Warn that the model sees next to nothing of a picture that uses few of its 16 bits."""
    in_colour = is_deep_colour(data)
    if not in_colour and (preprocessing.bits < FULL or not is_deep_gray(data)):
        return
    depth = depth_of(largest_sample(data))
    if depth < FULL and in_colour:
        print_info(
            f"{name} uses only {depth} of its {FULL} bits, of which the upper 8 are read: it is "
            "seen as a dark picture; save it with samples up to 65,535, or with 8 bits"
        )
    elif depth < FULL:
        print_info(
            f"{name} uses only {depth} of its {FULL} bits, and the model reads all {FULL}: it sees "
            f"a dark picture; a model trained with --bits {depth} would not"
        )
