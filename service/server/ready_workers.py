"""Which workers of a server can answer: a file named by the process of each that can.

All workers listen on one socket, so a request reaches any of those that accept connections. Each
begins to once it can answer. While none can, one of them answers probes: whoever has the door.
"""

import os
from contextlib import suppress
from pathlib import Path

from files.locks import take_lock
from files.processes import is_alive, started_ticks
from service.telemetry.health import Standing


class Roster:
    """How far the workers of a server are, in the folder that they share.

    A server has begun when all of its workers could answer once. From then on it is ready whenever
    one of them can: those that take another's place listen only once they can too.
    """

    def __init__(self, folder: Path, *, size: int) -> None:
        self._folder = folder
        self._size = size  # workers that there are to be
        self._door: int | None = None  # open and locked for as long as this process has it

    def enter(self) -> None:
        """Note that this worker can answer."""
        pid = os.getpid()
        self._folder.mkdir(mode=0o700, exist_ok=True)
        (self._folder / f"able.{pid}.{started_ticks(pid)}").touch()

    def able(self) -> set[int]:
        """Return the processes that can answer."""
        names = [path.name.split(".") for path in self._folder.glob("able.*")]
        return {int(pid) for _, pid, ticks in names if is_alive(int(pid), int(ticks))}

    def standing(self) -> Standing:
        """Return how many can answer, of how many, and whether all of them could once."""
        able, begun = len(self.able()), self._folder / "begun"
        has_begun = begun.exists()
        if able >= self._size and not has_begun:
            begun.touch()
            has_begun = True
        return Standing(able, self._size, has_begun=has_begun)

    def take_door(self) -> bool:
        """Return whether this worker is the one that answers probes while none can answer."""
        if self._door is None and not self.able():
            with suppress(BlockingIOError):
                self._door = take_lock(self._folder / "door", wait=False)
        return self._door is not None

    def leave_door(self) -> None:
        """Let another worker have it, should it be needed again; the end of a process does too."""
        if self._door is not None:
            os.close(self._door)
            self._door = None
