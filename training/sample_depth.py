"""A source of images in, how many of 16 bits its gray pictures use out.

Of all files the first bytes are read, and of gray PNGs with 16 bits a sample every sample: the
largest of them tells what the camera gave.
"""

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from dataset.content import read_file
from dataset.source import list_source
from training.loading import FASHION_MNIST
from vision.depth import depth_of, is_deep_gray, largest_sample
from vision.errors import ImageError
from vision.image import DECODER_ERRORS

HEAD = 32  # bytes


def find_depth(source: str) -> int | None:
    """Return 8, 10, 12, 14 or 16 for the gray pictures of 16 bits in ``source``, None without any.

    Raises:
        DatasetError: ``source`` is missing, or it cannot be told what it is.
    """
    if source == FASHION_MNIST:
        return None
    return depth_of_files(file.path for file in list_source(Path(source)).files)


def depth_of_files(paths: Iterable[Path]) -> int | None:
    """Return likewise for the files at ``paths``; what cannot be read tells nothing."""
    with ThreadPoolExecutor() as pool:
        samples = [one for one in pool.map(_largest_sample, paths) if one is not None]
    return depth_of(max(samples)) if samples else None


def _largest_sample(path: Path) -> int | None:
    try:
        if not path.is_file():
            return None
        with path.open("rb") as file:
            if not is_deep_gray(file.read(HEAD)):
                return None
        return largest_sample(read_file(path))
    except (ImageError, *DECODER_ERRORS):
        return None
