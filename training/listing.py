"""What a folder or a table says before a single image is opened: files, classes and parts."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from dataset.listing import Part
from training.errors import DataError

FEWEST_CLASSES: Final = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """Every file of a dataset and what is claimed of it."""

    source: Path
    label_names: tuple[str, ...]
    paths: tuple[Path, ...]
    labels: tuple[int, ...]  # positions in label_names, one per path
    parts: tuple[Part, ...]  # one per path; all TRAIN where the source names no parts


def check_label_names(source: Path, names: Iterable[str]) -> None:
    """Check what the classes of ``source`` are called.

    Raises:
        DataError: there are too few, or one of them cannot be written down.
    """
    names = tuple(names)
    if len(names) < FEWEST_CLASSES:
        raise DataError(
            f"{source} holds one class, {names[0]!r}; at least {FEWEST_CLASSES} are needed"
        )
    for name in names:
        if not name.isprintable():  # nor is a name that is not UTF-8: no manifest could hold it
            raise DataError(f"class {name!r} in {source} has an unprintable name; rename it")
