"""A Parquet file in, its columns' names and rows of values out."""

import math
from pathlib import Path
from typing import Any

from dataset.errors import DatasetError
from dataset.tables.csv_table import RawTable


def read_parquet(path: Path) -> RawTable:
    """Return the rows of the Parquet file ``path``; missing values and NaN are ``None``.

    Raises:
        DatasetError: pyarrow is not installed, or the file cannot be read or is damaged.
    """
    pyarrow, parquet = load_pyarrow(DatasetError)
    try:
        file = path.open("rb")
    except OSError as error:
        raise DatasetError(f"cannot read {path}: {error.strerror}") from error
    with file:
        try:
            table = parquet.ParquetFile(file).read()
            columns = [[_value(cell) for cell in column.to_pylist()] for column in table.columns]
        except (pyarrow.ArrowException, OSError, ValueError) as error:  # ValueError: text not UTF-8
            reason = str(error).splitlines()[0].rstrip(".")
            raise DatasetError(f"{path} is not a Parquet file, or is damaged: {reason}") from error
    return RawTable(
        path=path,
        names=tuple(name.strip() for name in table.column_names),
        rows=list(zip(*columns, strict=True)),
        numbers=range(1, table.num_rows + 1),
        unit="row",
    )


def load_pyarrow(missing: type[Exception]) -> tuple[Any, Any]:
    """Return ``pyarrow`` and ``pyarrow.parquet``; raise ``missing`` where they are not there."""
    try:
        import pyarrow  # noqa: PLC0415 - an extra that few need
        from pyarrow import parquet  # noqa: PLC0415
    except ImportError as error:
        raise missing("Parquet needs pyarrow: pip install 'lookalike[parquet]'") from error
    return pyarrow, parquet


def _value(cell: Any) -> Any:
    return None if isinstance(cell, float) and math.isnan(cell) else cell
