"""A module of this package at work in a process of its own: what it says comes in, line by line.

The module prints JSON objects, one per line. What it is at comes first; the last line says what it
``made``, or why not.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from files.module_command import module_command, module_environment

Message = dict[str, Any]


@dataclass(slots=True, eq=False)
class ChildProcess:
    """One run of the process. ``stop`` may be called from another thread."""

    command: list[str]
    folder: Path | None = None  # that it runs in; ``None``: this process's
    _process: "subprocess.Popen[str] | None" = None
    _stopped: bool = False

    @classmethod
    def of(cls, module: str, *arguments: str, folder: Path | None = None) -> "ChildProcess":
        """Return the run of ``module`` with ``arguments``."""
        return cls(module_command(module, *arguments), folder)

    def run(self, on_message: Callable[[Message], object]) -> tuple[Message, int]:
        """Run it to its end and return the last message, empty if there was none, and the status.

        Should ``on_message`` raise, the process is ended, and that is raised, unless by then the
        process had made what it is for.

        Raises:
            OSError: it cannot be started.
        """
        self._process = subprocess.Popen(
            self.command,
            stdout=subprocess.PIPE,
            text=True,
            errors="replace",
            env=module_environment(),
            cwd=self.folder,
            process_group=0,  # Ctrl-C reaches who started it, and ends it with ``stop``
        )
        with self._process as process:
            if self._stopped:
                process.terminate()
            assert process.stdout is not None
            last: Message = {}
            try:
                for line in process.stdout:
                    message = _message(line)
                    last = message or last
                    on_message(message)
            except (
                BaseException
            ) as error:  # of ``on_message``, or an interrupt: nobody waits for it any more
                process.terminate()
                rest = [_message(line) for line in process.stdout]
                last = rest[-1] if rest else {}
                if "made" not in last or not isinstance(error, Exception):
                    raise  # else whoever stopped it came too late
        return last, process.returncode

    def stop(self) -> None:
        """End the process, if it runs."""
        self._stopped = True
        if self._process is not None:
            self._process.terminate()


def send_message(message: Message) -> None:
    """Tell the parent, from within the process."""
    try:
        sys.stdout.write(json.dumps(message) + "\n")
        sys.stdout.flush()
    except BrokenPipeError:  # whoever wanted to know is gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)


def _message(line: str) -> Message:
    """Return what a line says; nothing when the process was killed amid it, or it is not ours."""
    try:
        message = json.loads(line)
    except ValueError:
        return {}
    return message if isinstance(message, dict) else {}
