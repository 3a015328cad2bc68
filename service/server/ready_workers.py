"""Which workers of a server can answer: a file named by the process of each that can.

All workers listen on one socket, so a request reaches any of those that accept connections. Each
starts to once it can answer. While none can, one of them answers probes: whoever holds a lock.
"""

import os
from contextlib import suppress
from pathlib import Path
from typing import Final

from files.locks import take_lock
from files.processes import is_alive, started_ticks
from service.telemetry.health import ServerReadiness

ENCODER: Final = "encoder"  # folder in that of the server: of the process with the network


class ReadyWorkers:
    """The workers of a server that can answer, in the folder that they share.

    A server has started when all of its workers could answer once. From then on it is ready
    whenever one of them can: those that take another's place listen only once they can too.
    """

    def __init__(self, folder: Path, *, size: int) -> None:
        self._folder = folder
        self._size = size  # workers that there are to be
        self._probes_lock: int | None = None  # held for as long as this process answers probes

    def add(self) -> None:
        """Note that this worker can answer."""
        pid = os.getpid()
        self._folder.mkdir(mode=0o700, exist_ok=True)
        (self._folder / f"ready.{pid}.{started_ticks(pid)}").touch()
        (self._folder / "failure").unlink(missing_ok=True)

    def pids(self) -> set[int]:
        """Return the processes that can answer."""
        names = [path.name.split(".") for path in self._folder.glob("ready.*")]
        return {int(pid) for _, pid, ticks in names if is_alive(int(pid), int(ticks))}

    def was_ready(self, pid: int) -> bool:
        """Return whether a process could answer, which may have ended since."""
        return any(self._folder.glob(f"ready.{pid}.*"))

    def fail(self, sentence: str) -> None:
        """Note why a worker will never be able to answer."""
        with suppress(OSError):  # the log says it too
            self._folder.mkdir(mode=0o700, exist_ok=True)
            (self._folder / "failure").write_text(sentence)

    def failure(self) -> str | None:
        """Return why a worker could not start, since the last that could; ``None``: none said."""
        try:
            return (self._folder / "failure").read_text()
        except OSError:
            return None

    def readiness(self) -> ServerReadiness:
        """Return how many can answer, of how many, and whether all of them could once."""
        ready, started = len(self.pids()), self._folder / "started"
        if ready >= self._size and not started.exists():
            started.touch()
        return ServerReadiness(ready, self._size, has_started=started.exists())

    def take_probes(self) -> bool:
        """Return whether this worker is the one that answers probes while none can answer."""
        if self._probes_lock is None and not self.pids():
            with suppress(BlockingIOError):
                self._probes_lock = take_lock(self._folder / "probes.lock", wait=False)
        return self._probes_lock is not None

    def release_probes(self) -> None:
        """Let another worker answer them, should it be needed; the end of a process does too."""
        if self._probes_lock is not None:
            os.close(self._probes_lock)
            self._probes_lock = None
