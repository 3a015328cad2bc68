"""Locks on files: held by one process, until it lets go or ends, however it ends.

The kernel lets go of them with the process (flock(2)), so a file that is locked has a living owner.
They hold between threads too, and stay with a process that becomes another program.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def take_lock(path: Path, *, wait: bool) -> int:
    """Lock the file ``path``, made where it is missing; return the descriptor that holds the lock.

    Closing the descriptor lets go.

    Raises:
        BlockingIOError: another holds it, and this call was not to ``wait``.
        OSError: it cannot be made, or the file system knows no locks.
    """
    descriptor = os.open(path, os.O_CREAT | os.O_RDWR, 0o666)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


@contextmanager
def locked(path: Path, *, wait: bool) -> Iterator[None]:
    """Hold the lock of ``path`` during the block; raises as ``take_lock``."""
    descriptor = take_lock(path, wait=wait)
    try:
        yield
    finally:
        os.close(descriptor)


def is_locked(path: Path) -> bool:
    """Return whether anybody holds the lock of ``path``; of a file that is missing nobody does."""
    try:
        probe = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(probe, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    else:
        return False
    finally:
        os.close(probe)
