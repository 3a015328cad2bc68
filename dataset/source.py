"""The folder or table that ``--data`` names in, its listing out."""

from pathlib import Path

from dataset.folders.folder import list_folder
from dataset.listing import Listing
from dataset.tables.table import is_table, list_table


def list_source(source: Path, *, group: str | None = None) -> Listing:
    """Return the files of a folder, or of a ``.csv``, ``.tsv`` or ``.parquet`` table.

    Args:
        source: the folder or table.
        group: what says which photos show one thing: ``folder``, a pattern of files' names, or a
            column of a table; ``None``: a table's column ``group``, if it has one.

    Raises:
        DatasetError: it is missing, cannot be read, holds no images, or contradicts itself.
    """
    read = list_table if is_table(source) else list_folder
    return read(source, group=group)
