"""A file layer for SQLite that counts its calls and spoils one of them."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import apsw

NAME = "faulty"
HEALTHY = "unix"

# What SQLite's own file layer returns when the system call behind a method fails.
CODES: dict[str, dict[str, int]] = {
    "EIO": {
        "xRead": apsw.SQLITE_IOERR_READ,
        "xWrite": apsw.SQLITE_IOERR_WRITE,
        "xSync": apsw.SQLITE_IOERR_FSYNC,
        "xTruncate": apsw.SQLITE_IOERR_TRUNCATE,
        "xFileSize": apsw.SQLITE_IOERR_FSTAT,
        "xFileControl": apsw.SQLITE_IOERR_TRUNCATE,
        "xDelete": apsw.SQLITE_IOERR_DELETE,
        "xAccess": apsw.SQLITE_IOERR_ACCESS,
    },
    "ENOSPC": {"xWrite": apsw.SQLITE_FULL, "xFileControl": apsw.SQLITE_FULL},
    "EMFILE": {"xOpen": apsw.SQLITE_CANTOPEN},
}


class Faults:
    """Which call fails, and how: the ``at``-th from now, counting from 1, and that one only."""

    def __init__(self) -> None:
        self.calls: list[str] = []  # since the last arming
        self.arm("EIO", at=0)

    def arm(self, kind: str, *, at: int) -> None:
        self.kind, self.at = kind, at
        self.calls = []
        self.errno = 0

    def fails(self, call: str) -> bool:
        self.calls.append(call)
        return len(self.calls) == self.at and call in CODES[self.kind]

    def check(self, call: str) -> None:
        if self.fails(call):
            raise self.error(call)

    def error(self, call: str) -> Exception:
        self.errno = getattr(errno, self.kind)
        return apsw.exception_for(CODES[self.kind][call])


class FaultyVFS(apsw.VFS):
    def __init__(self, faults: Faults) -> None:
        self.faults = faults
        super().__init__(NAME, HEALTHY)

    def xOpen(self, name: Any, flags: list[int]) -> apsw.VFSFile:
        self.faults.check("xOpen")
        return FaultyFile(self.faults, name, flags)

    def xDelete(self, filename: str, syncdir: bool) -> None:
        self.faults.check("xDelete")
        super().xDelete(filename, False)  # as in xSync

    def xAccess(self, pathname: str, flags: int) -> bool:
        self.faults.check("xAccess")
        return super().xAccess(pathname, flags)

    def xGetLastError(self) -> tuple[int, str]:
        return self.faults.errno, ""


class FaultyFile(apsw.VFSFile):
    def __init__(self, faults: Faults, name: Any, flags: list[int]) -> None:
        self.faults = faults
        self.is_database = bool(flags[0] & apsw.SQLITE_OPEN_MAIN_DB)  # and not its log
        super().__init__(HEALTHY, name, flags)

    def xRead(self, amount: int, offset: int) -> bytes:
        self.faults.check("xRead")
        return super().xRead(amount, offset)

    def xWrite(self, data: bytes, offset: int) -> None:
        if self.faults.fails("xWrite"):
            super().xWrite(bytes(data[: len(data) // 2]), offset)  # torn
            raise self.faults.error("xWrite")
        super().xWrite(data, offset)

    def xSync(self, flags: int) -> None:
        self.faults.check("xSync")  # else done: no power is cut here, and disks are slow

    def xTruncate(self, newsize: int) -> None:
        self.faults.check("xTruncate")
        super().xTruncate(newsize)

    def xFileSize(self) -> int:
        self.faults.check("xFileSize")
        return super().xFileSize()

    def xFileControl(self, op: int, ptr: int) -> bool:
        if op == apsw.SQLITE_FCNTL_SIZE_HINT:  # the others are answered without the disk
            self.faults.check("xFileControl")
        return super().xFileControl(op, ptr)


@contextmanager
def faulty_files() -> Iterator[Faults]:
    """Give SQLite the file layer with faults, for files opened while the block runs."""
    faults = Faults()
    vfs = FaultyVFS(faults)
    apsw.set_default_vfs(NAME)
    try:
        yield faults
    finally:
        apsw.set_default_vfs(HEALTHY)
        vfs.unregister()
