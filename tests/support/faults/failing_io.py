"""Makes the n-th call that reaches for a file fail, as disks and full tables of files do.

Stands between ``os``, ``io`` and ``mmap`` and their callers, for the paths in one folder, so that
every call is counted that Python code makes there: mkdir, open, read, write, fsync, rename, ...
"""

import builtins
import errno
import io
import mmap
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

import pytest

# What each call fails with. Those that delete do not fail here: nothing is promised of rubbish.
FAULTS: Final = {
    "mkdir": errno.ENOSPC,
    "open": errno.EMFILE,
    "read": errno.EIO,
    "write": errno.ENOSPC,
    "fsync": errno.EIO,
    "rename": errno.EIO,
    "list": errno.EIO,
    "map": errno.ENOMEM,
}
Kind = Literal["once", "from then on", "half"]


@dataclass
class FaultyFiles:
    """Counts the calls on files in ``folder``; the call number ``fail_at`` fails."""

    folder: Path
    fail_at: int = 0  # 0: none
    kind: Kind = "once"  # "half": a write stores half of its bytes and says so, a read is wrong
    calls: list[str] = field(default_factory=list)
    failed: str | None = None
    _descriptors: set[int] = field(default_factory=set)

    def ours(self, path: object) -> bool:
        if isinstance(path, int):
            return path in self._descriptors
        try:
            return Path(os.fspath(path)).is_relative_to(self.folder)
        except TypeError:
            return False

    def strikes(self, name: str) -> bool:
        """Count a call and tell whether it is to fail."""
        self.calls.append(name)
        number = len(self.calls)
        if not self.fail_at or number < self.fail_at:
            return False
        if number > self.fail_at and self.kind != "from then on":
            return False
        self.failed = self.failed or name
        return True

    def call(self, name: str) -> None:
        """Count a call, and fail when its time has come."""
        if self.strikes(name):
            raise OSError(FAULTS[name], os.strerror(FAULTS[name]))


class FaultyFile(io.FileIO):
    """An unbuffered file whose reads and writes count."""

    def __init__(self, path: str, mode: str, faults: FaultyFiles) -> None:
        self._faults = faults
        super().__init__(path, mode)
        faults._descriptors.add(self.fileno())

    def write(self, data: Any) -> int:
        if self._faults.kind != "half":
            self._faults.call("write")
        elif self._faults.strikes("write"):
            return super().write(memoryview(data)[: max(1, len(data) // 2)])
        return super().write(data)

    def readinto(self, buffer: Any) -> int:
        if self._faults.kind != "half":
            self._faults.call("read")
            return super().readinto(buffer)
        wrong = self._faults.strikes("read")
        count = super().readinto(buffer)
        if wrong and count:
            memoryview(buffer).cast("B")[0] ^= 1
        return count

    def readall(self) -> bytes:
        self._faults.call("read")
        return super().readall()

    def close(self) -> None:
        if not self.closed:
            self._faults._descriptors.discard(self.fileno())
        super().close()


@contextmanager
def faulty_files(faults: FaultyFiles) -> Iterator[FaultyFiles]:
    """Let calls fail as ``faults`` says, while the block runs."""
    real_open, real_os_open, real_close = io.open, os.open, os.close

    def open_file(path: Any, mode: str = "r", *args: Any, **options: Any) -> Any:
        if not faults.ours(path):
            return real_open(path, mode, *args, **options)
        faults.call("open")
        file = FaultyFile(os.fspath(path), mode.replace("b", "").replace("t", ""), faults)
        if (args and args[0] == 0) or options.get("buffering") == 0:
            return file
        buffered = io.BufferedReader(file) if file.readable() else io.BufferedWriter(file)
        return buffered if "b" in mode else io.TextIOWrapper(buffered)

    def open_descriptor(path: Any, *args: Any, **options: Any) -> int:
        if not faults.ours(path) or options.get("dir_fd") is not None:
            return real_os_open(path, *args, **options)
        faults.call("open")
        descriptor = real_os_open(path, *args, **options)
        faults._descriptors.add(descriptor)
        return descriptor

    def counted(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(first: Any, *args: Any, **options: Any) -> Any:
            if faults.ours(first):
                faults.call(name)
            return real(first, *args, **options)

        return call

    def close(descriptor: int) -> None:
        faults._descriptors.discard(descriptor)
        real_close(descriptor)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(io, "open", open_file)
        patch.setattr(builtins, "open", open_file)
        patch.setattr(os, "open", open_descriptor)
        patch.setattr(os, "close", close)
        for name, module, function in [
            ("fsync", os, "fsync"),
            ("mkdir", os, "mkdir"),
            ("rename", os, "rename"),
            ("list", os, "listdir"),
            ("map", mmap, "mmap"),
        ]:
            patch.setattr(module, function, counted(name, getattr(module, function)))
        yield faults
