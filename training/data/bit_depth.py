"""A source of images in, how many of 16 bits its pictures use out.

Of all files the first bytes are read, and of PNGs and TIFFs with 16 bits a sample every sample: the
largest of them tells what the camera gave.
"""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from dataset.folders.file_content import read_image_file
from dataset.source import list_source
from training.data.images.load import FASHION_MNIST
from vision.errors import ImageError
from vision.formats.detect import TIFF, sniff_format
from vision.image.bit_depth import depth_of, is_deep_colour, is_deep_gray, largest_sample
from vision.image.decoding_steps import DECODER_ERRORS

HEAD = 32  # bytes


class BitDepths(NamedTuple):
    """8, 10, 12, 14 or 16 for the pictures of 16 bits; None where there are none."""

    gray: int | None
    colour: int | None  # also gray with alpha: only the upper 8 bits of such samples can be read


def find_depths(source: str) -> BitDepths:
    """Return how many bits are used by the pictures of 16 bits in ``source``.

    What cannot be read tells nothing.

    Raises:
        DatasetError: ``source`` is missing, or it cannot be told what it is.
    """
    if source == FASHION_MNIST:
        return BitDepths(None, None)
    largest: dict[bool, int] = {}  # by whether they are gray
    with ThreadPoolExecutor() as pool:
        for sample in pool.map(
            _largest_sample, [file.path for file in list_source(Path(source)).files]
        ):
            if sample is not None:
                is_gray, value = sample
                largest[is_gray] = max(value, largest.get(is_gray, 0))
    gray, colour = (
        depth_of(largest[is_gray]) if is_gray in largest else None for is_gray in (True, False)
    )
    return BitDepths(gray, colour)


def _largest_sample(path: Path) -> tuple[bool, int] | None:
    """Return whether the picture is gray, and its largest sample."""
    try:
        if not path.is_file():
            return None
        with path.open("rb") as file:
            head = file.read(HEAD)
        if sniff_format(head) is TIFF:  # it says so anywhere
            head = read_image_file(path)
        if not is_deep_gray(head) and not is_deep_colour(head):
            return None
        return is_deep_gray(head), largest_sample(read_image_file(path))
    except (ImageError, *DECODER_ERRORS):
        return None
