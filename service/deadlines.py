"""What a connection waits for and until when, and the one timer that looks at all of a worker's."""

import asyncio
from collections.abc import Set as AbstractSet
from enum import Enum, auto
from typing import Final, Protocol

LOOK_S: Final = 0.25  # between two looks


class Phase(Enum):
    """What a connection waits for, which decides what its deadline means."""

    IDLE = auto()  # the first byte of a request
    HEAD = auto()  # the rest of its headers
    BODY = auto()  # the rest of its body
    WORK = auto()  # our answer
    LINGER = auto()  # the client, to read the answer and go


class Watched(Protocol):
    """A connection with deadlines."""

    def check_deadlines(self) -> None:
        """End what took too long."""


class Watch:
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
