"""The columns of a table that are neither path, label nor split in, metadata of its items out."""

import datetime
import decimal
import math
import re
from collections.abc import Callable, Sequence
from typing import Any, Final

from dataset.findings import Findings
from dataset.tables.csv_table import RawTable, is_empty

# Not with zeros before it, which a number of an article may have, nor too long to be exact.
_INTEGER: Final = re.compile(r"-?(0|[1-9][0-9]{0,17})", re.ASCII)
_FLOAT: Final = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-][0-9]+)?", re.ASCII)
_WITH_COMMA: Final = re.compile(r"-?(0|[1-9][0-9]*)(,[0-9]+)?", re.ASCII)
_INT64: Final = 2**63
_NOT_TEXT: Final = re.compile("[\0\ud800-\udfff]")  # that a database cannot hold
DEPTH: Final = 12  # of lists and objects inside one another


def read_metadata(table: RawTable, used: set[int], findings: Findings) -> list[dict[str, Any]]:
    """Return the metadata of each row: numbers as numbers, empty cells left out.

    A column of text is one of numbers where every cell of it is a number, written without zeros
    before it; with a comma for the point where cells are parted by ``;``.
    """
    metadata: list[dict[str, Any]] = [{} for _ in table.rows]
    seen: set[str] = set()
    for column, name in enumerate(table.names):
        if column in used:
            continue
        cells = [row[column] for row in table.rows]
        if all(is_empty(cell) for cell in cells):
            continue
        if not name or name in seen:
            what = "that has another's name" if name else "without a name"
            findings.add(f"a column {what}: left out", name or f"column {column + 1}")
            continue
        seen.add(name)
        read = _reader(table, name, cells, findings)
        for row, cell in enumerate(cells):
            if not is_empty(cell):
                try:
                    metadata[row][_clean_text(name)] = read(cell)
                except (ValueError, OverflowError):
                    findings.add(
                        f"a cell of {name!r} that metadata cannot hold: left out", table.place(row)
                    )
    return metadata


def _reader(
    table: RawTable, name: str, cells: Sequence[Any], findings: Findings
) -> Callable[[Any], Any]:
    """Return what turns a cell of the column into metadata."""
    if not table.separator:
        return _json_value
    filled = [cell.strip() for cell in cells if not is_empty(cell)]
    if all(_INTEGER.fullmatch(cell) for cell in filled):
        return int
    if all(_FLOAT.fullmatch(cell) for cell in filled):
        return _float
    if table.separator == ";" and all(_WITH_COMMA.fullmatch(cell) for cell in filled):
        findings.add("a column of numbers with a comma for the point: read as numbers", name)
        return lambda cell: _float(cell.replace(",", "."))
    return _clean_text


def _clean_text(cell: str) -> str:
    return _NOT_TEXT.sub("\ufffd", cell.strip())


def _float(cell: str) -> int | float:
    if _INTEGER.fullmatch(cell.strip()):
        return int(cell)
    return _finite(float(cell))


def _finite(number: float) -> float:
    if not math.isfinite(number):
        raise ValueError("not a finite number")
    return number


def _json_value(cell: Any, depth: int = 0) -> Any:
    """Return a value of a Parquet file as JSON would hold it.

    Raises:
        ValueError: it would not.
    """
    value: Any
    match cell:
        case bool():
            value = cell
        case str():
            value = _clean_text(cell)
        case int() if -_INT64 <= cell < _INT64:
            value = cell
        case float() | decimal.Decimal():
            value = _finite(float(cell))
        case datetime.date() | datetime.time():
            value = cell.isoformat()
        case list() if depth < DEPTH:
            value = [_json_value(one, depth + 1) for one in cell if one is not None]
        case dict() if depth < DEPTH:
            filled = {_clean_text(str(name)): one for name, one in cell.items() if one is not None}
            value = {name: _json_value(one, depth + 1) for name, one in filled.items()}
        case _:
            raise ValueError("no value of JSON")
    return value
