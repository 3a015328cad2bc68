"""Files that survive a power cut: bytes in, a file that is on the disk when the call returns."""

import os
from pathlib import Path

from files.unfinished import unfinished


def write_synced(path: Path, data: bytes) -> None:
    """Write a file that must not be there yet, and sync it; its folder is not synced.

    Raises:
        OSError: it cannot be written.
    """
    with path.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def replace_synced(path: Path, data: bytes) -> None:
    """Write a file, in place of one that is there; a reader sees the one or the other, whole.

    Raises:
        OSError: it cannot be written; what was there is as it was.
    """
    with unfinished(path) as folder:
        write_synced(folder / path.name, data)
        (folder / path.name).replace(path)
        sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make the entries of ``folder`` durable: created and renamed files survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
