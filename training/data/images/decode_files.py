"""Image files in, their pixels in one array out, and a list of what was unreadable.

Shape suffixes: N images, M readable images, C channels, H x W pixels.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dataset.findings import Findings
from dataset.folders.file_content import read_image_file
from training.data.images.photo_hashes import (
    PhotoHashArrays,
    PhotoHashes,
    hash_photo,
    hash_pixels,
)
from training.data.images.pixel_buffer import pixel_array
from training.errors import DataError
from training.progress import ImagesDone, Progress
from vision.errors import ImageError
from vision.image.limits import OWN_FILE_LIMITS
from vision.image.preprocessing import Preprocessing

MOST_UNREADABLE: Final = 0.5  # of the files; beyond it, a training would learn from a remainder
READING: Final = "reading images"


class Unreadable(NamedTuple):
    """A file that was left out, and why."""

    path: Path
    reason: str


class DecodedImages(NamedTuple):
    """The pixels of every file, those of unreadable ones being arbitrary."""

    images_NCHW: NDArray[np.uint8]
    readable_M: NDArray[np.int64]  # positions of the images that count, ascending
    hashes: PhotoHashArrays  # what each of them is recognised by
    unreadable: tuple[Unreadable, ...]


def decode_images(
    paths: Sequence[Path], preprocessing: Preprocessing, progress: Progress
) -> DecodedImages:
    """Return the images of ``paths``, in that order; the pixels are in memory once, or on disk.

    Raises:
        DataError: most of the files are no images, or there is no room for the pixels.
    """
    images_NCHW = pixel_array(_shape(len(paths), preprocessing))

    def decode(position: int) -> PhotoHashes | Unreadable:
        path = paths[position]
        try:
            data = read_image_file(path)
            picture = preprocessing.decode(data, limits=OWN_FILE_LIMITS)
        except ImageError as error:
            return Unreadable(path, str(error))
        except OSError as error:
            return Unreadable(path, error.strerror or str(error))
        images_NCHW[position] = preprocessing.pixels(picture)
        return hash_photo(data, picture)

    readable: list[int] = []
    hashes: list[PhotoHashes] = []
    unreadable: list[Unreadable] = []
    with ThreadPoolExecutor() as pool:  # Pillow decodes and resizes without the interpreter's lock
        for position, result in enumerate(pool.map(decode, range(len(paths)))):
            if isinstance(result, Unreadable):
                unreadable.append(result)
            else:
                readable.append(position)
                hashes.append(result)
            progress(ImagesDone(READING, position + 1, len(paths)))
    _check_readable(unreadable, len(paths))
    return DecodedImages(
        images_NCHW, np.array(readable, np.int64), PhotoHashArrays.of(hashes), tuple(unreadable)
    )


def _check_readable(unreadable: Sequence[Unreadable], total: int) -> None:
    """Check that files can be read: when few can, what they hold is not what somebody meant.

    Raises:
        DataError: most of them, or all, are no readable images.
    """
    if len(unreadable) == total:
        which = f"none of the {total:,} files is an image; the first" if total > 1 else "no image"
        raise DataError(f"{which}, {unreadable[0].path}: {unreadable[0].reason}")
    if len(unreadable) > MOST_UNREADABLE * total:
        reasons = Findings()
        reasons.add_similar((reason, str(path)) for path, reason in unreadable)
        first, *_ = reasons.most_frequent_first()
        raise DataError(
            f"{len(unreadable):,} of the {total:,} files cannot be read as images; {first.count:,} "
            f"of them: {first.reason}, such as {first.examples[0]}; mend them, or take them out"
        )


def fit_grey_images(
    images_NHW: NDArray[np.uint8], preprocessing: Preprocessing, progress: Progress
) -> DecodedImages:
    """Return grey images as ``preprocessing`` makes them of pictures.

    Raises:
        DataError: there is no room for the pixels.
    """
    total, side, _ = images_NHW.shape
    hashes = PhotoHashArrays.of([hash_pixels(image_HW) for image_HW in images_NHW])
    if (preprocessing.size, preprocessing.channels) == (side, 1):  # it would change nothing
        progress(ImagesDone(READING, total, total))
        return DecodedImages(images_NHW[:, None], np.arange(total), hashes, ())
    images_NCHW = pixel_array(_shape(total, preprocessing))

    def fit(position: int) -> None:
        picture = Image.fromarray(images_NHW[position]).convert("RGB")
        images_NCHW[position] = preprocessing.pixels(picture)

    with ThreadPoolExecutor() as pool:
        for done, _ in enumerate(pool.map(fit, range(total)), start=1):
            progress(ImagesDone(READING, done, total))
    return DecodedImages(images_NCHW, np.arange(total), hashes, ())


def _shape(images: int, preprocessing: Preprocessing) -> tuple[int, int, int, int]:
    return preprocessing.batch_shape(images)
