"""Load for a server over real sockets: requests at a fixed rate, or as fast as answers come.

Under a fixed rate (an open loop) a request is sent when its time has come, whether earlier ones
were answered or not, as the public does; so a server cannot slow its own load down. Every latency
is known from the moment it was meant to be sent and from the moment it was. Connections are kept
alive and used again; more are opened when all are busy.
"""

import asyncio
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeVar, cast
from urllib.parse import urlsplit

import httptools
import numpy as np
import uvloop

T = TypeVar("T")
PATIENCE_S: Final = 40.0  # a request without an answer for so long has failed


@dataclass(slots=True)
class Reply:
    """What came of one request; times are seconds on the event loop's clock."""

    meant: float  # when it should have been sent
    begun: float = 0.0  # when the generator came to it
    sent: float = 0.0  # when there was a connection for it
    ended: float = 0.0
    status: int = 0  # 0: no whole answer came
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""

    @property
    def latency_ms(self) -> float:
        """From the moment it was meant to be sent."""
        return (self.ended - self.meant) * 1000

    @property
    def late_ms(self) -> float:
        """By how much the generator was late, whatever the server did."""
        return (self.begun - self.meant) * 1000

    @property
    def refused(self) -> bool:
        """It was turned away properly: 503 or 429, and told when to come again."""
        return self.status in (429, 503) and self.headers.get("retry-after", "").isdecimal()


def percentile(values: Sequence[float], share: float) -> float:
    """Return the ``share`` quantile of ``values``, that of the next larger one; nan for none."""
    return float(np.quantile(values, share, method="higher")) if len(values) else float("nan")


def latencies_ms(replies: Sequence[Reply]) -> list[float]:
    """Return every latency from the moment the request was meant to be sent."""
    return [reply.latency_ms for reply in replies]


def request_bytes(method: str, target: str, body: bytes = b"", **headers: str) -> bytes:
    """Return a whole HTTP/1.1 request; an underscore in a header's name stands for a hyphen."""
    given = {"Host": "lookalike", "Content-Length": str(len(body))}
    given |= {name.replace("_", "-"): value for name, value in headers.items()}
    lines = [f"{method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in given.items())]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


class Connection(asyncio.Protocol):
    """One connection that carries one request after the other."""

    def __init__(self, patience_s: float) -> None:
        self.usable = False
        self._patience_s = patience_s
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._reply: Reply | None = None
        self._answered: asyncio.Future[None] | None = None

    async def exchange(
        self, request: bytes, reply: Reply, *, pause: tuple[int, float] | None = None
    ) -> None:
        """Send ``request`` and fill ``reply``; its status stays 0 when the connection breaks.

        ``pause`` is the number of bytes after which sending pauses, and for how many seconds.
        """
        assert self._transport is not None
        loop = asyncio.get_running_loop()
        self._reply, self._answered = reply, loop.create_future()
        reply.sent = loop.time()
        if pause is not None:
            self._transport.write(request[: pause[0]])
            await asyncio.sleep(pause[1])
            request = request[pause[0] :]
        self._transport.write(request)
        try:
            await asyncio.wait_for(self._answered, self._patience_s)
        except TimeoutError:
            self.close()
        reply.ended = loop.time()

    def close(self) -> None:
        self.usable = False
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport, self.usable = cast("asyncio.Transport", transport), True

    def connection_lost(self, error: Exception | None) -> None:
        self.usable = False
        if self._answered is not None and not self._answered.done():
            self._answered.set_result(None)

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:  # no answer at all, and nothing more to come
            self.close()

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._reply is not None:
            self._reply.headers[name.decode().lower()] = value.decode()

    def on_body(self, data: bytes) -> None:
        if self._reply is not None:
            self._reply.body += data

    def on_message_complete(self) -> None:
        if self._reply is None or self._answered is None or self._answered.done():
            return
        self._reply.status = self._parser.get_status_code()
        if not self._parser.should_keep_alive():
            self.close()
        self._reply = None
        self._answered.set_result(None)


class Client:
    """Connections to one server; as many are open as were ever needed at once."""

    def __init__(self, url: str, *, patience_s: float = PATIENCE_S) -> None:
        self.url = url
        address = urlsplit(url)
        self._patience_s = patience_s
        self._where = (address.hostname, address.port)
        self._idle: list[Connection] = []
        self._open: set[Connection] = set()

    async def __aenter__(self) -> "Client":
        return self

    async def __aexit__(self, *_: object) -> None:
        for connection in self._open:
            connection.close()
        await asyncio.sleep(0)  # closing takes one turn of the loop

    async def open(self, count: int) -> list[Connection]:
        """Return ``count`` new connections, which nobody else uses."""
        return [await self._new() for _ in range(count)]

    async def connect(self, count: int) -> None:
        """Have ``count`` more connections open before they are needed."""
        self._idle += await self.open(count)

    async def request(self, request: bytes, *, meant: float | None = None) -> Reply:
        """Send ``request`` on a connection that is free, and return what came of it."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        reply = Reply(meant=now if meant is None else meant, begun=now)
        try:
            connection = self._free() or await self._new()
        except OSError:  # the server is gone, or takes no more
            reply.sent = reply.ended = loop.time()
            return reply
        await connection.exchange(request, reply)
        if connection.usable:
            self._idle.append(connection)
        else:
            self._open.discard(connection)
        return reply

    def _free(self) -> Connection | None:
        while self._idle:
            connection = self._idle.pop()
            if connection.usable:
                return connection
            self._open.discard(connection)
        return None

    async def _new(self) -> Connection:
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(
            lambda: Connection(self._patience_s), *self._where
        )
        self._open.add(connection)
        return connection


async def at_rate(client: Client, request: bytes, *, rate: float, seconds: float) -> list[Reply]:
    """Send ``request`` ``rate`` times a second, whatever comes back; return all replies."""
    loop = asyncio.get_running_loop()
    started = loop.time()
    waiting = []
    for number in range(round(rate * seconds)):
        meant = started + number / rate
        await asyncio.sleep(max(0.0, meant - loop.time()))
        waiting.append(asyncio.create_task(client.request(request, meant=meant)))
    return list(await asyncio.gather(*waiting))


async def in_lanes(client: Client, request: bytes, *, lanes: int, seconds: float) -> list[Reply]:
    """Send ``request`` in ``lanes`` at once, each as soon as its last one was answered."""
    loop = asyncio.get_running_loop()
    until = loop.time() + seconds
    replies: list[Reply] = []

    async def lane() -> None:
        while loop.time() < until:
            replies.append(await client.request(request))

    await asyncio.gather(*(lane() for _ in range(lanes)))
    return replies


def answered_rate(replies: Sequence[Reply]) -> float:
    """Return how many a second were answered with 200, from the first sent to the last answer."""
    good = [reply for reply in replies if reply.status == 200]
    if not good:
        return 0.0
    seconds = max(reply.ended for reply in good) - min(reply.sent for reply in replies)
    return len(good) / seconds


def run(main: Coroutine[None, None, T]) -> T:
    """Run ``main`` on an event loop that costs the server as little as possible."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main)
