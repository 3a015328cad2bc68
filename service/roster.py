"""Which workers of a server can answer, so that a replacement takes no request before it can."""

import os
from pathlib import Path


class Roster:
    """Which workers of a server have loaded everything: a file named by the process of each."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def enter(self) -> None:
        """Note that this worker has."""
        self._folder.mkdir(mode=0o700, exist_ok=True)
        (self._folder / f"ready.{os.getpid()}").touch()

    def has_another(self) -> bool:
        """Return whether another living worker has."""
        return bool(self.living() - {os.getpid()})

    def living(self) -> set[int]:
        """Return those that have, and have not ended."""
        pids = {int(path.suffix[1:]) for path in self._folder.glob("ready.*")}
        return {pid for pid in pids if Path(f"/proc/{pid}").exists()}
