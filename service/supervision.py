"""A worker that dies is replaced soon, and its replacement takes no request before it can answer.

The supervising process is BentoML's. It looks at its workers every ten seconds, which no option
changes: that long a server of two workers would be half a server.
"""

import os
from functools import partial
from pathlib import Path
from typing import Final

from bentoml._internal.utils import circus

CHECK_S: Final = 1


def look_often() -> None:
    """Have a supervisor that is made in this process look every second."""
    create = circus.create_standalone_arbiter
    circus.create_standalone_arbiter = partial(create, check_delay=CHECK_S)


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
