"""Places for what is not finished yet: gone when their writer is, however it ended.

Whoever writes something that must be seen whole, or not at all, writes it into a hidden folder
beside its place and renames it. The folder is locked for as long as its writer lives; the kernel
lets go of the lock when that process ends, so that the next writer there knows what nobody will
finish.
"""

import errno
import fcntl
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

SUFFIX: Final = ".unfinished"
_NO_ROOM: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_NAME: Final = re.compile(r"\..+\.[0-9a-f]{8}" + re.escape(SUFFIX), re.DOTALL)


@contextmanager
def unfinished(target: Path) -> Iterator[Path]:
    """Give the block a new, empty folder beside ``target``, and remove it with what is left in it.

    Parents are made. What writers that were killed left in the same place is removed first.

    Raises:
        OSError: it cannot be made. Where there is no room, or the writer may not write, errors name
            ``target``, which a person knows.
    """
    place = target.absolute().parent
    try:
        place.mkdir(parents=True, exist_ok=True)
        sweep(place)
        folder, lock = _locked(place, target.name)
    except OSError as error:
        error.filename = str(target)
        raise
    try:
        yield folder
    except OSError as error:
        if error.filename is None and error.errno in _NO_ROOM:
            error.filename = str(target)
        raise
    finally:
        shutil.rmtree(folder, ignore_errors=True)  # not there any more when all went well
        os.close(lock)


def sweep(place: Path) -> None:
    """Remove what writers that were killed left in ``place``; what cannot be removed stays."""
    with suppress(OSError):
        for path in list(place.iterdir()):
            if _NAME.fullmatch(path.name):
                _remove_if_abandoned(path)


def _locked(place: Path, name: str) -> tuple[Path, int]:
    while True:
        folder = place / f".{name}.{secrets.token_hex(4)}{SUFFIX}"
        folder.mkdir()
        try:
            lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        except FileNotFoundError:  # somebody took it for abandoned before it was locked
            continue
        with suppress(OSError):  # not every network's file system can lock; nobody removes it then
            fcntl.flock(lock, fcntl.LOCK_EX)
        if folder.exists():  # nobody took it for abandoned in the moment before
            return folder, lock
        os.close(lock)


def _remove_if_abandoned(folder: Path) -> None:
    try:
        lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:  # gone by now, or no folder of ours
        return
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder, ignore_errors=True)
    except OSError:  # its writer lives, or nobody can tell
        return
    finally:
        os.close(lock)
