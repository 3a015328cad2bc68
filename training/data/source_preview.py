"""A source of pictures in, what decides what `auto` tries out: their number, and if they are gray.

Only some of the files are opened.
"""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
from PIL import Image

from dataset.folders.file_content import read_image_file
from dataset.listing import ListedFile
from dataset.source import list_source
from training.data.images.fashion_mnist import SIDE, TEST_IMAGES, TRAIN_IMAGES
from training.data.images.load import FASHION_MNIST
from vision.errors import ImageError
from vision.image.decode import decode_image, harden_pillow
from vision.image.decoding_steps import DECODER_ERRORS
from vision.image.limits import OWN_FILE_LIMITS

SMALL: Final = 64  # pixels: the longest side of pictures that a small network is tried for
LOOKED_AT: Final = 64  # files


class SourcePreview(NamedTuple):
    """What is known before anything is decoded."""

    photos: int
    gray_side: int | None  # pixels, the longest of pictures that are all small and gray; else None


def preview_source(source: str) -> SourcePreview:
    """Return what ``source`` looks like.

    Raises:
        DatasetError: ``source`` is missing, or it cannot be told what it is.
    """
    if source == FASHION_MNIST:
        return SourcePreview(TRAIN_IMAGES + TEST_IMAGES, SIDE)
    return preview_files(list_source(Path(source)).files)


def preview_files(files: Sequence[ListedFile]) -> SourcePreview:
    """Return likewise what these files look like; what cannot be read tells nothing."""
    harden_pillow()
    step = max(1, len(files) // LOOKED_AT)
    sides: list[int] = []
    for file in files[::step]:
        try:
            side = _gray_side(file.path)
        except (ImageError, Image.DecompressionBombError, *DECODER_ERRORS):
            continue
        if side is None:
            return SourcePreview(len(files), None)
        sides.append(side)
    return SourcePreview(len(files), max(sides, default=None))


def _gray_side(path: Path) -> int | None:
    """Return the longer side of a small gray picture; None if it is another one."""
    data = read_image_file(path, limits=OWN_FILE_LIMITS)
    with Image.open(io.BytesIO(data)) as header:
        side = max(header.size)
    if side > SMALL:
        return None
    pixels_HWC = np.asarray(decode_image(data, limits=OWN_FILE_LIMITS))
    is_gray = (pixels_HWC == pixels_HWC[..., :1]).all()
    return side if is_gray else None
