"""The connections of one worker beside each other: who may open one more, and who makes room.

One client may not have all of them, and one that only waits gives way to one that asks.
"""

import asyncio
from collections import Counter
from collections.abc import Collection
from typing import Final, Protocol

from service.errors import OverloadedError, RetryableError, TooManyRequestsError
from service.security.trusted_proxies import TrustedProxies, is_unix_socket
from service.server.deadlines import Phase

SHARE: Final = 0.75  # of all connections, that one address may have


class CountedConnection(Protocol):
    """An open connection."""

    transport: asyncio.Transport
    client: tuple[str, int] | None
    server: tuple[str, int | None] | None
    phase: Phase
    entered: float  # when it entered its phase; the loop's clock, seconds


class ConnectionLimits:
    """Counts the connections of each address; used on one event loop."""

    def __init__(self) -> None:
        self.most = 0  # connections; set before the worker listens
        self.proxies = TrustedProxies()  # behind which are many clients
        self._open: dict[CountedConnection, None] = {}
        self._of: Counter[str] = Counter()

    def enter(self, connection: CountedConnection) -> RetryableError | None:
        """Count one more, close an idle one where that makes room, or return why there is none."""
        address = _address(connection)
        self._open[connection] = None
        self._of[address] += 1
        if self._of[address] > max(1, int(self.most * SHARE)) and not (
            is_unix_socket(connection.server) or self.proxies.are_trusted(address)
        ):
            of_address = [one for one in self._open if _address(one) == address]
            if not _give_up_idlest(of_address, but=connection):
                return TooManyRequestsError(
                    f"{self._of[address] - 1} connections of this address are at work; "
                    "try again shortly"
                )
        elif len(self._open) > self.most and not _give_up_idlest(self._open, but=connection):
            return OverloadedError("too many connections are open; try again shortly")
        return None

    def leave(self, connection: CountedConnection) -> None:
        """Count one fewer; nothing happens when it was never counted."""
        if connection in self._open:
            del self._open[connection]
            address = _address(connection)
            self._of[address] -= 1
            if not self._of[address]:
                del self._of[address]


def _address(connection: CountedConnection) -> str:
    return connection.client[0] if connection.client else ""


def _give_up_idlest(connections: Collection[CountedConnection], *, but: CountedConnection) -> bool:
    """Close the one that has waited longest for a request, and return whether there was one."""
    idle = [one for one in connections if one.phase is Phase.IDLE and one is not but]
    if not idle:
        return False
    min(idle, key=lambda one: one.entered).transport.close()
    return True
