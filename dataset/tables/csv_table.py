"""A CSV file in any of its usual dialects in, its header and rows of text out.

What the file does not say is guessed, and the guess is reported: its encoding where it is no UTF-8,
and what stands between its cells.
"""

import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from dataset.errors import DatasetError
from dataset.findings import Findings

SEPARATORS: Final = ",;\t|"
MARKED: Final = (  # encodings by their byte order mark; UTF-32's begins like UTF-16's
    (b"\xef\xbb\xbf", "utf-8-sig"),
    (b"\xff\xfe\0\0", "utf-32"),
    (b"\0\0\xfe\xff", "utf-32"),
    (b"\xff\xfe", "utf-16"),
    (b"\xfe\xff", "utf-16"),
)
GUESSED: Final = {
    "cp1252": "Windows-1252 (cp1252), which may be wrong for letters with accents",
    "utf-16-le": "UTF-16 without a byte order mark",
    "utf-16-be": "UTF-16 without a byte order mark",
}
LOOKED_AT: Final = 4096  # bytes
ZEROS_OF_UTF16: Final = 0.4  # share of the high bytes, where most of the text is ASCII
SHOWN: Final = 3  # lines that are named in a sentence


@dataclass(frozen=True, slots=True, kw_only=True)
class RawTable:
    """A header and rows, their cells unchecked."""

    path: Path
    names: tuple[str, ...]
    rows: Sequence[Sequence[Any]]  # each as long as names
    numbers: Sequence[int]  # of the rows, as people count them
    unit: str  # what a row is called: "line" or "row"
    separator: str = ""  # of a CSV

    def place(self, row: int) -> str:
        """Return where the row at position ``row`` is, for sentences."""
        return f"{self.unit} {self.numbers[row]} of {self.path}"


def is_empty(cell: Any) -> bool:
    """Return whether a cell says nothing."""
    return cell is None or (isinstance(cell, str) and not cell.strip())


def read_csv(
    path: Path, findings: Findings, *, is_header: Callable[[Sequence[str]], bool]
) -> RawTable:
    """Return the cells of the CSV file ``path``; blank lines and empty last columns are left out.

    Args:
        path: of the file.
        findings: get what was guessed.
        is_header: whether these are the names of columns; tells the separator.

    Raises:
        DatasetError: it cannot be read, is empty or no CSV, or rows do not fit its header.
    """
    text = _text(path, findings)
    text, stated = _without_statement(text)
    if not text.strip():
        raise DatasetError(f"{path} is empty; a first line with the names of columns was expected")
    separator = stated or _separator(text, is_header)
    reader = csv.reader(
        io.StringIO(text, newline=""),
        delimiter=separator,
        strict=True,
        skipinitialspace=f'{separator} "' in text,  # else the quotes would be the cell's own
    )
    names: list[str] = []
    rows: list[list[str]] = []
    numbers: list[int] = []
    odd: list[str] = []
    try:
        for line in reader:
            cells = _without_empty_end(line)
            if not cells:
                continue
            if not names:
                names = [cell.strip() for cell in cells]
                continue
            cells += [""] * (len(names) - len(cells))  # as spreadsheets leave them out
            if len(cells) > len(names):
                odd.append(f"line {reader.line_num} has {len(cells)}")
            rows.append(cells)
            numbers.append(reader.line_num)
    except csv.Error as error:
        raise DatasetError(
            f"line {reader.line_num} of {path} is not a CSV file: {error}"
        ) from error
    if odd and is_header(names):  # else its first line may not be the header at all
        more = f", and {len(odd) - SHOWN} lines more" if len(odd) > SHOWN else ""
        columns = f"{len(names)} column{'s' if len(names) > 1 else ''}"
        raise DatasetError(
            f"{path} has {columns}, but {', '.join(odd[:SHOWN])} cells{more}; "
            f"put quotes around cells that hold {separator!r}"
        )
    return RawTable(
        path=path,
        names=tuple(names),
        rows=rows,
        numbers=numbers,
        unit="line",
        separator=separator,
    )


def _without_statement(text: str) -> tuple[str, str | None]:
    """Return the text without a first line ``sep=;``, as Excel writes it, and what that states."""
    first, _, rest = text.partition("\n")
    first = first.strip().strip('"')
    if first.lower().startswith("sep=") and len(first) == len("sep=;"):
        return rest, first[-1]
    return text, None


def _separator(text: str, is_header: Callable[[Sequence[str]], bool]) -> str:
    """Return what parts the first line into names of columns, or else into most cells."""
    headers: dict[str, list[str]] = {}
    for separator in SEPARATORS:
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
        try:
            headers[separator] = next((cells for cells in reader if any(cells)), [])
        except csv.Error:
            headers[separator] = []
    return max(
        SEPARATORS, key=lambda separator: (is_header(headers[separator]), len(headers[separator]))
    )


def _without_empty_end(cells: list[str]) -> list[str]:
    length = len(cells)
    while length and not cells[length - 1].strip():
        length -= 1
    return cells[:length]


def _text(path: Path, findings: Findings) -> str:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DatasetError(f"cannot read {path}: {error.strerror}") from error
    encoding = _encoding(data)
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        raise DatasetError(
            f"{path} is not text in UTF-8, UTF-16 or Windows-1252; save the table as UTF-8"
        ) from error
    if "\0" in text.partition("\n")[0]:
        raise DatasetError(f"{path} is not text, and so not a table; a CSV file was expected")
    if encoding in GUESSED:
        findings.add(f"a table that is not UTF-8: read as {GUESSED[encoding]}", path.name)
    return text.lstrip("\ufeff")  # a second mark, as a program of its own adds one


def _encoding(data: bytes) -> str:
    for mark, encoding in MARKED:
        if data.startswith(mark):
            return encoding
    start = data[:LOOKED_AT]
    for encoding, zeros in (("utf-16-le", start[1::2]), ("utf-16-be", start[::2])):
        if zeros.count(0) > len(zeros) * ZEROS_OF_UTF16:
            return encoding
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return "cp1252"
    return "utf-8"
