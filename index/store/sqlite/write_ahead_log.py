"""Keeps the write-ahead log short: by whoever writes, and against whoever reads for too long.

A log can begin anew only when all of it is in the database and nobody reads a state that needs it.
A reader that stays would let it grow without end; readers that always overlap would, too.
"""

import logging
import time
from pathlib import Path
from typing import Final

import apsw

from index.errors import StorageError

# How long the log gets before the commit that reaches it empties it into the database: 4 MB take
# milliseconds. Four times as many: 20 ms at the 99th percentile of writes instead of 13.
CHECKPOINT_PAGES: Final = 1000
LONG_BYTES: Final = 64 * 2**20  # from here on the writer waits for readers to let it begin anew
WAIT_MS: Final = 100  # so long at a time,
ASK_EVERY_MS: Final = 2
WAIT_AGAIN_BYTES: Final = 16 * 2**20  # and again when it grew by so much
MAX_BYTES: Final = 512 * 2**20  # from here on readers are ended,
MAX_SHARE: Final = 0.25  # or from this share of the database, if that is more,
GRACE_S: Final = 5.0  # that have read one state for longer than this
LOOK_STEPS: Final = 50_000  # of SQLite's machine between two looks: some milliseconds
logger = logging.getLogger("lookalike.index")


class Checkpointer:
    """Empties the log after commits; for the connection that writes, within its lock."""

    def __init__(self, writer: apsw.Connection, path: Path) -> None:
        self._writer = writer
        self._path = path
        self._wait_from = LONG_BYTES  # of the log, until the next wait

    def checkpoint(self, pages: int) -> None:
        """Move a log of ``pages`` into the database where it is long; readers may go on.

        Raises:
            apsw.Error: what was committed is safe in the log all the same.
        """
        if pages < CHECKPOINT_PAGES:
            return
        self._writer.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
        size: int = pages * self._writer.pragma("page_size")
        if size < LONG_BYTES:
            self._wait_from = LONG_BYTES
        elif size >= self._wait_from:
            if truncate_wal(self._writer, wait_ms=WAIT_MS):
                self._wait_from = LONG_BYTES
            else:
                self._wait_from = size + WAIT_AGAIN_BYTES
                logger.warning(
                    "the write-ahead log of %s has %d MiB and cannot be emptied: a backup, an "
                    "export or another program has been reading since before it grew",
                    self._path,
                    size // 2**20,
                )


def truncate_wal(connection: apsw.Connection, *, wait_ms: int) -> bool:
    """Move all of the write-ahead log into the database and cut it off; return whether it is.

    It waits ``wait_ms`` at most for whoever reads or writes. Not in one call of SQLite's, which
    waits for the mark of an old state to be let go also when readers that overlap have long moved
    that mark to the newest one.

    Raises:
        apsw.Error: it failed in another way; nothing is lost.
    """
    end = time.monotonic() + wait_ms / 1000
    before_ms: int = connection.pragma("busy_timeout")
    connection.set_busy_timeout(0)
    try:
        while True:
            ((busy, _, _),) = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            if not busy or time.monotonic() >= end:
                return not busy
            time.sleep(ASK_EVERY_MS / 1000)
    finally:
        connection.set_busy_timeout(before_ms)


class ReadTimer:
    """Ends the statements of a reading connection when they keep the log from being emptied."""

    def __init__(self, connection: apsw.Connection, path: Path) -> None:
        self._path = path
        self._since: float | None = None
        connection.set_progress_handler(self.is_over, LOOK_STEPS)

    def begin(self) -> None:
        """A transaction begins."""
        self._since = time.monotonic()

    def end(self) -> None:
        """It has ended."""
        self._since = None

    def is_over(self) -> bool:
        """Whether it read one state for too long."""
        return self._since is not None and is_in_the_way(self._path, since=self._since)


def is_in_the_way(path: Path, *, since: float) -> bool:
    """Whether who reads the database ``path`` as of ``since`` should stop: the log is too long."""
    if time.monotonic() - since <= GRACE_S:
        return False
    try:
        size = path.with_name(f"{path.name}-wal").stat().st_size
        return size > max(MAX_BYTES, MAX_SHARE * path.stat().st_size)
    except OSError:
        return False


def too_long(path: Path) -> StorageError:
    """Return the error for a reader that was ended."""
    return StorageError(
        f"reading {path} was ended: so much was written meanwhile that its write-ahead log would "
        "fill the disk; try again when less is written"
    )
