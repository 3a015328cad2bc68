"""A folder of class folders in, the list of its files out.

Three layouts: ``FOLDER/class/image``; ``FOLDER/train/class/image`` beside one of ``FOLDER/test``,
``FOLDER/validation`` and ``FOLDER/val``, to measure with; or all of ``train``, ``test`` and one of
``validation`` and ``val``.
"""

from pathlib import Path
from typing import Final

from dataset.listing import Part
from training.errors import DataError
from training.listing import Listing, check_label_names

TRAIN_FOLDER: Final = "train"
OTHER_FOLDERS: Final = {
    "validation": Part.VALIDATION,
    "val": Part.VALIDATION,
    "test": Part.TEST,
}


def list_images(folder: Path) -> Listing:
    """Return every file below the class folders, sorted by part, class and path.

    Hidden files and folders are skipped.

    Raises:
        DataError: the folder is missing, empty, has no two classes, or its parts do not fit.
    """
    if not folder.is_dir():
        problem = "is not a folder" if folder.exists() else "is not there"
        raise DataError(
            f"{folder} {problem}; a folder of class folders or a .csv or .parquet table was "
            "expected"
        )
    parts = _parts(folder)
    train_folder = parts[0][1]
    label_names = tuple(child.name for child in _folders(train_folder))
    if not label_names:
        raise DataError(
            f"{train_folder} holds no class folders; one folder of images per class is needed"
        )
    check_label_names(train_folder, label_names)
    paths: list[Path] = []
    labels: list[int] = []
    parts_of_paths: list[Part] = []
    for part, part_folder in parts:
        for class_folder in _folders(part_folder):
            if class_folder.name not in label_names:
                raise DataError(f"{class_folder} is a class that {train_folder} does not have")
            files = _files(class_folder)
            if not files:
                raise DataError(f"class folder {class_folder} is empty")
            paths += files
            labels += [label_names.index(class_folder.name)] * len(files)
            parts_of_paths += [part] * len(files)
    return Listing(
        source=folder,
        label_names=label_names,
        paths=tuple(paths),
        labels=tuple(labels),
        parts=tuple(parts_of_paths),
    )


def _parts(folder: Path) -> list[tuple[Part, Path]]:
    """Return the folder of the training images, first, and those of the other parts."""
    train = folder / TRAIN_FOLDER
    if not train.is_dir() or not _folders(train):
        return [(Part.TRAIN, folder)]
    others = {name: part for name, part in OTHER_FOLDERS.items() if (folder / name).is_dir()}
    if len(set(others.values())) < len(others):
        raise DataError(f"{folder} holds both validation and val; one of them was expected")
    return [(Part.TRAIN, train), *((part, folder / name) for name, part in others.items())]


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
