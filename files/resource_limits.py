"""What this process may use of the machine: processors and memory, as the kernel's limits say it.

A container sees all of the machine's processors and memory in most places where a program looks;
what it may use says its cgroup (cgroups(7)), of either version. Each cgroup above it limits it too.
"""

import math
import os
from collections.abc import Callable, Iterator, MutableMapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final, TypeVar

Number = TypeVar("Number", int, float)
ROOT: Final = Path("/")
# What numeric libraries ask for the number of their threads, when they are first imported.
THREAD_VARIABLES: Final = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


@dataclass(frozen=True, slots=True)
class ResourceLimits:
    """Processors and memory, and what limits them."""

    processors: int  # that the process may run on, see sched_setaffinity(2)
    cpu_quota: float | None  # processors' time per time; ``None``: no limit
    machine_bytes: int | None  # memory that there is; ``None``: nobody says
    cgroup_bytes: int | None  # memory that the cgroup may take; ``None``: no limit

    @property
    def cores(self) -> int:
        """How many threads may compute at once, at least one.

        A quota is rounded to the nearest number, half up: of 1.5 cores two threads are stopped for
        a quarter of the time, and one would leave a third unused; of 1.2 two would stand still more
        than they would win.
        """
        if self.cpu_quota is None:
            return self.processors
        return max(1, min(self.processors, math.floor(self.cpu_quota + 0.5)))

    @property
    def memory_bytes(self) -> int | None:
        """Memory that this process and all in its cgroup may take; ``None``: nobody says."""
        known = [one for one in (self.machine_bytes, self.cgroup_bytes) if one is not None]
        return min(known, default=None)

    def __str__(self) -> str:
        """Say what was found, for a log."""
        quota = "no CPU quota" if self.cpu_quota is None else f"a CPU quota of {self.cpu_quota:g}"
        cores = "1 core" if self.cores == 1 else f"{self.cores} cores"
        said = f"{cores} ({self.processors} processors, {quota})"
        if self.memory_bytes is None:
            return f"{said}, memory unknown"
        limit = "no limit" if self.cgroup_bytes is None else "the limit"
        return f"{said}, {self.memory_bytes / 2**20:,.0f} MiB of memory ({limit} of the cgroup)"


def resource_limits(root: Path = ROOT, *, processors: int | None = None) -> ResourceLimits:
    """Return what limits this process now; a limit may be changed while it runs.

    Args:
        root: where the kernel's files lie, another one in tests.
        processors: that the process may run on; ``None``: ask the kernel.
    """
    quotas = [
        *_limits(root, "cgroup2", "", lambda folder: _quota(_words(folder / "cpu.max"))),
        *_limits(root, "cgroup", "cpu", _old_quota),
    ]
    limits = [
        *_limits(root, "cgroup2", "", lambda folder: _bytes(folder / "memory.max")),
        *_limits(root, "cgroup", "memory", lambda folder: _bytes(folder / "memory.limit_in_bytes")),
    ]
    machine = _machine_bytes(root)
    return ResourceLimits(
        processors=processors or len(os.sched_getaffinity(0)),
        cpu_quota=min(quotas, default=None),
        machine_bytes=machine,
        # Version 1 says "no limit" by a number beyond any machine's memory.
        cgroup_bytes=min((one for one in limits if one < (machine or 2**62)), default=None),
    )


def usable_cores() -> int:
    """Return how many threads of this process may compute at once."""
    return resource_limits().cores


def usable_memory_bytes() -> int | None:
    """Return how much memory this process, and all in its cgroup, may take; ``None``: unknown."""
    return resource_limits().memory_bytes


def limit_threads(environment: MutableMapping[str, str]) -> None:
    """Have numeric libraries of processes with ``environment`` keep to the CPU quota.

    By themselves they know the processors and not the quota. What is set already stays.
    """
    limits = resource_limits()
    if limits.cores < limits.processors:
        for name in THREAD_VARIABLES:
            environment.setdefault(name, str(limits.cores))


def _limits(
    root: Path, kind: str, controller: str, read: Callable[[Path], Number | None]
) -> Iterator[Number]:
    """Yield what ``read`` finds in this process's cgroup, and in those above it."""
    for folder in _folders(root, kind, controller):
        value = read(folder)
        if value is not None:
            yield value


def _folders(root: Path, kind: str, controller: str) -> Iterator[Path]:
    """Yield the folder of this process's cgroup and of those above it, as far as can be seen.

    A cgroup's path counts from the root of its hierarchy, of which a container may see a part only;
    where the two do not fit, what is mounted is the process's own.
    """
    path = _cgroup_path(root, controller)
    mount = _mount(root, kind, controller)
    if path is None or mount is None:
        return
    shown, place = mount  # which part of the hierarchy is mounted, and where
    with suppress(ValueError):
        inner = path.relative_to(shown)
        if ".." not in inner.parts:
            for part in (inner, *inner.parents):
                yield place / part
            return
    yield place


def _cgroup_path(root: Path, controller: str) -> PurePosixPath | None:
    """Return the path in /proc/self/cgroup (lines ``number:controllers:path``)."""
    for line in _lines(root / "proc/self/cgroup"):
        _, controllers, path = line.split(":", 2)
        if controller in controllers.split(","):
            return PurePosixPath(path)
    return None


def _mount(root: Path, kind: str, controller: str) -> tuple[PurePosixPath, Path] | None:
    """Return what of a hierarchy is mounted, and where (see /proc/self/mountinfo in proc(5))."""
    for line in _lines(root / "proc/self/mountinfo"):
        before, _, after = line.partition(" - ")
        found, _, options = after.split(" ", 2)
        if found == kind and (not controller or controller in options.split(",")):
            shown, place = before.split(" ")[3:5]
            return PurePosixPath(shown), root / place.lstrip("/")
    return None


def _quota(words: list[str]) -> float | None:
    """Return the processors that are granted: of ``150000 100000``, microseconds, 1.5."""
    match words:
        case [granted, period] if granted not in ("max", "-1"):  # no limit, in version 2 and 1
            return int(granted) / int(period)
    return None


def _old_quota(folder: Path) -> float | None:
    return _quota(_words(folder / "cpu.cfs_quota_us") + _words(folder / "cpu.cfs_period_us"))


def _bytes(file: Path) -> int | None:
    words = _words(file)
    return None if words in ([], ["max"]) else int(words[0])


def _machine_bytes(root: Path) -> int | None:
    for line in _lines(root / "proc/meminfo"):
        if line.startswith("MemTotal:"):
            return int(line.split()[1]) * 1024
    return None


def _words(file: Path) -> list[str]:
    return [word for line in _lines(file) for word in line.split()]


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text(errors="surrogateescape").splitlines()
    except OSError:  # not this kernel's, or hidden
        return []
