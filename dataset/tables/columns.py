"""The names of a table's columns in, which of them is the path, the label and the split out.

A column's own name comes first, in any case; then its usual other names, of which there may be one.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from dataset.errors import DatasetError
from dataset.names import normalize_name, parse_part
from dataset.tables.csv_table import RawTable

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
    return bool(_columns_called(names, PATH) or _columns_also_called(names, PATH))


def find_columns(table: RawTable) -> Columns:
    """Return which columns of ``table`` count.

    Raises:
        DatasetError: there is no column of paths, or several that may be it.
    """
    path = _find_usual(table, PATH)
    if path is None:
        more = f" and {len(table.names) - SHOWN} more" if len(table.names) > SHOWN else ""
        listed = ", ".join(repr(name[:LONGEST]) for name in table.names[:SHOWN]) + more
        raise DatasetError(
            f"{table.path} has no column {PATH!r}; its columns are {listed} (its first line must "
            f"name the columns, such as {PATH},{LABEL},{SPLIT})"
        )
    return Columns(path, _find_usual(table, LABEL), _split(table), _find_usual(table, GROUP))


def find_column(table: RawTable, name: str) -> int | None:
    """Return the column called ``name``, in any case, if there is one.

    Raises:
        DatasetError: there are several.
    """
    return _only(table, name, _columns_called(table.names, name))


def _find_usual(table: RawTable, what: str) -> int | None:
    """Return the column of ``what``, if there is one."""
    called = find_column(table, what)
    if called is not None:
        return called
    return _only(table, what, _columns_also_called(table.names, what))


def _split(table: RawTable) -> int | None:
    """Return the column of parts; one that is not called ``split`` must hold names of parts."""
    called = find_column(table, SPLIT)
    if called is not None:
        return called
    found = [
        column
        for column in _columns_also_called(table.names, SPLIT)
        if any(
            isinstance(row[column], str) and parse_part(row[column]) is not None
            for row in table.rows
        )
    ]
    return _only(table, SPLIT, found)


def _columns_called(names: Sequence[str], what: str) -> list[int]:
    """Return the columns called ``what``: exactly so, or else in another case."""
    exact = [column for column, name in enumerate(names) if name == what]
    return exact or [
        column for column, name in enumerate(names) if normalize_name(name) == normalize_name(what)
    ]


def _columns_also_called(names: Sequence[str], what: str) -> list[int]:
    return [
        column for column, name in enumerate(names) if normalize_name(name) in OTHER_NAMES[what]
    ]


def _only(table: RawTable, what: str, columns: Sequence[int]) -> int | None:
    """Return the one column that may be ``what``; ``None``: there is none.

    Raises:
        DatasetError: there are several.
    """
    if len(columns) <= 1:
        return columns[0] if columns else None
    names = {table.names[column] for column in columns}
    if len(names) == 1:
        raise DatasetError(f"{table.path} has the column {names.pop()!r} {len(columns)} times")
    listed = " and ".join(repr(table.names[column]) for column in columns)
    raise DatasetError(
        f"{table.path} has the columns {listed}, each of which may be the {what}: "
        f"rename the one that is to {what!r}"
    )
