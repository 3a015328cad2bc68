"""Room that a gallery no longer needs, given back to the disk. A folder in, bytes saved out."""

from contextlib import closing
from pathlib import Path
from typing import Final

import apsw

from index.database import BUSY_TIMEOUT_MS, SYNC_FULL, check_sqlite_version, folder_bytes, sentences
from index.schema import DATABASE_NAME

FREE_SHARE: Final = 0.1  # of the pages; fewer free ones are left for what is stored next


def give_back_space(folder: Path) -> int:
    """Empty the write-ahead log, and drop free pages where they are many; return the bytes saved.

    Dropping free pages writes the whole database anew: that takes as much room again meanwhile, and
    whoever writes has to wait. A log that somebody still reads is left as it is.

    Raises:
        DiskFullError, StorageError: the database is as it was.
    """
    check_sqlite_version()
    path = folder / DATABASE_NAME
    before = folder_bytes(folder)
    with sentences(path):
        connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE)
        with closing(connection):
            connection.set_busy_timeout(BUSY_TIMEOUT_MS)
            connection.pragma("synchronous", SYNC_FULL)
            if connection.pragma("freelist_count") > FREE_SHARE * connection.pragma("page_count"):
                connection.execute("VACUUM")
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    return before - folder_bytes(folder)
