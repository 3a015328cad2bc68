"""Tables of items: a CSV, JSON lines or Parquet file in, one dict of cells per row out.

A vector is one cell, a list of numbers, or one column per number: then every column that we do not
know is one of its numbers, in the order of the columns.
"""

import csv
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, Final

from dataset.tables.parquet import load_pyarrow
from index.errors import SourceError
from index.items.item import quoted
from index.transfer.export import COLUMNS, PROVENANCE_KEY
from index.transfer.stored_items import Provenance

VECTOR: Final = "vector"
KNOWN: Final = (*COLUMNS, VECTOR, "thumbnail_type", "thumbnail")
PROBLEM: Final = "\0"  # no column's name: why a row cannot be read, a sentence
SHOWN: Final = 5  # columns that a sentence lists
BATCH_ROWS: Final = 1_000  # of a Parquet file at a time

Cells = dict[str, Any]


@dataclass(frozen=True, slots=True)
class ItemTable:
    """The rows of one file, read as they are asked for, once."""

    path: Path
    rows: Iterator[Cells]  # with ``vector``, where ``has_vectors``
    has_vectors: bool
    count: int | None = None  # rows, where the file says so
    provenance: Provenance | None = None  # of an export


def open_table(path: Path) -> ItemTable:
    """Return the rows of a ``.csv``, ``.jsonl`` or ``.parquet``.

    Raises:
        SourceError: there is no such file, it is not what its name says, or it has no ids. Faults
            further down are raised when the rows come to them.
    """
    opener = {".csv": _open_csv, ".jsonl": _open_jsonl, ".parquet": _open_parquet}.get(path.suffix)
    if opener is None:
        raise SourceError(f"{path} is not a gallery, export, .parquet, .csv, .jsonl or .npy")
    if not path.is_file():
        raise SourceError(f"{path} is not there, or is not a file")
    return opener(path)


def _open_csv(path: Path) -> ItemTable:
    lines = _csv_lines(path)
    names = next(lines, [])
    numbers = _number_columns(path, names)
    rows = (_csv_cells(names, numbers, cells) for cells in lines if cells)  # a blank line is no row
    return ItemTable(path, rows, has_vectors=bool(numbers) or VECTOR in names)


def _csv_lines(path: Path) -> Iterator[list[str]]:
    line = 0
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            for cells in reader:
                yield cells
                line = reader.line_num + 1
    except (csv.Error, OSError, ValueError) as error:
        raise _unreadable(path, line, error) from error


def _csv_cells(names: list[str], numbers: Sequence[str], cells: list[str]) -> Cells:
    row: Cells = dict(zip(names, cells, strict=False))
    if numbers:
        row[VECTOR] = [row.pop(name, "") for name in numbers]
    elif VECTOR in row:
        row[VECTOR] = _json(row[VECTOR])
    if len(cells) != len(names):
        row[PROBLEM] = f"its line has {len(cells)} cells, the heading {len(names)}"
    return row


def _open_jsonl(path: Path) -> ItemTable:
    rows = _jsonl_rows(path)
    first = next(rows, None)
    members = ["id"] if first is None else list(first)  # of an empty table
    unknown = _number_columns(path, members)
    if unknown:
        raise SourceError(f"{path}: unknown members, such as {quoted(unknown[0])}")
    return ItemTable(
        path, rows if first is None else chain([first], rows), has_vectors=VECTOR in members
    )


def _jsonl_rows(path: Path) -> Iterator[Cells]:
    line = 0
    try:
        with path.open("rb") as file:
            for text in file:
                line += 1
                if text.strip():
                    yield _jsonl_cells(text)
    except (OSError, ValueError, RecursionError) as error:
        raise _unreadable(path, line, error) from error


def _unreadable(path: Path, line: int, error: Exception) -> SourceError:
    return SourceError(
        f"{path}, line {line}: {error}" if line > 1 else f"cannot read {path}: {error}"
    )


def _jsonl_cells(line: bytes) -> Cells:
    cells = json.loads(line)
    if not isinstance(cells, dict):
        raise ValueError("not a JSON object")  # noqa: TRY004 (damage, not a bug)
    return cells


def _open_parquet(path: Path) -> ItemTable:
    pyarrow, parquet = load_pyarrow(SourceError)
    faults = (pyarrow.ArrowException, OSError, ValueError)
    try:
        source = parquet.ParquetFile(path)
        schema = source.schema_arrow
        provenance = _parquet_provenance(schema.metadata)
    except faults as error:
        raise SourceError(f"cannot read {path}: {str(error).splitlines()[0]}") from error
    numbers = _number_columns(path, schema.names)

    def rows() -> Iterator[Cells]:
        try:
            with source:
                for batch in source.iter_batches(batch_size=BATCH_ROWS):
                    yield from _batch_cells(pyarrow, batch, numbers)
        except faults as error:
            raise SourceError(f"cannot read {path}: {str(error).splitlines()[0]}") from error

    has_vectors = bool(numbers) or VECTOR in schema.names
    return ItemTable(
        path, rows(), has_vectors, count=source.metadata.num_rows, provenance=provenance
    )


def _parquet_provenance(metadata: dict[bytes, bytes] | None) -> Provenance | None:
    text = (metadata or {}).get(PROVENANCE_KEY)
    return None if text is None else Provenance.from_json(json.loads(text))


def _batch_cells(pyarrow: Any, batch: Any, numbers: Sequence[str]) -> Iterator[Cells]:
    names = [name for name in KNOWN if name in batch.schema.names and name != VECTOR]
    columns: dict[str, Sequence[Any]] = {name: batch.column(name).to_pylist() for name in names}
    if numbers:
        columns[VECTOR] = list(
            zip(*[batch.column(name).to_pylist() for name in numbers], strict=True)
        )
    elif VECTOR in batch.schema.names:
        columns[VECTOR] = _lists(pyarrow, batch.column(VECTOR))
    for row in range(batch.num_rows):
        yield {name: cells[row] for name, cells in columns.items()}


def _lists(pyarrow: Any, column: Any) -> Sequence[Any]:
    """Return a row of numbers per cell; quickly where all are there and of one length."""
    lists = pyarrow.types.is_fixed_size_list(column.type)
    if lists and not column.null_count and not column.flatten().null_count:
        flat = column.flatten().to_numpy(zero_copy_only=False)
        rows: Sequence[Any] = flat.reshape(len(column), column.type.list_size)
        return rows
    if pyarrow.types.is_string(column.type):
        return [_json(cell) for cell in column.to_pylist()]
    cells: Sequence[Any] = column.to_pylist()
    return cells


def _number_columns(path: Path, names: Sequence[str]) -> list[str]:
    if "id" not in names:
        found = f"; it has {', '.join(map(quoted, names[:SHOWN]))}" if names else ""
        commas = " (cells are separated by commas)" if len(names) == 1 else ""
        raise SourceError(f"{path} has no column id{found}{commas}")
    if len(set(names)) != len(names):
        raise SourceError(f"{path} has two columns of the same name")
    numbers = [name for name in names if name not in KNOWN]
    if numbers and VECTOR in names:
        raise SourceError(
            f"{path} has both a column vector and {quoted(numbers[0])}, which is not known; "
            "put what else belongs to an item into metadata"
        )
    return numbers


def _json(text: Any) -> Any:
    try:
        return json.loads(text)
    except (ValueError, TypeError, RecursionError):
        return None
