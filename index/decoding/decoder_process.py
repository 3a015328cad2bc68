"""A decoding process, seen from its parent: questions in, answers out, or how it died."""

import os
import socket
import struct
import subprocess
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final

from files.module_command import module_command, module_environment
from index.decoding.decoder_program import DecoderTask

START_S: Final = 60.0  # within which a process has started
STALL_S: Final = 5  # that the other end may take for the next piece of a message, with a deadline
# Each process decodes on one core; libraries of numpy's would start threads for all of them, and
# glibc would set 64 MiB of addresses aside for each thread that there is.
ONE_THREAD: Final = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "MALLOC_ARENA_MAX": "1",
}


class DecoderDiedError(Exception):
    """A process ended while it was asked something, or was ended."""

    cpu_s = 0.0  # processor time that it had taken for the question


class DecoderProcess:
    """One process, in a group of its own: Ctrl-C at the terminal reaches the parent alone.

    It ends by itself when the socket to it does, and so with its parent, however that ends.
    """

    def __init__(self, task: DecoderTask, shared: int) -> None:
        """Start it; ``shared`` is the open file of the memory that its pixels go to."""
        ours, theirs = socket.socketpair()
        with theirs:
            fds = (theirs.fileno(), shared)
            self._process = subprocess.Popen(
                module_command("index.decoding.decoder_program", *map(str, fds)),
                stdin=subprocess.DEVNULL,
                pass_fds=fds,
                env=module_environment(**ONE_THREAD),
                process_group=0,
            )
        self._connection = Connection(ours.detach())
        self._is_ready = False
        with suppress(OSError):  # what became of it is seen when it is asked
            self._connection.send(task)

    def ask(
        self,
        question: object,
        *,
        within_s: float | None = None,
        on_need: Callable[[int], None] | None = None,
    ) -> Any:
        """Return the answer to ``question``.

        Args:
            question: as the task takes it.
            within_s: time for the answer; the process is killed where it takes longer.
            on_need: called with each whole number that comes before the answer, such as the memory
                that is needed; the process waits until it returns, and its time does not count.

        Raises:
            DiedError: the process ended, or was ended.
            RuntimeError: it did not start.
            Whatever the task raises.
        """
        if not self._is_ready:
            self._await_start()
        begun_s = 0.0
        if within_s is not None:
            self._bound_messages()
            begun_s = self._cpu_s()
        try:
            self._connection.send(question)
            answer: Any = self._receive(within_s)
            while on_need is not None and isinstance(answer, int):
                on_need(answer)
                self._connection.send(None)
                answer = self._receive(within_s)
        except (EOFError, OSError) as error:
            died = DecoderDiedError()
            died.cpu_s = self._cpu_s() - begun_s
            self.kill()
            raise died from error
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def kill(self) -> None:
        """End the process, and whoever waits for its answer."""
        self._process.kill()
        self._process.wait()

    def close(self) -> None:
        """Close the socket, which nobody may be waiting at."""
        self._connection.close()

    def _cpu_s(self) -> float:
        """Return the processor time that the process has taken, of one that has ended, too."""
        try:
            text = Path(f"/proc/{self._process.pid}/stat").read_text()
        except OSError:  # it was waited for
            return 0.0
        user, system = text.rpartition(")")[2].split()[11:13]  # proc_pid_stat(5)
        return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")

    def _receive(self, within_s: float | None) -> Any:
        if not self._connection.poll(within_s):
            raise TimeoutError
        return self._connection.recv()

    def _bound_messages(self) -> None:
        """Let no piece of a message wait for ever for a process that was stopped."""
        piece = struct.pack("ll", STALL_S, 0)
        with socket.socket(fileno=self._connection.fileno()) as end:
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, piece)
            end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, piece)
            end.detach()

    def _await_start(self) -> None:
        try:
            if not self._connection.poll(START_S):
                raise RuntimeError(f"a decoding process did not start within {START_S:.0f} s")
            self._connection.recv()
        except (EOFError, OSError) as error:
            code = self._process.wait(START_S)
            if code < 0:  # killed
                raise DecoderDiedError from error
            raise RuntimeError(f"a decoding process ended with code {code}") from error
        self._is_ready = True
