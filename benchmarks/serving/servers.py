"""Starts and stops a server, and asks the kernel what all of its processes use.

A server's processes are found by a mark in their environment, which children inherit: some rivals
start daemons that no longer hang on the process that was started.
"""

import os
import re
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

MARK = "BENCHMARK_SERVER"
READY_WITHIN_S = 180
STOP_WITHIN_S = 30
TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Memory:
    """Megabytes (2**20 bytes) of all processes of a server."""

    resident: float  # pages that several processes share count once for each
    proportional: float  # shared pages count once in all
    processes: int


@dataclass(frozen=True)
class Server:
    """A server that answers."""

    url: str
    mark: str
    start_s: float  # from its start to the first good answer

    def pids(self) -> list[int]:
        """Return its processes."""
        return _marked(self.mark)

    def cpu_s(self) -> float:
        """Return the processor time that its processes, and their ended children, have used."""
        total = 0
        for pid in self.pids():
            with suppress(OSError):
                fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
                total += sum(map(int, fields[11:15]))  # utime, stime, cutime, cstime
        return total / TICKS

    def memory(self) -> Memory:
        """Return what its processes have in memory."""
        resident = proportional = processes = 0
        for pid in self.pids():
            with suppress(OSError):
                text = Path(f"/proc/{pid}/smaps_rollup").read_text()
                resident += int(re.findall(r"^Rss:\s+(\d+)", text, re.MULTILINE)[0])
                proportional += int(re.findall(r"^Pss:\s+(\d+)", text, re.MULTILINE)[0])
                processes += 1
        return Memory(resident / 1024, proportional / 1024, processes)


@contextmanager
def running(
    command: Sequence[str],
    *,
    environment: Mapping[str, str],
    port: int,
    answers: Callable[[str], bool],
    log: Path,
) -> Iterator[Server]:
    """Run a server until the end of the block; all its processes are gone then.

    Args:
        command: starts it.
        environment: added to ours.
        port: that it will listen on.
        answers: whether the server at this URL gives a good answer by now.
        log: the file for what it prints.
    """
    mark = uuid.uuid4().hex
    url = f"http://127.0.0.1:{port}"
    with log.open("wb") as out:
        started = time.perf_counter()
        process = subprocess.Popen(
            command,
            env={**os.environ, **environment, MARK: mark, "PORT": str(port)},
            stdout=out,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
        )
    try:
        while not answers(url):
            if process.poll() is not None:
                sys.exit(f"{' '.join(command)} ended; see {log}")
            if time.perf_counter() - started > READY_WITHIN_S:
                sys.exit(f"{' '.join(command)} gave no answer; see {log}")
            time.sleep(0.02)
        yield Server(url, mark, time.perf_counter() - started)
    finally:
        process.send_signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=STOP_WITHIN_S)
        while left := _marked(mark):
            for pid in left:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            process.poll()
            time.sleep(0.05)


def free_port() -> int:
    """Return a port of which it and the next two are free now."""
    while True:
        with socket.socket() as first:
            first.bind(("127.0.0.1", 0))
            port: int = first.getsockname()[1]
            with socket.socket() as second, socket.socket() as third, suppress(OSError):
                second.bind(("127.0.0.1", port + 1))
                third.bind(("127.0.0.1", port + 2))
                return port


def _marked(mark: str) -> list[int]:
    wanted = f"{MARK}={mark}".encode()
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with suppress(OSError):
                if wanted in (entry / "environ").read_bytes().split(b"\0"):
                    found.append(int(entry.name))
    return found
