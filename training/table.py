"""A CSV or Parquet table of ``path``, ``label`` and perhaps ``split`` in, a list of files out."""

import csv
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from dataset.listing import Part
from training.errors import DataError
from training.listing import Listing, check_label_names

CSV: Final = ".csv"
PARQUET: Final = ".parquet"
PATH, LABEL, SPLIT = "path", "label", "split"
SPLITS: Final = {
    "train": Part.TRAIN,
    "validation": Part.VALIDATION,
    "val": Part.VALIDATION,
    "test": Part.TEST,
}


class Row(NamedTuple):
    """One image's row, its cells unchecked."""

    place: str  # for sentences: file and line
    path: Any
    label: Any
    split: Any  # "train" where there is no such column


def is_table(source: Path) -> bool:
    """Return whether ``source`` is to be read as a table, by its name."""
    return source.suffix.lower() in (CSV, PARQUET) and not source.is_dir()


def list_table(table: Path) -> Listing:
    """Return the files of ``table``, in its order; relative paths start at the table's folder.

    The classes are the labels of the training rows, sorted as text; whole numbers become theirs.

    Raises:
        DataError: the table is missing, damaged or empty, or a row does not say what it must.
    """
    rows = _parquet_rows if table.suffix.lower() == PARQUET else _csv_rows
    paths: list[Path] = []
    labels: list[str] = []
    parts: list[Part] = []
    places: list[str] = []
    for row in rows(table):
        paths.append(table.parent / _path(row))
        labels.append(_label(row))
        parts.append(_part(row))
        places.append(row.place)
    if not paths:
        raise DataError(f"{table} has no rows; one per image was expected")
    train_labels = {label for label, part in zip(labels, parts, strict=True) if part == Part.TRAIN}
    if not train_labels:
        raise DataError(f"{table} has no row of split 'train'; there is nothing to learn from")
    for place, label in zip(places, labels, strict=True):
        if label not in train_labels:
            raise DataError(f"{place} is of an unknown class, {label!r}: no training row has it")
    label_names = tuple(sorted(train_labels))
    check_label_names(table, label_names)
    positions = {name: position for position, name in enumerate(label_names)}
    return Listing(
        source=table,
        label_names=label_names,
        paths=tuple(paths),
        labels=tuple(positions[label] for label in labels),
        parts=tuple(parts),
    )


def _csv_rows(table: Path) -> Iterator[Row]:
    reader = csv.reader(io.StringIO(_text(table), newline=""), strict=True)
    try:
        header = next(reader, None)
        if header is None:
            raise DataError(f"{table} is empty; a first line with {PATH} and {LABEL} was expected")
        columns = _columns(table, header)
        for cells in reader:
            place = f"line {reader.line_num} of {table}"
            if not cells:  # an empty line
                continue
            if len(cells) != len(header):
                raise DataError(
                    f"{place} has {len(cells)} cells; {len(header)} were expected, as in its "
                    "first line"
                )
            found = {name: cells[position] for name, position in columns.items()}
            yield Row(place, found[PATH], found[LABEL], found.get(SPLIT, "train"))
    except csv.Error as error:
        raise DataError(f"line {reader.line_num} of {table} is not CSV: {error}") from error


def _text(table: Path) -> str:
    try:
        data = table.read_bytes()
    except OSError as error:
        raise DataError(f"cannot read {table}: {error.strerror}") from error
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise DataError(f"line {line} of {table} is not UTF-8; save the table as UTF-8") from error


def _parquet_rows(table: Path) -> Iterator[Row]:
    try:
        import pyarrow as pa  # noqa: PLC0415 - an extra that few need
        from pyarrow import parquet  # noqa: PLC0415
    except ImportError as error:
        raise DataError(
            "reading Parquet needs pyarrow: pip install 'lookalike[parquet]'"
        ) from error
    try:
        file = table.open("rb")
    except OSError as error:
        raise DataError(f"cannot read {table}: {error.strerror}") from error
    with file:
        try:
            source = parquet.ParquetFile(file)
            columns = _columns(table, source.schema_arrow.names)
            cells = source.read(columns=list(columns)).to_pydict()
        except (pa.ArrowException, OSError, ValueError) as error:  # ValueError: text not UTF-8
            reason = str(error).splitlines()[0].rstrip(".")
            raise DataError(f"{table} is not Parquet, or damaged: {reason}") from error
    splits = cells.get(SPLIT) or ["train"] * len(cells[PATH])
    for number, values in enumerate(zip(cells[PATH], cells[LABEL], splits, strict=True), start=1):
        yield Row(f"row {number} of {table}", *values)


def _columns(table: Path, names: Sequence[str]) -> dict[str, int]:
    """Return where the columns that count stand."""
    for name in (PATH, LABEL, SPLIT):
        if name not in names and name != SPLIT:
            listed = ", ".join(map(repr, names))
            raise DataError(f"{table} has no column {name!r}; its columns are {listed}")
        if names.count(name) > 1:
            raise DataError(f"{table} has the column {name!r} {names.count(name)} times")
    return {name: names.index(name) for name in (PATH, LABEL, SPLIT) if name in names}


def _path(row: Row) -> str:
    if not row.path:
        raise DataError(f"{row.place} has no path")
    if not isinstance(row.path, str) or "\0" in row.path:
        raise DataError(f"{row.place} has the path {row.path!r}; a file's path was expected")
    return row.path


def _label(row: Row) -> str:
    label = str(row.label) if type(row.label) is int else row.label  # True is no label
    if label is None or (isinstance(label, str) and not label.strip()):
        raise DataError(f"{row.place} has no label")
    if not isinstance(label, str):
        raise DataError(f"{row.place} has the label {label!r}; text or a whole number was expected")
    if not label.isprintable():
        raise DataError(f"{row.place} has an unprintable label, {label!r}")
    return label


def _part(row: Row) -> Part:
    if not isinstance(row.split, str) or row.split not in SPLITS:
        raise DataError(
            f"{row.place} has the split {row.split!r}; one of {', '.join(SPLITS)} was expected"
        )
    return SPLITS[row.split]
