"""Which workers of a server can answer, and which are asked though they cannot yet.

All workers listen on one socket, so a request reaches any of them. A server is ready when none of
those that listen is still loading, and a replacement takes no request before it can answer.
"""

import os
from pathlib import Path

from service.board import begun_ticks


class Roster:
    """How far the workers of a server are: a file named by the process of each."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def begin(self) -> bool:
        """Note that this worker loads while it listens; return False if it should not listen yet.

        It should not when another can answer. Of two that begin at once, one sees the other.
        """
        if self.has_another():
            return False
        self.note_unable()
        if self.has_another():  # since a moment ago, and it may not have seen the note
            self._file("loading").unlink(missing_ok=True)
            return False
        return True

    def note_unable(self) -> None:
        """Note that this worker listens though it has not loaded everything."""
        self._write("loading")

    def enter(self) -> None:
        """Note that this worker has loaded everything."""
        self._write("ready")
        self._file("loading").unlink(missing_ok=True)

    def has_another(self) -> bool:
        """Return whether another living worker has loaded everything."""
        return bool(self.living() - {os.getpid()})

    def living(self) -> set[int]:
        """Return those that have, and have not ended."""
        return self._living("ready")

    def unable(self) -> set[int]:
        """Return those that listen though they have not, and have not ended."""
        return self._living("loading")

    def _living(self, what: str) -> set[int]:
        names = [path.name.split(".") for path in self._folder.glob(f"{what}.*")]
        # A process id may come again, but not with the same beginning.
        return {int(pid) for _, pid, ticks in names if begun_ticks(int(pid)) == int(ticks)}

    def _write(self, what: str) -> None:
        self._folder.mkdir(mode=0o700, exist_ok=True)
        self._file(what).touch()

    def _file(self, what: str) -> Path:
        pid = os.getpid()
        return self._folder / f"{what}.{pid}.{begun_ticks(pid)}"
