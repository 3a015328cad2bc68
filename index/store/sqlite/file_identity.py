"""Whether an open database still lies where it was opened. A path in, a sentence out.

A folder may be renamed, deleted, replaced or unmounted under a process that has its files open.
SQLite then goes on writing, to files that nobody will ever open again.
"""

import os
from pathlib import Path

from index.store.sqlite.file_access import LOCKS, LOG, beside

_Identity = tuple[int, int] | None  # device and inode; ``None``: there is no such file


class FileIdentity:
    """The files of an open database, as they were when it was opened.

    An inode cannot be given to another file while somebody has it open, so that equal means same.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._log, self._locks = (  # as text, which is looked up in half the time
            str(file.absolute()) for file in (path, beside(path, LOG), beside(path, LOCKS))
        )
        self._files = {file: _identity(file) for file in (self._path, self._log, self._locks)}
        self._state = self._present_state()

    def mismatch(self) -> str | None:
        """Return what is no longer where it was, a sentence; costs a few microseconds."""
        for file, identity in self._files.items():
            found = _identity(file)
            if found == identity:
                continue
            if found is None:
                what = "is gone: moved, deleted, or on a disk that was unmounted"
            else:
                what = "is another file now than the one that was opened"
            return f"{file} {what}"
        return None

    @property
    def can_be_rescued(self) -> bool:
        """Whether database and log were torn apart, and nobody else can have opened either."""
        return _identity(self._locks) == self._files[self._locks]

    @property
    def was_written_to(self) -> bool:
        """Whether somebody wrote to the database, or to its log, since it was opened."""
        return self._present_state() != self._state

    def _present_state(self) -> list[tuple[int, int, int] | None]:
        return [_state(file) for file in (self._path, self._log)]


def _identity(file: str) -> _Identity:
    try:
        found = os.stat(file)
    except OSError:  # gone, or it cannot be reached
        return None
    return found.st_dev, found.st_ino


def _state(file: str) -> tuple[int, int, int] | None:
    try:
        found = os.stat(file)
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns
