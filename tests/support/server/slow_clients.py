"""Clients that begin a request and never finish it, and what the server does to them."""

import asyncio
from dataclasses import dataclass, field
from typing import Final, cast
from urllib.parse import urlsplit

_HEAD: Final = b"POST /v1/classify HTTP/1.1\r\nHost: lookalike\r\n"
_BODY_HEAD: Final = _HEAD + b"Content-Type: image/png\r\nContent-Length: 100000\r\n\r\n"


@dataclass(frozen=True)
class Habit:
    """How one kind of slow client behaves: what it says at once, and then every half second."""

    name: str
    first: bytes
    then: bytes = b""


SILENT: Final = Habit("says nothing", b"")
HALF_OPEN: Final = Habit("stops amid the headers", _HEAD + b"Content-Ty")
HEADER_TRICKLE: Final = Habit("sends its headers byte by byte", _HEAD + b"X-Slow: ", b"a")
BODY_TRICKLE: Final = Habit("sends its body byte by byte", _BODY_HEAD, b"a")


@dataclass
class SlowClient(asyncio.Protocol):
    """One such client."""

    habit: Habit
    opened: float = 0.0
    closed: float | None = None  # by the server, on the event loop's clock
    received: bytearray = field(default_factory=bytearray)
    _transport: asyncio.Transport | None = None

    @property
    def open_s(self) -> float:
        """How long the server let it stay; infinite when it never closed."""
        return float("inf") if self.closed is None else self.closed - self.opened

    @property
    def status(self) -> int:
        """What it was answered before that; 0: nothing."""
        return int(self.received.split(b" ", 2)[1]) if self.received else 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self.opened = asyncio.get_running_loop().time()
        self._transport.write(self.habit.first)

    def data_received(self, data: bytes) -> None:
        self.received += data

    def connection_lost(self, error: Exception | None) -> None:
        if self.closed is None:
            self.closed = asyncio.get_running_loop().time()

    async def dawdle(self, *, after_s: float) -> None:
        """Send what comes every half second, first after ``after_s``, until the server closes."""
        assert self._transport is not None
        await asyncio.sleep(after_s)
        while self.closed is None:
            await asyncio.sleep(0.5)
            if self.habit.then and self.closed is None:
                self._transport.write(self.habit.then)

    def leave(self) -> None:
        """Close without having been closed."""
        if self._transport is not None and self.closed is None:
            self.closed = float("inf")
            self._transport.abort()


async def slow_clients(url: str, habit: Habit, count: int) -> list[SlowClient]:
    """Return ``count`` connected clients of one habit."""
    address = urlsplit(url)
    loop = asyncio.get_running_loop()
    clients = []
    for _ in range(count):
        _, client = await loop.create_connection(
            lambda: SlowClient(habit), address.hostname, address.port
        )
        clients.append(client)
    return clients
