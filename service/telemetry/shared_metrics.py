"""The numbers of all workers of one server: each writes its own to a file, anybody adds them up.

A worker that takes the place of one that died has the same index, and goes on counting from what
is in that one's file; so counters never go backwards. Whoever adds up sees only files, its own
written a moment before, so nothing is ever shown that a later reader misses.
"""

import json
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from pydantic_core import to_json

from files.processes import is_alive, started_ticks
from service.telemetry.counters import Numbers

logger = logging.getLogger("lookalike.service")


@dataclass(frozen=True, slots=True)
class Report:
    """What one worker has written."""

    pid: int
    begun: int  # when that process began, in the kernel's ticks: a process id may come again
    numbers: Numbers

    @property
    def is_of_the_living(self) -> bool:
        """Whether the process that wrote it still runs."""
        return is_alive(self.pid, self.begun)

    @classmethod
    def own(cls, numbers: Numbers) -> Self:
        """Return a report of this process."""
        pid = os.getpid()
        return cls(pid, started_ticks(pid) or 0, numbers)


class Board:
    """The folder through which the workers of one server share their numbers."""

    def __init__(self, server_id: str, worker: int) -> None:
        self._folder = shared_folder(server_id)
        self._file = self._folder / f"worker-{worker}.json"
        self._failed = False

    def predecessor(self) -> Numbers:
        """Return what the worker wrote whose place this one takes; nothing if there was none."""
        report = _read(self._file)
        return report.numbers if report is not None else Numbers()

    def write(self, numbers: Numbers) -> Report:
        """Show these numbers to all workers, and return them as a report.

        A folder that cannot be written to is told in the log, once: a service goes on without.
        """
        report = Report.own(numbers)
        data = to_json({"pid": report.pid, "begun": report.begun, **numbers.to_json()})
        unfinished = self._file.with_suffix(".new")
        try:
            self._folder.mkdir(mode=0o700, exist_ok=True)
            unfinished.write_bytes(data)
            unfinished.replace(self._file)
        except OSError as error:
            if not self._failed:
                logger.warning("workers cannot add up their metrics: %s", error)
            self._failed = True
        else:
            self._failed = False
        return report

    def others(self) -> Iterator[Report]:
        """Yield what the other workers wrote last, also those that ended and were not replaced."""
        for path in sorted(self._folder.glob("worker-*.json")):
            if path != self._file and (report := _read(path)) is not None:
                yield report


def shared_folder(server_id: str) -> Path:
    """Return the folder of one server, which may not exist yet."""
    return Path(tempfile.gettempdir()) / f"lookalike-metrics-{server_id}"


def remove_shared_folder(server_id: str) -> None:
    """Remove the folder, at the end of the server."""
    shutil.rmtree(shared_folder(server_id), ignore_errors=True)


def _read(path: Path) -> Report | None:
    try:
        data = json.loads(path.read_bytes())
        return Report(data["pid"], data["begun"], Numbers.from_json(data))
    except (OSError, ValueError, KeyError):  # none there, or not one that we wrote
        return None
