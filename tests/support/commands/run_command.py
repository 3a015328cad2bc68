"""Commands of `lookalike` as processes: with streams, a folder, signals and an exit code.

They are forked from a process that has loaded the libraries (fork_server.py). Where it matters how
Python starts (its variables, a home that is not there, closed streams), tests use ``subprocess``.
"""

import atexit
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import IO

from tests.support.commands.fork_server import Order
from tests.support.paths import ROOT
from tests.support.server.servers import clean_environment

COMMAND_S = 900.0  # none takes so long, on the busiest machine
PROGRAM = "cli.main"


class Command:
    """A command under way."""

    def __init__(self, arguments: Sequence[str | bytes], told: socket.socket) -> None:
        self.args = list(arguments)
        self.returncode: int | None = None
        self._told = told
        self.pid = int(told.recv(32))

    def poll(self) -> int | None:
        """Return the exit code, or None while it works; less than 0: the signal that ended it."""
        return self._look(0)

    def wait(self, timeout: float = COMMAND_S) -> int:
        """Wait for the end, and return the exit code.

        Raises:
            TimeoutExpired: it has not ended.
        """
        code = self._look(timeout)
        if code is None:
            raise subprocess.TimeoutExpired(self.args, timeout)
        return code

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal, where it has not ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def _look(self, timeout: float) -> int | None:
        if self.returncode is None and select.select([self._told], [], [], timeout)[0]:
            self.returncode = os.waitstatus_to_exitcode(int(self._told.recv(32)))
            self._told.close()
        return self.returncode


def start(
    arguments: Sequence[str | bytes],
    *,
    cwd: Path,
    env: dict[str, str] | None = None,
    stdin: IO[bytes] | None = None,
    stdout: IO[bytes] | int | None = None,
    stderr: IO[bytes] | int | None = None,
    privileged: bool = True,
) -> Command:
    """Start a command, in a session of its own; a stream that is not named is /dev/null."""
    order = Order(
        module=PROGRAM,
        arguments=[os.fsdecode(word) for word in arguments],
        folder=str(cwd.resolve()),
        environment=clean_environment(COLUMNS="80") if env is None else env,
        privileged=privileged,
    )
    ours, theirs = socket.socketpair(type=socket.SOCK_SEQPACKET)
    with theirs, open(os.devnull, "r+b", buffering=0) as nowhere:
        streams = [stream or nowhere for stream in (stdin, stdout, stderr)]
        numbers = [stream if isinstance(stream, int) else stream.fileno() for stream in streams]
        message = json.dumps(asdict(order)).encode()
        socket.send_fds(_fork_server(), [message], [*numbers, theirs.fileno()])
    return Command(arguments, ours)


def lookalike(
    *arguments: str | bytes,
    cwd: Path = ROOT,
    stdin: IO[bytes] | None = None,
    privileged: bool = True,
    **settings: str,
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, in a folder and a terminal of 80 columns."""
    environment = clean_environment(**{"COLUMNS": "80", **settings})
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as errors:
        command = start(
            arguments, cwd=cwd, env=environment, stdin=stdin, stdout=out, stderr=errors,
            privileged=privileged,
        )  # fmt: skip
        try:
            code = command.wait()
        except subprocess.TimeoutExpired:
            os.killpg(command.pid, signal.SIGKILL)
            raise
        texts = []
        for file in (out, errors):
            file.seek(0)
            texts.append(file.read().decode("utf-8", "surrogateescape"))
    return subprocess.CompletedProcess(command.args, code, *texts)


@cache
def _fork_server() -> socket.socket:
    """Return the socket of this process's fork server, which ends when this process does."""
    ours, theirs = socket.socketpair(type=socket.SOCK_SEQPACKET)
    with theirs:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.commands.fork_server"],
            stdin=theirs,
            cwd=ROOT,
            env={**clean_environment(), "OPENBLAS_NUM_THREADS": "1"},
            start_new_session=True,
        )

    def end() -> None:
        ours.close()
        process.wait(timeout=60)

    atexit.register(end)
    return ours
