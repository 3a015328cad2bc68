"""A CSV or Parquet table of paths, and perhaps labels, splits and more, in; a list of files out."""

import os
import posixpath
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from dataset.errors import DatasetError
from dataset.findings import Findings
from dataset.groups import FOLDER, groups_of_paths, is_pattern, with_groups
from dataset.listing import ListedFile, Listing, Part
from dataset.names import PART_NAMES, normalize_label, parse_part, report_similar_names
from dataset.tables.columns import (
    GROUP,
    LABEL,
    PATH,
    SPLIT,
    Columns,
    find_column,
    find_columns,
    has_path,
)
from dataset.tables.csv_table import RawTable, is_empty, read_csv
from dataset.tables.metadata import read_metadata
from dataset.tables.parquet import read_parquet

CSV: Final = (".csv", ".tsv", ".tab")
PARQUET: Final = (".parquet", ".pq")
MOST_MISSING: Final = 1 / 3  # of the files a table names; beyond it, it is not this folder's table
SHOWN: Final = 3  # rows or values that are named in a sentence


def is_table(source: Path) -> bool:
    """Return whether ``source`` is to be read as a table, by its name."""
    return source.suffix.lower() in (*CSV, *PARQUET) and not source.is_dir()


def list_table(table: Path, *, group: str | None = None) -> Listing:
    """Return the files of ``table``, in its order; relative paths start at the table's folder.

    A file that comes twice is taken once, with what is said first of it, but in the part that has
    the best right to it. Whole numbers are labels and groups as text.

    Args:
        table: its path.
        group: as in ``dataset.source``.

    Raises:
        DatasetError: the table is missing, damaged or empty, contradicts itself, has cells
            that are no paths, labels or parts, or most of its files are not there.
    """
    findings = Findings()
    if table.suffix.lower() in PARQUET:
        raw = read_parquet(table)
    else:
        raw = read_csv(table, findings, is_header=has_path)
    columns = find_columns(raw)
    if not raw.rows:
        raise DatasetError(f"{table} has no rows; one per image was expected")
    paths = [row[columns.path] for row in raw.rows]
    names = _texts(raw, columns.label, LABEL)
    group_column = _group_column(raw, columns, group)
    group_texts = _texts(raw, group_column, GROUP)
    parts = _parts(raw, columns, findings)
    _check_paths(raw, paths)
    metadata = read_metadata(raw, columns.used, findings)
    report_similar_names((name for name in names if name is not None), findings)
    files: dict[str, ListedFile] = {}  # by their real paths
    missing: list[str] = []
    folder = str(table.parent)
    real_folders: dict[str, str] = {}
    for row, cell in enumerate(paths):
        if is_empty(cell):
            findings.add("a row without a path: left out", raw.place(row))
            continue
        found = _find(folder, cell)
        if found is None:
            missing.append(cell)
            continue
        path = os.path.join(folder, found)
        file = ListedFile(
            place=path,
            key=_key(folder, found),
            label=_normalized(names[row]),
            part=parts[row],
            group=_normalized(group_texts[row]),
            metadata=metadata[row],
        )
        real = _real(path, real_folders)
        files[real] = _merged(files[real], file, findings) if real in files else file
    _report_missing(table, missing, len(files), findings)
    listed = tuple(files.values())
    if group_column is not None:
        by = f"the column {raw.names[group_column]!r}"
        listed = with_groups(listed, [file.group for file in listed], findings, by=by)
    elif group is not None and listed:
        steps = [tuple(file.key.split("/")) for file in listed]
        groups = groups_of_paths(group, steps, table, classes=False)
        listed = with_groups(listed, groups, findings, by=f"--group {group}")
    return Listing(source=table, files=listed, findings=findings)


def _check_paths(raw: RawTable, paths: Sequence[Any]) -> None:
    for row, cell in enumerate(paths):
        if not is_empty(cell) and (not isinstance(cell, str) or "\0" in cell):
            raise DatasetError(
                f"{raw.place(row)} has the {PATH} {cell!r}; a file's path was expected"
            )


def _texts(raw: RawTable, column: int | None, what: str) -> list[str | None]:
    """Return the cell of each row as text, ``None`` where there is none."""
    if column is None:
        return [None] * len(raw.rows)
    texts: list[str | None] = []
    wrong: list[str] = []
    for number, row in enumerate(raw.rows):
        cell = row[column]
        if isinstance(cell, float) and cell.is_integer():  # so pandas writes whole numbers
            cell = int(cell)
        if is_empty(cell):
            texts.append(None)
        elif isinstance(cell, str) or type(cell) is int:  # True is no label
            texts.append(str(cell))
        else:
            texts.append(None)
            wrong.append(f"{raw.place(number)} has the {what} {cell!r}")
    if wrong:
        raise DatasetError(f"{_first_sentences(wrong)}; text or a whole number was expected")
    return texts


def _group_column(raw: RawTable, columns: Columns, group: str | None) -> int | None:
    """Return the column that says which photos show one thing; ``None``: paths say it, or nobody.

    Raises:
        DatasetError: there is no column of that name.
    """
    if group is None:
        return columns.group
    column = find_column(raw, group)
    if column is None and group != FOLDER and not is_pattern(group):
        raise DatasetError(
            f"{raw.path} has no column {group!r} for --group; its columns are "
            f"{', '.join(map(repr, raw.names))}"
        )
    return column


def _parts(raw: RawTable, columns: Columns, findings: Findings) -> list[Part | None]:
    """Return the part of each row; rows that name none are for training if others do name one."""
    if columns.split is None or all(is_empty(row[columns.split]) for row in raw.rows):
        return [None] * len(raw.rows)
    parts: list[Part | None] = []
    unknown: dict[str, list[str]] = {}
    for number, row in enumerate(raw.rows):
        cell = row[columns.split]
        if is_empty(cell):
            findings.add(f"a row without a {SPLIT}: used for training", raw.place(number))
            parts.append(Part.TRAIN)
            continue
        part = parse_part(cell) if isinstance(cell, str) else None
        if part is None:
            unknown.setdefault(repr(cell), []).append(raw.place(number))
        parts.append(part)
    if unknown:
        sentences = [f"{places[0]} has the {SPLIT} {cell}" for cell, places in unknown.items()]
        usual = ", ".join(names[0] for names in PART_NAMES.values())
        raise DatasetError(f"{_first_sentences(sentences)}; one of {usual} was expected")
    return parts


def _find(folder: str, cell: str) -> str | None:
    r"""Return a cell as a path from ``folder``; ``\`` parts folders where no file is called so."""
    for spelling in (cell, cell.strip(), cell.replace("\\", "/"), cell.strip().replace("\\", "/")):
        if os.path.exists(os.path.join(folder, spelling)):
            return spelling
    return None


def _key(folder: str, found: str) -> str:
    """Return a path as it is seen from the table's folder, or whole where it lies elsewhere."""
    key = posixpath.normpath(found)
    inside = f"{os.path.abspath(folder)}/"
    return key.removeprefix(inside) if key.startswith("/") else key


def _real(path: str, real_folders: dict[str, str]) -> str:
    """Return the real path, looking at each folder once."""
    if os.path.islink(path):
        return os.path.realpath(path)
    folder, name = os.path.split(path)
    if folder not in real_folders:
        real_folders[folder] = os.path.realpath(folder)
    return os.path.join(real_folders[folder], name)


def _merged(first: ListedFile, again: ListedFile, findings: Findings) -> ListedFile:
    """Return one of two rows of a file."""
    if first.label != again.label:
        findings.add(
            "a file with two labels: the first one counts",
            f"{first.key}: {first.label!r} and {again.label!r}",
        )
    else:
        findings.add("a file that a table names twice: taken once", first.key)
    if first.part is None or again.part is None or first.part >= again.part:
        return first
    findings.add(
        "a file in two parts: kept in the one that is evaluated on",
        f"{first.key}: {first.part.name.lower()} and {again.part.name.lower()}",
    )
    return replace(first, part=again.part)


def _report_missing(table: Path, missing: list[str], there: int, findings: Findings) -> None:
    total = len(missing) + there
    if missing and len(missing) > MOST_MISSING * total:
        raise DatasetError(
            f"{len(missing)} of the {total} files that {table} names are not there, such as "
            f"{missing[0]!r}; their paths start at {table.parent}: put the table there where its "
            "files are, or correct its paths"
        )
    for cell in missing:
        findings.add("a file that a table names is not there", cell)


def _normalized(text: str | None) -> str | None:
    return None if text is None else normalize_label(text)


def _first_sentences(sentences: list[str]) -> str:
    more = f", and {len(sentences) - SHOWN} more like these" if len(sentences) > SHOWN else ""
    return "; ".join(sentences[:SHOWN]) + more
