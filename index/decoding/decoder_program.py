"""The program of a decoding process: a task in, then questions in and answers out.

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
NICENESS: Final = 5  # steps of the scheduler; a core that is wanted by both goes to it by 1 to 3


class DecoderChannel(NamedTuple):
    """What a decoding process shares with its parent."""

    connection: Connection
    memory: mmap.mmap  # for pixels, until the process ends
    file: int  # that the memory belongs to


class DecoderTask(Protocol):
    """What a decoding process is for; it is pickled on its way there."""

    def prepare(self) -> None:
        """Prepare this process, once."""

    def answer(self, question: Any, channel: DecoderChannel) -> Any:
        """Answer one question; what is raised is raised where it was asked."""


def main(socket: int, pixels: int) -> None:
    """Answer the questions from ``socket``; ``pixels`` is memory shared with the parent."""
    harden_pillow()
    os.nice(NICENESS)
    with Connection(socket) as connection:
        channel = DecoderChannel(connection, mmap.mmap(pixels, 0), pixels)
        try:
            task: DecoderTask = connection.recv()
            task.prepare()
            connection.send(None)
            while True:
                connection.send(_answer(task, connection.recv(), channel))
        except (EOFError, ConnectionError):  # the parent has ended, in whatever way
            return


def _answer(task: DecoderTask, question: Any, channel: DecoderChannel) -> Any:
    try:
        return task.answer(question, channel)
    except Exception as error:
        return error


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
