"""What a connection waits for and until when, and the one timer that looks at all of a worker's."""

import asyncio
from collections.abc import Set as AbstractSet
from enum import Enum, auto
from typing import Final, Protocol

from service.errors import MalformedRequestError, SlowRequestError

LOOK_S: Final = 0.25  # between two looks
LEAST_RATE: Final = 1024  # bytes of a body a second, on average after the pause that is allowed
HEAD_START_S: Final = 120.0  # in which a body may come at that rate; then it needs the steady one
LEAST_PIECE: Final = 64  # bytes of a piece of a body, on average once there are many
MANY_PIECES: Final = 1024
STEADY_RATE: Final = 8192  # bytes of a body a second, on average after the head start


class Phase(Enum):
    """What a connection waits for, which decides what its deadline means."""

    IDLE = auto()  # the first byte of a request
    HEAD = auto()  # the rest of its headers
    BODY = auto()  # the rest of its body
    WORK = auto()  # our answer
    LINGER = auto()  # the client, to read the answer and go


class Arrival:
    """A body on its way: it may be long and slow, but it may not stall, nor trickle for ever.

    So one of n bytes has come within HEAD_START_S + n / STEADY_RATE seconds, or is refused: 20 MiB
    within 45 minutes. A photo of 3 MB over a slow phone's 10 kB/s takes five.
    """

    def __init__(self, pause_s: float, head_start_s: float = HEAD_START_S) -> None:
        self._pause_s = pause_s
        self._head_start_s = max(head_start_s, pause_s)
        self._begun = 0.0
        self._bytes = 0
        self._pieces = 0

    def begin(self, now: float) -> None:
        """Take note that a body begins to arrive at ``now``, seconds."""
        self._begun = now
        self._bytes = self._pieces = 0

    def deadline(self, now: float, size: int) -> float:
        """Return by when more must come, now that a piece of ``size`` bytes has.

        Raises:
            MalformedRequestError: the pieces are so small that reading them is all that is done.
        """
        self._bytes += size
        self._pieces += 1
        if self._pieces > MANY_PIECES and self._bytes < LEAST_PIECE * self._pieces:
            raise MalformedRequestError(
                f"the body comes in more than {MANY_PIECES} pieces of fewer than {LEAST_PIECE} "
                "bytes; send larger chunks"
            )
        return min(
            min(now, self._begun + self._bytes / LEAST_RATE) + self._pause_s,
            self._begun + self._head_start_s + self._bytes / STEADY_RATE,
        )

    def error(self) -> SlowRequestError:
        """Return what is said of one that did not go on."""
        return SlowRequestError(
            f"no byte of the body came for {self._pause_s:g} seconds, or fewer than {LEAST_RATE} a "
            f"second on average, or fewer than {STEADY_RATE} after {self._head_start_s:g} seconds"
        )


class Watched(Protocol):
    """A connection with deadlines."""

    def check_deadlines(self) -> None:
        """End what took too long."""


class DeadlineTimer:
    """Looks at a worker's connections a few times a second.

    One timer for all of them: a request that ends in time costs no timer of its own.
    """

    def __init__(self) -> None:
        self._is_scheduled = False

    def look_after(self, connections: AbstractSet[Watched]) -> None:
        """Look until no connection is left."""
        if not self._is_scheduled:
            self._is_scheduled = True
            asyncio.get_running_loop().call_later(LOOK_S, self._look, connections)

    def _look(self, connections: AbstractSet[Watched]) -> None:
        self._is_scheduled = False
        for connection in [*connections]:
            connection.check_deadlines()
        if connections:
            self.look_after(connections)
