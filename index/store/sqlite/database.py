"""Opens SQLite files safely, and turns its faults into ours. A path in, connections out.

SQLite before 3.51.3 can lose commits when two connections write and checkpoint a write-ahead log at
the same time (the "WAL-reset" fault), so older ones are refused.
"""

import errno
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import apsw

from index.errors import DiskFullError, GalleryFolderError, ReadOnlyError, StorageError
from index.store.sqlite.file_access import Access, access_to, connect, why_read_only
from index.store.sqlite.file_identity import FileIdentity
from index.store.sqlite.write_ahead_log import (
    LONG_BYTES,
    Checkpointer,
    ReadTimer,
    too_long,
    truncate_wal,
)

SAFE_SQLITE: Final = (3, 51, 3)
BUSY_TIMEOUT_MS: Final = 10_000  # how long to wait for another process's write
RESCUE_TIMEOUT_MS: Final = 1_000  # likewise, and for readers, with a log that was torn away
CACHE_KIB: Final = 16 * 1024  # page cache per connection
SYNC_FULL: Final = 2  # PRAGMA synchronous: every commit is on the disk before it returns
NO_ROOM: Final = (errno.ENOSPC, errno.EDQUOT)
SYNC_FAULTS: Final = (apsw.SQLITE_IOERR_FSYNC, apsw.SQLITE_IOERR_DIR_FSYNC)


class Database:
    """One SQLite file in WAL mode: one connection that writes, and as many that read as are needed.

    An apsw connection serves one thread at a time. Writers take turns at a lock; each reading block
    borrows a connection from a pool that grows to the number of concurrent readers.

    A database that is no longer where it was opened (the folder was moved, deleted, replaced or
    unmounted) takes no writes either, until the very same files are back: it is looked for before
    every write, and after the commit, before anybody hears of it.

    An I/O error while writing is never tried again: after a failed fsync the kernel may call pages
    clean that never reached the disk ("fsyncgate", PostgreSQL 2018), so a second try that succeeds
    proves nothing. From then on this object only reads, and leaves the files as they are.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.read_only_reason: str | None = None  # a sentence
        self._displaced: str | None = None  # that reason, when it is the place of the files
        self._closed = False
        self._write_lock = threading.Lock()
        try:
            self._access = access_to(path)
            if self._access is not Access.WRITABLE:
                self.read_only_reason = why_read_only(path)
        except OSError as error:
            raise StorageError(f"{path} cannot be opened: {error.strerror}") from error
        self._writer = _prepared(path, self._access, query_only=self._access is not Access.WRITABLE)
        self._writer.set_wal_hook(self._note_log_pages)
        self._log_pages = 0  # in the write-ahead log after the last commit
        self._checkpointer = Checkpointer(self._writer, path)
        self._idle: deque[apsw.Connection] = deque()
        self._readers: dict[apsw.Connection, ReadTimer] = {}
        try:
            with translate_errors(path):
                self._writer.pragma("schema_version")  # opens the files beside it, too
            self._file_identity = FileIdentity(path)
        except BaseException:
            self._writer.close()
            raise

    @contextmanager
    def writing(self) -> Iterator[apsw.Connection]:
        """Give the block a write transaction, committed to the disk when the block ends.

        Raises:
            ReadOnlyError: it can only be read, as ``read_only_reason`` says; nothing was tried.
            DiskFullError, GalleryFolderError: nothing was written.
            StorageError: nothing was written; or, on an I/O error, or when the files were taken
                away in that very moment, perhaps all: read-only from now.
        """
        with self._write_lock, translate_errors(self.path):
            self._check_open()
            self._check_files()
            if self.read_only_reason is not None:
                raise ReadOnlyError(self.read_only_reason)
            writer = self._writer
            try:
                writer.execute("BEGIN IMMEDIATE")
                try:
                    yield writer
                    writer.execute("COMMIT")
                finally:
                    if writer.in_transaction:  # after some faults SQLite has rolled back already
                        writer.execute("ROLLBACK")
            except apsw.IOError as error:
                raise self._after_io_error(error, writer.system_errno) from error
            self._check_files()
            if self._displaced is not None:
                raise StorageError(f"{self._displaced}. Whether the change was made shows there")
            self._checkpoint()

    def check_files(self) -> str | None:
        """Be read-only while the files are not where they were; say what is missing, or nothing."""
        with self._write_lock:
            if not self._closed:
                self._check_files()
        return self._displaced

    @contextmanager
    def reading(self) -> Iterator[apsw.Connection]:
        """Give the block a connection that sees one unchanging state of the database.

        Raises:
            StorageError, GalleryFolderError: the file cannot be read, or is damaged.
        """
        with translate_errors(self.path):
            reader = self.borrow()
            reading_time = self._readers[reader]
            try:
                reader.execute("BEGIN")
                reading_time.begin()
                yield reader
            finally:
                reading_time.end()
                if reader.in_transaction:
                    reader.execute("ROLLBACK")
                self._idle.append(reader)
            if self._access.is_unguarded and self._file_identity.was_written_to:
                raise StorageError(
                    f"{self.path} was written to while it was read here; open it anew"
                )

    def borrow(self) -> apsw.Connection:
        """Return a reading connection; the pool closes it, whether or not it comes back."""
        self._check_open()
        try:
            return self._idle.pop()
        except IndexError:
            reader = _prepared(self.path, self._access, query_only=True)
            mismatch = self._file_identity.mismatch()
            if mismatch is not None:  # it may be of another database
                reader.close()
                raise StorageError(f"reading failed, since {mismatch}") from None
            self._readers[reader] = ReadTimer(reader, self.path)
            return reader

    def close(self) -> None:
        """Close every connection; the last one to close empties the write-ahead log.

        A log that could not be written to, or that lies elsewhere by now, stays for the next
        opening to recover from.
        """
        self.check_files()
        with self._write_lock, translate_errors(self.path):
            self._closed = True
            for connection in [*self._readers, self._writer]:
                if self.read_only_reason is not None:
                    connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
                connection.close()

    def _check_files(self) -> None:
        mismatch = self._file_identity.mismatch()
        if mismatch is None:
            if self._displaced is not None and self.read_only_reason == self._displaced:
                self.read_only_reason = None  # the very same files are back
            self._displaced = None
        elif self.read_only_reason is None:
            self._displaced = self.read_only_reason = (
                f"nothing is stored in {self.path.parent} any more, since {mismatch}: "
                "put it back, or restart"
            )
            if self._file_identity.can_be_rescued:
                self._rescue()

    def _rescue(self) -> None:
        """Put what only the log holds into the database: nobody else can tell whose it is."""
        with suppress(apsw.Error):
            truncate_wal(self._writer, wait_ms=RESCUE_TIMEOUT_MS)

    def _note_log_pages(self, _: apsw.Connection, __: str, pages: int) -> int:
        self._log_pages = pages
        return apsw.SQLITE_OK

    def _checkpoint(self) -> None:
        """Move what a long write-ahead log holds into the database; readers may go on.

        What was committed is safe in the log whatever happens here, so nobody hears of it: without
        room, the next commit tries again; an I/O error makes this object read-only.
        """
        try:
            self._checkpointer.checkpoint(self._log_pages)
        except apsw.IOError as error:
            self._after_io_error(error, self._writer.system_errno)
        except apsw.Error:  # no room; busy, since another process does it; damage, for readers
            return

    def _after_io_error(self, error: apsw.IOError, system_errno: int) -> StorageError:
        fault = getattr(error, "extendedresult", apsw.SQLITE_IOERR)  # the stubs do not know it
        if fault == apsw.SQLITE_IOERR_NOMEM:
            return StorageError(f"not enough memory to write {self.path}; nothing was changed")
        if system_errno in NO_ROOM and fault not in SYNC_FAULTS:
            return DiskFullError(f"no room left to write {self.path}; nothing was changed")
        since = datetime.now(UTC).isoformat(timespec="seconds")
        self.read_only_reason = (
            f"{self.path.parent} is read-only since {since}, when writing met an I/O error: "
            "check the disk, then restart"
        )
        return StorageError(
            f"writing {self.path} met an I/O error; whether the change was made shows after a "
            "restart. Until then the gallery is read-only: check the disk, then restart"
        )

    def _check_open(self) -> None:
        if self._closed:
            raise StorageError(f"{self.path.parent} was closed")


@contextmanager
def translate_errors(path: Path) -> Iterator[None]:
    """Turn SQLite's errors about ``path`` into ours, each a sentence, with the cause chained."""
    try:
        yield
    except apsw.FullError as error:
        raise DiskFullError(f"no room left to write {path}; nothing was changed") from error
    except (apsw.NotADBError, apsw.CorruptError, apsw.FormatError) as error:
        raise GalleryFolderError(f"{path} is damaged, or not a gallery's database") from error
    except (apsw.BusyError, apsw.LockedError) as error:
        raise StorageError(
            f"{path} was locked by another writer for {BUSY_TIMEOUT_MS // 1000} s; try again"
        ) from error
    except (apsw.ReadOnlyError, apsw.PermissionsError, apsw.CantOpenError) as error:
        raise StorageError(
            f"{path} cannot be opened; check its permissions, "
            "and how many files may be open at once"
        ) from error
    except apsw.InterruptError as error:
        raise too_long(path) from error
    except apsw.ConnectionClosedError as error:
        raise StorageError(f"{path.parent} was closed") from error
    except UnicodeDecodeError as error:
        raise GalleryFolderError(f"{path} is damaged: a text in it is not UTF-8") from error
    except apsw.SQLError as error:  # a table is not there, or a JSON text is broken
        raise GalleryFolderError(f"{path} is damaged: its content is not what we wrote") from error
    except apsw.Error as error:
        if getattr(error, "extendedresult", 0) == apsw.SQLITE_IOERR_SHMSIZE:  # of 32 KiB
            raise DiskFullError(f"no room left to open {path}: free a little first") from error
        raise StorageError(f"reading or writing {path} failed") from error


def check_sqlite_version() -> None:
    """Accept SQLite libraries without the WAL-reset fault.

    Raises:
        StorageError: the library is older than 3.51.3.
    """
    version = apsw.sqlite_lib_version()
    if tuple(int(part) for part in version.split(".")[:3]) < SAFE_SQLITE:
        raise StorageError(
            f"SQLite {version} can lose committed writes; install apsw 3.51.3 or newer"
        )


def _prepared(path: Path, access: Access, *, query_only: bool) -> apsw.Connection:
    check_sqlite_version()
    with translate_errors(path):
        connection = connect(path, access)
        try:
            connection.set_busy_timeout(BUSY_TIMEOUT_MS)
            connection.pragma("synchronous", SYNC_FULL)
            connection.pragma("wal_autocheckpoint", 0)  # it would keep its errors to itself
            connection.pragma("journal_size_limit", LONG_BYTES)  # what is left of a longer log
            connection.pragma("foreign_keys", True)
            connection.pragma("secure_delete", True)  # zeros where deleted items lay
            connection.pragma("cache_size", -CACHE_KIB)
            connection.pragma("query_only", query_only)
        except BaseException:
            connection.close()
            raise
        return connection
