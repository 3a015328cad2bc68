"""Room on the disk: what work on a gallery needs of it, and what a gallery gives back.

Run as a module with a gallery's folder, it writes the database anew, without free pages, in a
process of its own, the only way to have SQLite's temporary copy beside it and not in ``/var/tmp``.
"""

import os
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Final

import apsw

from files.module_command import module_command, module_environment
from index.errors import DiskFullError, StorageError, VectorIndexError
from index.store.schema import DATABASE_NAME
from index.store.sqlite.database import (
    BUSY_TIMEOUT_MS,
    SYNC_FULL,
    check_sqlite_version,
    translate_errors,
)
from index.store.sqlite.write_ahead_log import truncate_wal

FREE_SHARE: Final = 0.1  # of the pages; fewer free ones are left for what is stored next
COPIES: Final = 2  # of what is kept, while free pages are dropped: one aside, one in the log
NO_ROOM: Final = 3  # the exit status that says so
ALWAYS: Final = "always"  # the argument after the folder: also where few pages are free


def folder_bytes(folder: Path) -> int:
    """Return the bytes of all files in ``folder``."""
    # Not rglob: it fails when a folder is deleted meanwhile.
    return sum(
        _bytes_of(Path(place, name)) for place, _, names in os.walk(folder) for name in names
    )


def free_bytes(folder: Path) -> int:
    """Return how much can be written to ``folder``, or to the first of its parents that exists."""
    place = folder.absolute()
    while not place.exists():
        place = place.parent
    found = os.statvfs(place)
    blocks = found.f_bfree if os.geteuid() == 0 else found.f_bavail
    return blocks * found.f_frsize


def check_room(folder: Path, needed: int, what: str) -> None:
    """Accept a disk with room for ``needed`` bytes in ``folder``.

    Raises:
        DiskFullError: there is less; ``what`` begins the sentence, such as "the copy".
    """
    free = free_bytes(folder)
    if free < needed:
        raise DiskFullError(
            f"no room left: {what} needs {_shown(needed)} in {folder}, {_shown(free)} are free; "
            "nothing was changed"
        )


def check_room_to_vacuum(folder: Path) -> int:
    """Return how many bytes ``vacuum`` needs for a while, in ``folder`` itself.

    Raises:
        DiskFullError: there are not so many.
        StorageError: the database cannot be read.
    """
    path = folder / DATABASE_NAME
    with translate_errors(path), closing(_connect(path)) as connection:
        needed = _needed(connection) if _is_worth_it(connection) else 0
    check_room(folder, needed, "dropping what was deleted")
    return needed


def vacuum(folder: Path) -> int:
    """Empty the write-ahead log, and drop free pages where they are many; return the bytes saved.

    Dropping free pages writes the whole database anew: that takes ``check_room_to_vacuum``, and
    whoever writes has to wait. A log that somebody still reads is left as it is.

    Raises:
        DiskFullError, StorageError: the database is as it was.
    """
    before = folder_bytes(folder)
    check_room_to_vacuum(folder)
    _run_vacuum(folder)
    return before - folder_bytes(folder)


def check_room_to_rewrite(folder: Path) -> None:
    """Accept a disk on which ``rewrite_database`` has room for a while, in ``folder`` itself.

    Raises:
        DiskFullError: it has not.
        StorageError: the database cannot be read.
    """
    path = folder / DATABASE_NAME
    with translate_errors(path), closing(_connect(path)) as connection:
        needed = _needed(connection)
    check_room(folder, needed, "writing the database anew")


def rewrite_database(folder: Path) -> None:
    """Write the whole database anew, and empty its log: no page of it stays where it was.

    Whoever writes has to wait.

    Raises:
        DiskFullError, StorageError: the database is as it was; or the log still holds older pages,
            since somebody reads them.
    """
    path = folder / DATABASE_NAME
    check_room_to_rewrite(folder)
    _run_vacuum(folder, ALWAYS)
    with translate_errors(path), closing(_connect(path)) as connection:
        emptied = truncate_wal(connection, wait_ms=BUSY_TIMEOUT_MS)
    if not emptied:
        raise StorageError(
            f"what was deleted is still in the write-ahead log of {path}, since a backup, an "
            "export or another reader that began before has not ended: purge again when it has"
        )


def _run_vacuum(folder: Path, *arguments: str) -> None:
    place = folder.absolute()
    done = subprocess.run(
        module_command("index.store.vacuum", str(place), *arguments),
        env=module_environment(SQLITE_TMPDIR=str(place)),
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode:
        why = done.stdout.strip() or f"the process ended with status {done.returncode}"
        kind = DiskFullError if done.returncode == NO_ROOM else StorageError
        raise kind(f"{folder} is as large as it was: {why}")


def main() -> int:
    """Write the database of the gallery named on the command line anew, where that is worth it."""
    path = Path(sys.argv[1]) / DATABASE_NAME
    try:
        with translate_errors(path), closing(_connect(path)) as connection:
            connection.pragma("synchronous", SYNC_FULL)
            always = ALWAYS in sys.argv[2:]
            if always or _is_worth_it(connection):
                connection.execute("VACUUM")
            if not always:  # then whoever started this looks whether it can be emptied
                truncate_wal(connection, wait_ms=BUSY_TIMEOUT_MS)
    except VectorIndexError as error:
        sys.stdout.write(f"{error}\n")
        return NO_ROOM if isinstance(error, DiskFullError) else 1
    return 0


def _connect(path: Path) -> apsw.Connection:
    check_sqlite_version()
    connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE)
    connection.set_busy_timeout(BUSY_TIMEOUT_MS)
    return connection


def _needed(connection: apsw.Connection) -> int:
    pages = connection.pragma("page_count") - connection.pragma("freelist_count")
    return int(COPIES * pages * connection.pragma("page_size"))


def _is_worth_it(connection: apsw.Connection) -> bool:
    return bool(connection.pragma("freelist_count") > FREE_SHARE * connection.pragma("page_count"))


def _bytes_of(path: Path) -> int:
    try:
        return path.stat().st_size if path.is_file() else 0
    except FileNotFoundError:  # the write-ahead log comes and goes
        return 0


def _shown(size: int) -> str:
    return f"{size / 2**20:,.1f} MiB" if size >= 2**20 else f"{size / 2**10:.1f} KiB"


if __name__ == "__main__":
    sys.exit(main())
