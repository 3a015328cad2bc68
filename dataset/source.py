"""What a person names with ``--data``, a folder or a table, in; its listing out."""

from pathlib import Path

from dataset.folder import list_folder
from dataset.listing import Listing
from dataset.table import is_table, list_table


def list_source(source: Path) -> Listing:
    """Return the files of a folder, or of a ``.csv``, ``.tsv`` or ``.parquet`` table.

    Raises:
        DatasetError: it is missing, cannot be read, holds no images, or says two things at once.
    """
    return list_table(source) if is_table(source) else list_folder(source)
