"""How a database file can be opened: to be written, or only read, on whatever disk it lies.

SQLite's write-ahead log wants to write even for readers: beside the database lie the log and a file
of locks. Where nothing can be written there are three ways to read all that was acknowledged.
"""

import os
from enum import Enum
from pathlib import Path
from typing import Final

import apsw

LOG: Final = "-wal"
LOCKS: Final = "-shm"


class Access(Enum):
    """What a process may do with a database, and how it gets along with others."""

    WRITABLE = "writable"
    # The file of locks is there: others may be writing, and SQLite's locks keep us apart; or they
    # were killed, and SQLite reads their log.
    SHARED = "shared"
    # No log lies beside the database: all is in it, and whoever begins to write makes one.
    FROZEN = "frozen"
    # A log without a file of locks, as a copy or a crash leaves it: read with an index of our own.
    LOGGED = "logged"

    @property
    def is_unguarded(self) -> bool:
        """Whether no lock keeps out a writer, who may come another way to the same disk."""
        return self in (Access.FROZEN, Access.LOGGED)


def access_to(path: Path) -> Access:
    """Return what this process may do with the database at ``path``, which exists."""
    log, locks = beside(path, LOG), beside(path, LOCKS)
    if all(map(_may_be_written, (path.parent, path, log, locks))):
        return Access.WRITABLE
    if _state(log) and _state(locks):
        return Access.SHARED
    state = _state(log)
    return Access.LOGGED if state and state.st_size else Access.FROZEN


def _may_be_written(file: Path) -> bool:
    """Whether a file can be written, or is not there: who comes makes two, the last removes them.

    That happens at any moment. Only of a file that was the same before and after it was asked
    about is the answer no.
    """
    while (before := _state(file)) is not None:
        if os.access(file, os.W_OK, effective_ids=True):
            return True
        after = _state(file)
        if after and (after.st_ino, after.st_ctime_ns) == (before.st_ino, before.st_ctime_ns):
            return False
    return True


def _state(file: Path) -> os.stat_result | None:
    try:
        return file.stat()
    except FileNotFoundError:
        return None


def connect(path: Path, access: Access) -> apsw.Connection:
    """Return a connection, on which nothing was read yet.

    Raises:
        apsw.Error: the file cannot be opened.
    """
    if access is Access.WRITABLE:
        return apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE)
    if access is Access.SHARED:
        return apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
    if access is Access.FROZEN:
        flags = apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI
        return apsw.Connection(path.absolute().as_uri() + "?immutable=1", flags=flags)
    connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY, vfs="unix-none")
    connection.pragma("locking_mode", "exclusive")  # then the log's index is in our own memory
    connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
    return connection


def why_read_only(path: Path) -> str:
    """Return why nothing can be written to the database at ``path``, a sentence."""
    if os.statvfs(path).f_flag & os.ST_RDONLY:
        return f"{path.parent} can only be read: it lies on a disk that is mounted read-only"
    return (
        f"{path.parent} can only be read: this user may not write to it; check the permissions of "
        "the folder and of its files"
    )


def beside(path: Path, suffix: str) -> Path:
    """Return the file that SQLite keeps beside the database at ``path``."""
    return path.with_name(path.name + suffix)
