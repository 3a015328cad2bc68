"""A folder of class folders in, decoded images with labels out, and a list of what was unreadable.

Two layouts: ``FOLDER/class/image``, or ``FOLDER/train/class/image`` beside one of
``FOLDER/test``, ``FOLDER/validation`` and ``FOLDER/val`` (the first that is there).

Shape suffixes: N images, C channels, H x W pixels.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from training.errors import DataError
from vision.errors import ImageError
from vision.preprocess import Preprocessing

TRAIN_FOLDER: Final = "train"
TEST_FOLDERS: Final = ("test", "validation", "val")
FEWEST_CLASSES: Final = 2

LoadReport: TypeAlias = Callable[[int, int], None]  # images done, images in all


class Unreadable(NamedTuple):
    """A file that was left out, and why."""

    path: Path
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """Every file of a dataset, sorted by part, class and path."""

    label_names: tuple[str, ...]
    paths: tuple[Path, ...]
    labels: tuple[int, ...]  # positions in label_names, one per path
    in_test: tuple[bool, ...]  # one per path; all false if the folder has no test part


class Decoded(NamedTuple):
    """The images that could be read, and the files that could not."""

    images_NCHW: NDArray[np.uint8]
    positions: NDArray[np.int64]  # of each image among the paths asked for
    unreadable: tuple[Unreadable, ...]


def list_images(folder: Path) -> Listing:
    """Return every file below the class folders of ``folder``; hidden ones are skipped.

    Raises:
        DataError: the folder is missing, empty, or has no two classes.
    """
    if not folder.is_dir():
        problem = "is not a folder" if folder.exists() else "is not there"
        raise DataError(f"{folder} {problem}; a folder of class folders was expected")
    parts = _parts(folder)
    label_names = tuple(child.name for child in _folders(parts[0]))
    if not label_names:
        raise DataError(
            f"{parts[0]} holds no class folders; one folder of images per class is needed"
        )
    if len(label_names) < FEWEST_CLASSES:
        raise DataError(
            f"{parts[0]} holds one class, {label_names[0]!r}; at least {FEWEST_CLASSES} are needed"
        )
    for name in label_names:
        if not name.isprintable():  # a name that is not UTF-8 cannot be written into a manifest
            raise DataError(
                f"class folder {name!r} in {parts[0]} has an unprintable name; rename it"
            )
    paths: list[Path] = []
    labels: list[int] = []
    in_test: list[bool] = []
    for part, is_test in zip(parts, (False, True), strict=False):
        for class_folder in _folders(part):
            if class_folder.name not in label_names:
                raise DataError(f"{class_folder} is a class that {parts[0]} does not have")
            files = _files(class_folder)
            if not files:
                raise DataError(f"class folder {class_folder} is empty")
            paths += files
            labels += [label_names.index(class_folder.name)] * len(files)
            in_test += [is_test] * len(files)
    return Listing(
        label_names=label_names, paths=tuple(paths), labels=tuple(labels), in_test=tuple(in_test)
    )


def decode_images(
    paths: Sequence[Path], preprocessing: Preprocessing, report: LoadReport
) -> Decoded:
    """Return the readable images among ``paths`` (N, C, H, W), in the order of the paths.

    Raises:
        DataError: not one of the files is an image.
    """

    def decode(path: Path) -> NDArray[np.uint8] | Unreadable:
        try:
            return preprocessing.pixels(preprocessing.decode(path.read_bytes()))
        except ImageError as error:
            return Unreadable(path, str(error))
        except OSError as error:
            return Unreadable(path, error.strerror or str(error))

    images: list[NDArray[np.uint8]] = []
    positions: list[int] = []
    unreadable: list[Unreadable] = []
    with ThreadPoolExecutor() as pool:  # Pillow decodes and resizes without the interpreter's lock
        for position, result in enumerate(pool.map(decode, paths)):
            if isinstance(result, Unreadable):
                unreadable.append(result)
            else:
                images.append(result)
                positions.append(position)
            report(position + 1, len(paths))
    if not images:
        raise DataError(
            f"none of the {len(paths)} files is an image; the first, {unreadable[0].path}: "
            f"{unreadable[0].reason}"
        )
    return Decoded(np.stack(images), np.array(positions, np.int64), tuple(unreadable))


def _parts(folder: Path) -> tuple[Path, ...]:
    """Return the folders of the training and, where there is one, the test images."""
    train = folder / TRAIN_FOLDER
    if not train.is_dir() or not _folders(train):
        return (folder,)
    tests = [folder / name for name in TEST_FOLDERS if (folder / name).is_dir()]
    return (train, *tests[:1])


def _folders(folder: Path) -> list[Path]:
    return [child for child in _children(folder) if child.is_dir()]


def _files(folder: Path) -> list[Path]:
    """Return the files in ``folder`` and below it."""
    files: list[Path] = []
    for child in _children(folder):
        files += _files(child) if child.is_dir() else [child]
    return files


def _children(folder: Path) -> list[Path]:
    """Return what ``folder`` holds, sorted by name so that it is the same on every file system."""
    try:
        names = sorted(child.name for child in folder.iterdir())
    except OSError as error:
        raise DataError(f"cannot read {folder}: {error.strerror}") from error
    return [folder / name for name in names if not name.startswith(".")]
