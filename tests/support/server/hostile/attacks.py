"""Kinds of hostile requests, and how clients send them over sockets of their own."""

import asyncio
import contextlib
import itertools
import json
import socket
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final
from urllib.parse import urlsplit

from tests.support.server.load_generator import request_bytes

DEADLINE_S: Final = 45.0  # of a request that may wait, work and be answered
TRICKLE_S: Final = 0.2
CLOSED: Final = 0  # in place of a status: the connection was closed without one
REFUSED: Final = (429, 503)  # the server has too much to do: any request may be told
# In what is sent it is replaced by a number that no request before had.
NUMBER: Final = b"@number@"
_numbers = itertools.count(10**7)


@dataclass(frozen=True)
class Kind:
    """One kind of hostile request; its bytes are made when they are first needed."""

    name: str
    make: Callable[[], bytes]
    ends: tuple[int, ...]  # the statuses that show that it met what it was made for
    trickle: bytes = b""  # goes on to be sent, until there is an answer
    connections: int = 1  # that a client opens for it at once
    unread_s: float = 0.0  # for so long nothing is read, and all of what comes after that
    is_long: bool = False  # takes seconds, or much memory: for the long form alone
    with_keys: bool = False  # the server is one that asks for keys

    @cached_property
    def sent(self) -> bytes:
        """What is sent on each connection."""
        return self.make()

    @property
    def waits(self) -> bool:
        """The server does nothing while it goes on."""
        return not {*self.ends}.isdisjoint({CLOSED, 408})


def json_request(path: str, value: Any, method: str = "POST", **headers: str) -> bytes:
    """Return a request of JSON; bytes are sent as they are."""
    body = value if isinstance(value, bytes) else json.dumps(value).encode()
    return request_bytes(method, path, body, **{"Content_Type": "application/json", **headers})


def form(parts: list[tuple[str, bytes]], path: str = "/v1/classify") -> bytes:
    """Return a form of parts, each of its header lines and its data."""
    body = b"".join(
        b"--b\r\n" + head.encode() + b"\r\n\r\n" + data + b"\r\n" for head, data in parts
    )
    kind = "multipart/form-data; boundary=b"
    return request_bytes("POST", path, body + b"--b--\r\n", Content_Type=kind)


def image(data: bytes, path: str = "/v1/classify", **headers: str) -> bytes:
    """Return a request of one picture."""
    return request_bytes("POST", path, data, Content_Type="image/png", **headers)


async def attack(
    url: str, kind: Kind, *, source: str = "127.0.0.1", deadline_s: float = DEADLINE_S
) -> list[int | None]:
    """Send one such request on each of the kind's connections, from the address ``source``.

    Returns:
        For each the status of the answer, ``CLOSED``, or None: it had no end within the deadline.
    """
    sent = kind.sent.replace(NUMBER, b"%d" % next(_numbers))
    one = (_send(url, kind, sent, source, deadline_s) for _ in range(kind.connections))
    return await asyncio.gather(*one)


async def _send(url: str, kind: Kind, sent: bytes, source: str, deadline_s: float) -> int | None:
    address = urlsplit(url)
    try:
        async with asyncio.timeout(deadline_s):
            reader, writer = await asyncio.open_connection(sock=await _connected(address, source))
            try:
                if kind.unread_s:
                    return await _converse_unread(reader, writer, kind, sent)
                return await _converse(reader, writer, kind, sent)
            finally:
                writer.transport.abort()
    except TimeoutError:
        return None
    except OSError:  # reset: the answer was not worth waiting for
        return CLOSED


async def _connected(address: Any, source: str) -> socket.socket:
    """Return a connection from ``source`` whose buffer for what it has not read is small."""
    one = socket.socket()
    one.setblocking(False)
    one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**16)
    try:
        one.bind((source, 0))
        await asyncio.get_running_loop().sock_connect(one, (address.hostname, address.port))
    except BaseException:
        one.close()
        raise
    return one


async def _converse(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, kind: Kind, sent: bytes
) -> int:
    answer = asyncio.create_task(reader.read(12))
    try:
        writer.write(sent)
        while kind.trickle and not answer.done():
            with contextlib.suppress(ConnectionError):
                writer.write(kind.trickle)
            await asyncio.wait([answer], timeout=TRICKLE_S)
        return _status(await answer)
    finally:
        answer.cancel()


async def _converse_unread(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, kind: Kind, sent: bytes
) -> int:
    """Read late, and to the end, which comes early where the server has given up."""
    writer.transport.pause_reading()  # type: ignore[attr-defined]
    writer.write(sent)
    await asyncio.sleep(kind.unread_s)
    writer.transport.resume_reading()  # type: ignore[attr-defined]
    answers = (await reader.read(-1)).split(b"HTTP/1.1 ")[1:]
    if len(answers) < sent.count(b" HTTP/1.1\r\n"):
        return CLOSED
    return int(answers[-1][:3])


def _status(line: bytes) -> int:
    return int(line.split(b" ")[1]) if line.count(b" ") else CLOSED
