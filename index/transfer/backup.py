"""Copies of a gallery's database: taken while it is being written to, and made a gallery again.

A copy is a gallery folder of its own, without the generations of the search structure, which are a
cache. It has a database id of its own too, so that nothing that was made from the one database can
ever be taken for something of the other.
"""

import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Final
from uuid import uuid4

import apsw

from files.durable import sync_file
from index.errors import DiskFullError, GalleryFolderError
from index.gallery import Gallery
from index.maintenance.verify import store_problems
from index.store.create import fill_folder
from index.store.migration import migrate
from index.store.schema import DATABASE_NAME, check_format, read_meta
from index.store.sqlite.database import (
    BUSY_TIMEOUT_MS,
    Database,
    check_sqlite_version,
    translate_errors,
)
from index.store.sqlite.file_access import LOG, Access, access_to, beside, connect
from index.store.sqlite.write_ahead_log import is_in_the_way, too_long
from index.store.store import Store
from index.store.vacuum import check_room

STEP_PAGES: Final = 1024  # copied at a time: 4 MiB, between which an interrupt gets through
COPIED: Final = 0.9  # share of the work when all pages are copied; the rest is checking them


def back_up(gallery: Gallery, folder: Path, *, on_progress: Callable[[float], None]) -> None:
    """Write what ``gallery`` holds at this moment to ``folder``, checked, or nothing at all.

    SQLite's online backup, within one read transaction: everybody goes on writing meanwhile, and
    none of what they write gets into the copy. The write-ahead log grows until the copy is done.
    (It ends with a StorageError when that would fill the disk.)

    Args:
        gallery: any number of threads and processes may be writing to it.
        folder: must not exist, or be empty; parents are made.
        on_progress: called with the share of the work that is done, in [0, 1].

    Raises:
        GalleryFolderError: something is in the way of ``folder``, or the gallery is damaged.
        DiskFullError, StorageError: the copy cannot be written. In every case none is left.
    """
    path = gallery.folder / DATABASE_NAME
    with translate_errors(path):
        reader = connect(path, access_to(path))
    _copy(reader, path, folder, on_progress, database_id=gallery.binding.database_id)


def restore(backup: Path, folder: Path, *, on_progress: Callable[[float], None]) -> None:
    """Make the gallery ``folder`` of what ``back_up`` wrote; the backup stays as it is.

    Its search structure is not rebuilt: until someone does, everything is scanned.

    Args:
        backup: a backup, also on a disk that cannot be written to.
        folder: must not exist, or be empty; parents are made.
        on_progress: called with the share of the work that is done, in [0, 1].

    Raises:
        GalleryFolderError: ``backup`` is none, or damaged; or something is in the way.
        DiskFullError, StorageError: the gallery cannot be written. In every case none is left.
    """
    path = backup / DATABASE_NAME
    if not path.is_file():
        raise GalleryFolderError(f"{backup} is not a backup: no {DATABASE_NAME} in it")
    # Nobody writes to a backup, and SQLite reads a file that it need not lock from any disk; with
    # a write-ahead log beside it, somebody did open it as a gallery, and perhaps still does.
    quiet = not beside(path, LOG).exists()
    with translate_errors(path):
        reader = connect(path, Access.FROZEN if quiet else access_to(path))
    _copy(reader, path, folder, on_progress)


def _copy(
    reader: apsw.Connection,
    source: Path,
    folder: Path,
    on_progress: Callable[[float], None],
    *,
    database_id: str | None = None,
) -> None:
    check_sqlite_version()
    with closing(reader):
        with translate_errors(source):
            reader.set_busy_timeout(BUSY_TIMEOUT_MS)
            check_format(reader, source)
            found = read_meta(reader, source).database_id
            size = reader.pragma("page_count") * reader.pragma("page_size")
        if database_id not in (None, found):
            raise GalleryFolderError(
                f"{source.parent} is another gallery now than the one that was opened"
            )

        check_room(folder, size, f"a copy of {source.parent}")

        def write(path: Path) -> None:
            on_progress(0.0)
            with translate_errors(folder / DATABASE_NAME):
                _copy_pages(reader, source, path, on_progress)
            try:
                migrate(path)
                _give_identity(path)
                _check(path)
            except GalleryFolderError as error:
                raise GalleryFolderError(
                    f"{source.parent} is damaged and was not copied: {error}"
                ) from error
            with path.open("rb") as file:  # the last to close it has emptied its write-ahead log
                sync_file(file)
            on_progress(1.0)  # before the copy has its name: whoever stops it now finds none

        try:
            fill_folder(folder, write)
        except DiskFullError as error:
            raise DiskFullError(
                f"no room left to copy {source.parent} to {folder}; nothing of the copy is left"
            ) from error


def _copy_pages(
    reader: apsw.Connection, source: Path, path: Path, on_progress: Callable[[float], None]
) -> None:
    flags = apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE
    with closing(apsw.Connection(str(path), flags=flags)) as copy:
        copy.pragma("journal_mode", "off")  # whatever happens, an unfinished copy is thrown away
        # Without a transaction around the steps, each write of another process would make SQLite
        # begin anew, and under steady writes the copy would never end.
        reader.execute("BEGIN")
        began = time.monotonic()
        try:
            reader.execute("SELECT count(*) FROM meta").get  # noqa: B018 (now the state is chosen)
            with copy.backup("main", reader, "main") as backup:
                while not backup.done:
                    if is_in_the_way(source, since=began):
                        raise too_long(source)
                    backup.step(STEP_PAGES)
                    done = 1 - backup.remaining / max(1, backup.page_count)
                    on_progress(COPIED * done)
        finally:
            reader.execute("ROLLBACK")


def _give_identity(path: Path) -> None:
    with closing(Database(path)) as database, database.writing() as writer:
        writer.execute("UPDATE meta SET value = ? WHERE name = 'database_id'", (uuid4().hex,))


def _check(path: Path) -> None:
    with closing(Store.open(path.parent)) as store:
        problems = store_problems(store)
    if problems:
        more = f" (and {len(problems) - 1} faults more)" if problems[1:] else ""
        raise GalleryFolderError(problems[0] + more)
