"""What a server and all its processes hold, as the kernel counts it."""

import re
import statistics
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Self


@dataclass(frozen=True)
class Usage:
    """What all processes of a server hold at one moment."""

    seconds: float  # on the monotonic clock
    resident_mb: float  # pages that processes share count for each of them
    threads: int
    descriptors: int
    processes: int


def family(pid: int) -> list[int]:
    """Return ``pid`` and all that descend from it."""
    members = [pid]
    for member in members:
        for path in Path(f"/proc/{member}/task").glob("*/children"):
            try:
                members += [int(child) for child in path.read_text().split()]
            except OSError:  # it has just ended
                continue
    return members


def usage(pid: int) -> Usage:
    """Return what ``pid`` and its descendants hold now."""
    resident_kb = threads = descriptors = processes = 0
    for member in family(pid):
        try:
            status = Path(f"/proc/{member}/status").read_text()
            descriptors += sum(1 for _ in Path(f"/proc/{member}/fd").iterdir())
        except OSError:  # it has just ended
            continue
        processes += 1
        resident_kb += sum(map(int, re.findall(r"^VmRSS:\s+(\d+)", status, re.MULTILINE)))
        threads += sum(map(int, re.findall(r"^Threads:\s+(\d+)", status, re.MULTILINE)))
    return Usage(time.monotonic(), resident_kb / 1024, threads, descriptors, processes)


def fair_usage(pid: int) -> Usage:
    """Return the same with shared pages counted once; a fork is no second server."""
    shared_kb = 0
    for member in family(pid):
        try:
            told = Path(f"/proc/{member}/smaps_rollup").read_text()
        except OSError:  # it has just ended
            continue
        shared_kb += sum(map(int, re.findall(r"^Pss:\s+(\d+)", told, re.MULTILINE)))
    return replace(usage(pid), resident_mb=shared_kb / 1024)


class Meter:
    """Looks at a server's processes again and again, on a thread of its own, inside a block."""

    def __init__(
        self, pid: int, every_s: float = 0.5, look: Callable[[int], Usage] = usage
    ) -> None:
        self.samples: list[Usage] = []
        self._pid = pid
        self._every_s = every_s
        self._look = look
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stopping.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stopping.wait(self._every_s):
            self.samples.append(self._look(self._pid))


def growth(samples: Sequence[Usage], what: Callable[[Usage], float]) -> float:
    """Return by how much the last third's median is above the first third's."""
    third = len(samples) // 3
    first = statistics.median(what(one) for one in samples[:third])
    return statistics.median(what(one) for one in samples[-third:]) - first


def slope_per_minute(samples: Sequence[Usage], what: Callable[[Usage], float]) -> float:
    """Return how much ``what`` grows in a minute: the slope of the straight line that fits best."""
    slope, _ = statistics.linear_regression(
        [one.seconds / 60 for one in samples], [what(one) for one in samples]
    )
    return slope
