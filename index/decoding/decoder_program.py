"""The program of a decoding process: a job in, then questions in and answers out.

Run as ``python -m index.decoding.decoder_program SOCKET PIXELS``, with two open files of
``index.decoding.decoder_process``. It ends when nobody can ask it any more.
"""

import mmap
import os
import sys
from multiprocessing.connection import Connection
from typing import Any, Final, NamedTuple, Protocol

from vision.image.decode import harden_pillow

# The threads of a network wait for one another, often by spinning: none of them should be kept from
# its core by what is decoded ahead. Decoders have the cores whenever the network waits for them.
POLITE: Final = 5  # steps of the scheduler; a core that is wanted by both goes to it by 1 to 3


class Line(NamedTuple):
    """What a decoding process shares with whoever asks it."""

    connection: Connection
    memory: mmap.mmap  # for pixels, until the process ends
    file: int  # that the memory belongs to


class Job(Protocol):
    """What a decoding process is for; it is pickled on its way there."""

    def begin(self) -> None:
        """Prepare this process, once."""

    def answer(self, asked: Any, line: Line) -> Any:
        """Answer one question; what is raised is raised where it was asked."""


def main(socket: int, pixels: int) -> None:
    """Serve whoever holds the other end of ``socket``; ``pixels`` is the memory shared with it."""
    harden_pillow()
    os.nice(POLITE)
    with Connection(socket) as connection:
        line = Line(connection, mmap.mmap(pixels, 0), pixels)
        try:
            job: Job = connection.recv()
            job.begin()
            connection.send(None)
            while True:
                connection.send(_answer(job, connection.recv(), line))
        except (EOFError, ConnectionError):  # whoever asked has ended, in whatever way
            return


def _answer(job: Job, asked: Any, line: Line) -> Any:
    try:
        return job.answer(asked, line)
    except Exception as error:
        return error


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
