"""A module of this package at work in a process of its own: what it says comes in, line by line.

The module prints JSON objects, one per line. What it is at comes first; the last line says what it
``made``, or why not. It ends with the process that started it.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from files.module_command import module_command, module_environment
from files.processes import end_with_parent
from files.resource_limits import limit_threads

Message = dict[str, Any]


class ChildProcess:
    """One run of a module. ``stop`` may be called from another thread."""

    def __init__(self, module: str, *arguments: str, folder: Path | None = None) -> None:
        """Start nothing yet; ``folder`` is where it will run, ``None``: where this process does."""
        self._command = module_command(module, *arguments, str(os.getpid()))
        self._folder = folder
        self._process: subprocess.Popen[str] | None = None
        self._stopped = False

    def listen(self, on_message: Callable[[Message], object]) -> tuple[Message, int]:
        """Run it to its end and return the last message, empty if there was none, and the status.

        Should ``on_message`` raise, the process is ended, and that is raised, unless by then the
        process had made what it is for.

        Raises:
            OSError: it cannot be started.
        """
        environment = module_environment()
        limit_threads(environment)
        self._process = subprocess.Popen(
            self._command,
            stdout=subprocess.PIPE,
            text=True,
            errors="replace",
            env=environment,
            cwd=self._folder,
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
            except BaseException as error:  # of ``on_message``, or an interrupt: nobody waits
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


def serve_parent(work: Callable[..., Message], *, niceness: int) -> int:
    """Do ``work`` within the process, as long as its parent lives; return the exit status.

    Args:
        work: takes the arguments that ``ChildProcess`` was given; its message comes last.
        niceness: steps of the scheduler below the parent.
    """
    *arguments, parent = sys.argv[1:]
    end_with_parent(int(parent))
    os.nice(niceness)
    message = work(*arguments)
    send_message(message)
    return 0 if "made" in message else 1


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
