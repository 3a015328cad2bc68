"""Files that are whole or not there: written, synced, read back, and only then given their name."""

import os
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

READ_BYTES: Final = 4 * 2**20  # at a time while a checksum is computed

Buffer = bytes | memoryview


@dataclass(frozen=True, slots=True)
class FileFacts:
    """What a file must be like to be believed."""

    bytes: int
    crc32: int


def write_file(path: Path, write: Callable[[Callable[[Buffer], None]], None]) -> FileFacts:
    """Let ``write`` hand over the content piece by piece, and return what the disk now holds.

    The file is synced and read back. Its folder is not synced.

    Raises:
        OSError: it could not be written, or what was read back is not what was written.
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
        os.fsync(file.fileno())
    written = FileFacts(size, crc32)
    if read_facts(path) != written:
        raise OSError(f"{path} does not hold what was written to it")
    return written


def write_bytes(path: Path, pieces: Iterable[Buffer]) -> FileFacts:
    """Write ``pieces`` as ``write_file`` does."""

    def write(append: Callable[[Buffer], None]) -> None:
        for piece in pieces:
            append(piece)

    return write_file(path, write)


def read_facts(path: Path) -> FileFacts:
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
    return FileFacts(size, crc32)


def sync_folder(folder: Path) -> None:
    """Make the entries of ``folder`` durable: created and renamed files survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
