"""Brings an older gallery up to the present format, in place. A database file in, the same out.

One transaction makes every change, so a killed or failed migration leaves the older format whole.
Programs for the older format refuse the newer one when they open it; one that has the gallery open
already must be stopped first, since it would go on without writing to the metadata index.
"""

from pathlib import Path
from typing import Final
from uuid import uuid4

import apsw

from index.errors import StorageError
from index.items.metadata_index import METADATA_INDEX_TABLE, fill_metadata_index
from index.store.schema import FORMAT_VERSION, check_format
from index.store.sqlite.database import Database

READABLE_VERSION: Final = 2  # of it and later ones all can be read as they are


def migrate(path: Path) -> None:
    """Give the database at ``path`` the present format; nothing is done when it has it.

    One of version 2 that cannot be written to stays as it is: filters then read its items.

    The metadata index is written anew: some 8 seconds per million items with two members
    of metadata each.

    Raises:
        GalleryFolderError: not a gallery's database, or of an unknown or newer version.
        DiskFullError, StorageError: it cannot be written; it is as it was.
    """
    database = Database(path)
    try:
        with database.reading() as reader:
            version = check_format(reader, path)
        if version < FORMAT_VERSION:
            if database.read_only_reason is not None:
                if version >= READABLE_VERSION:
                    return
                raise StorageError(
                    f"{path} has format version {version}, and is brought to {FORMAT_VERSION} when "
                    f"it is opened; but {database.read_only_reason}"
                )
            with database.writing() as writer:
                version = check_format(writer, path)  # another process may have done it
                if version < FORMAT_VERSION:
                    if version == 1:
                        _from_1_to_2(writer)
                    _from_2_to_3(writer)
    finally:
        database.close()


def _from_1_to_2(writer: apsw.Connection) -> None:
    new = {"database_id": uuid4().hex, "log_start": "0"}
    writer.executemany("INSERT INTO meta VALUES (?, ?)", new.items())


def _from_2_to_3(writer: apsw.Connection) -> None:
    writer.execute("DROP TABLE IF EXISTS terms")
    writer.execute(METADATA_INDEX_TABLE)
    fill_metadata_index(writer)
    writer.pragma("user_version", FORMAT_VERSION)
