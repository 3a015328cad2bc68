"""Crash workers in processes of their own: started, listened to, killed."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

from tests.support.crashes.crash_worker_main import Orders
from tests.support.paths import ROOT


class WorkerGroup:
    """The processes of one cycle, in a group of their own, and what they say."""

    def __init__(self, pipe: Path, folder: Path) -> None:
        self._folder = folder
        self.events: list[tuple[bool, list[Any]]] = []  # whether it was read after the cut
        self._cut = threading.Event()
        self._pipe = pipe
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def wait_for_acks(self, count: int, *, timeout_s: float = 30) -> None:
        deadline = time.monotonic() + timeout_s
        while sum(event[0] == "ack" for _, event in self.events) < count:
            assert time.monotonic() < deadline, f"the group does not work: {self.events[-5:]}"
            time.sleep(0.002)

    def kill_rebuilder(self) -> None:
        for pid in self._pids("rebuilder"):
            os.kill(pid, signal.SIGKILL)

    def cut(self, power_off: Callable[[], None]) -> None:
        """Whatever is read from now on may have been said while the power was going."""
        self._cut.set()
        power_off()

    def kill(self) -> None:
        """Kill all of them and read what they had said."""
        for pid in self._pids("group"):
            os.killpg(pid, signal.SIGKILL)
        self._kill_orphans()
        with contextlib.suppress(OSError):  # should it never have begun, nobody else ends this wait
            os.close(os.open(self._pipe, os.O_WRONLY | os.O_NONBLOCK))
        self._reader.join(timeout=60)
        assert not self._reader.is_alive(), "one of the group lives on, with the pipe"

    def _kill_orphans(self) -> None:
        """Kill the rebuilds that the gallery began, which are in groups of their own."""
        deadline = time.monotonic() + 0.05  # for one that was being started
        while time.monotonic() < deadline:
            for process in Path("/proc").glob("[0-9]*"):
                with contextlib.suppress(OSError):  # it has ended meanwhile
                    words = (process / "cmdline").read_bytes().split(b"\0")
                    if (
                        b"index.maintenance.rebuild_process" in words
                        and os.fsencode(self._folder) in words
                    ):
                        os.kill(int(process.name), signal.SIGKILL)
            time.sleep(0.01)

    def _pids(self, kind: str) -> list[int]:
        return [event[1] for _, event in list(self.events) if event[0] == kind]

    def _read(self) -> None:
        rest = b""
        with self._pipe.open("rb", buffering=0) as pipe:
            while piece := pipe.read(65536):
                late = self._cut.is_set()
                *lines, rest = (rest + piece).split(b"\n")
                self.events += [(late, json.loads(line)) for line in lines]


class CrashWorkers:
    """The warmed-up process that forks them."""

    def __init__(self, place: Path) -> None:
        self._pipe = place / "events"
        os.mkfifo(self._pipe)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.crashes.crash_worker_main"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()  # its last line
        self._process.wait(timeout=60)

    @contextlib.contextmanager
    def at_work(self, folder: Path, **orders: Any) -> Iterator[WorkerGroup]:
        """Let a group work on the gallery while the block runs, and kill it in the end."""
        group = WorkerGroup(self._pipe, folder)
        try:
            stdin = self._process.stdin
            assert stdin is not None
            stdin.write(Orders(folder=str(folder), events=str(self._pipe), **orders).line())
            stdin.flush()
            group.wait_for_acks(1)
            yield group
        finally:
            group.kill()
