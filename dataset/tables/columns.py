"""The names of a table's columns in, which of them is the path, the label and the split out.

A column's own name comes first, in any case; then its usual other names, of which there may be one.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from dataset.errors import DatasetError
from dataset.names import normalise, part_of
from dataset.tables.csv_cells import RawTable

SHOWN, LONGEST = 10, 60  # columns that a sentence lists, and characters of each
PATH, LABEL, SPLIT, GROUP = "path", "label", "split", "group"
OTHER_NAMES: Final = {
    PATH: (
        *("file", "filename", "filepath", "image", "imagepath", "imagefile", "imagename"),
        *("img", "imgpath", "imgfile", "imgname", "photo", "photopath", "picture", "paths"),
        *("files", "filenames", "images", "imagefilename", "relativepath", "relpath", "fullpath"),
    ),
    LABEL: (
        *("labels", "class", "classname", "classlabel", "category", "categoryname", "labelname"),
        *("target", "classes", "categories"),
    ),
    GROUP: ("groups", "groupid"),
    SPLIT: ("splits", "set", "subset", "part", "partition", "datasplit", "usage", "phase"),
}


@dataclass(frozen=True, slots=True)
class Columns:
    """Positions of the columns that count."""

    path: int
    label: int | None
    split: int | None
    group: int | None

    @property
    def used(self) -> set[int]:
        """All of them."""
        columns = (self.path, self.label, self.split, self.group)
        return {column for column in columns if column is not None}


def has_path(names: Sequence[str]) -> bool:
    """Return whether one of ``names`` is a column of paths."""
    return bool(_called(names, PATH) or _called_otherwise(names, PATH))


def find_columns(table: RawTable) -> Columns:
    """Return which columns of ``table`` count.

    Raises:
        DatasetError: there is none of paths, or it cannot be told which of several it is.
    """
    path = _one(table, PATH)
    if path is None:
        more = f" and {len(table.names) - SHOWN} more" if len(table.names) > SHOWN else ""
        listed = ", ".join(repr(name[:LONGEST]) for name in table.names[:SHOWN]) + more
        raise DatasetError(
            f"{table.path} has no column {PATH!r}; its columns are {listed} (its first line must "
            f"name the columns, such as {PATH},{LABEL},{SPLIT})"
        )
    return Columns(path, _one(table, LABEL), _split(table), _one(table, GROUP))


def find_column(table: RawTable, name: str) -> int | None:
    """Return the column called ``name``, in any case, if there is one.

    Raises:
        DatasetError: there are several.
    """
    found = _called(table.names, name)
    if len(found) > 1:
        raise _ambiguous(table, name, found)
    return found[0] if found else None


def _one(table: RawTable, what: str) -> int | None:
    """Return the column of ``what``, if there is one."""
    for found in (_called(table.names, what), _called_otherwise(table.names, what)):
        if len(found) > 1:
            raise _ambiguous(table, what, found)
        if found:
            return found[0]
    return None


def _split(table: RawTable) -> int | None:
    """Return the column of parts; one that is not called ``split`` must hold names of parts."""
    called = _called(table.names, SPLIT)
    if len(called) > 1:
        raise _ambiguous(table, SPLIT, called)
    if called:
        return called[0]
    found = [
        column
        for column in _called_otherwise(table.names, SPLIT)
        if any(
            isinstance(row[column], str) and part_of(row[column]) is not None for row in table.rows
        )
    ]
    if len(found) > 1:
        raise _ambiguous(table, SPLIT, found)
    return found[0] if found else None


def _called(names: Sequence[str], what: str) -> list[int]:
    """Return the columns called ``what``: exactly so, or else in another case."""
    exact = [column for column, name in enumerate(names) if name == what]
    return exact or [
        column for column, name in enumerate(names) if normalise(name) == normalise(what)
    ]


def _called_otherwise(names: Sequence[str], what: str) -> list[int]:
    return [column for column, name in enumerate(names) if normalise(name) in OTHER_NAMES[what]]


def _ambiguous(table: RawTable, what: str, columns: Sequence[int]) -> DatasetError:
    names = {table.names[column] for column in columns}
    if len(names) == 1:
        return DatasetError(f"{table.path} has the column {names.pop()!r} {len(columns)} times")
    listed = " and ".join(repr(table.names[column]) for column in columns)
    return DatasetError(
        f"{table.path} has the columns {listed}, each of which may be the {what}: "
        f"rename the one that is to {what!r}"
    )
