"""Files that survive a power cut: written, synced, read back, and only then given their name."""

import os
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

from files.unfinished import unfinished

READ_BYTES: Final = 4 * 2**20  # at a time while a checksum is computed

Buffer = bytes | memoryview


@dataclass(frozen=True, slots=True)
class FileDigest:
    """What a file must be like to be believed."""

    bytes: int
    crc32: int


def write_file(path: Path, write: Callable[[Callable[[Buffer], None]], None]) -> FileDigest:
    """Let ``write`` hand over the content of a new file piece by piece; return what the disk holds.

    The file is synced and read back. Its folder is not synced.

    Raises:
        OSError: it is there already or cannot be written, or what was read back is not what was
            written.
    """
    size, crc32 = 0, 0
    with path.open("xb", buffering=0) as file:

        def append(piece: Buffer) -> None:
            nonlocal size, crc32
            crc32 = zlib.crc32(piece, crc32)
            size += len(piece)
            rest = memoryview(piece)
            while rest:
                rest = rest[file.write(rest) :]

        write(append)
        sync_file(file)
    written = FileDigest(size, crc32)
    if read_digest(path) != written:
        raise OSError(f"{path} does not hold what was written to it")
    return written


def write_bytes(path: Path, pieces: Iterable[Buffer]) -> FileDigest:
    """Write ``pieces`` as ``write_file`` does."""

    def write(append: Callable[[Buffer], None]) -> None:
        for piece in pieces:
            append(piece)

    return write_file(path, write)


def replace_file(path: Path, data: bytes) -> None:
    """Write a file, in place of one that is there; a reader sees the one or the other, whole.

    Its folder is not made: whoever removed one wants nothing there.

    Raises:
        OSError: it cannot be written, or has no folder; what was there is as it was.
    """
    path.parent.stat()
    with unfinished(path) as folder:
        write_bytes(folder / path.name, [data])
        (folder / path.name).replace(path)
        sync_folder(path.parent)


def read_digest(path: Path) -> FileDigest:
    """Return size and checksum of a file. Reads all of it.

    Raises:
        OSError: it cannot be read.
    """
    size, crc32 = 0, 0
    buffer = memoryview(bytearray(READ_BYTES))
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(buffer):
            crc32 = zlib.crc32(buffer[:count], crc32)
            size += count
    return FileDigest(size, crc32)


def sync_file(file: IO[Any]) -> None:
    """Make what was written to an open file durable."""
    file.flush()
    os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Make the entries of ``folder`` durable: created and renamed files survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
