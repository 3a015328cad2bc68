"""One request and its answer on a connection: ASGI messages in, bytes of HTTP/1.1 out."""

import asyncio
import logging
import re
from http import HTTPStatus
from typing import Any, Final, Protocol

from starlette.types import Message, Receive, Scope, Send
from uvicorn.protocols.http.flow_control import FlowControl

logger = logging.getLogger("lookalike.service")

_STATUS_LINES: Final = {
    int(status): f"HTTP/1.1 {status:d} {status.phrase}\r\n".encode() for status in HTTPStatus
}
_UNSAFE: Final = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")  # in the value of a header
_BODILESS: Final = (HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED)


class Application(Protocol):
    """What answers requests (ASGI)."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""


class Connection(Protocol):
    """What a request is read from, and its answer written to."""

    transport: asyncio.Transport
    flow: FlowControl
    default_headers: list[tuple[bytes, bytes]]

    def on_response_complete(self) -> None:
        """Go on with the next request, or close."""


class RequestResponseCycle:
    """A request that arrives piece by piece, and the answer that is written to it.

    ``stop`` is how a deadline ends it: the task is cancelled, and the application, which finds the
    error as ``scope["refusal"]``, answers that instead.
    """

    def __init__(
        self, connection: Connection, scope: Scope, *, keep_alive: bool, expects_100: bool
    ) -> None:
        self.scope = scope
        self.keep_alive = keep_alive
        self.expects_100 = expects_100  # the client waits for a word before it sends the body
        self.body = bytearray()  # what came and was not taken yet
        self.more_body = True
        self.news = asyncio.Event()  # more body, its end, or nobody to answer any more
        self.disconnected = False
        self.response_started = False
        self.response_complete = False
        self._connection = connection
        self._task: asyncio.Task[None] | None = None
        self._is_running = False
        self._has_body = scope["method"] != "HEAD"
        self._is_chunked = False
        self._left: int | None = None  # of the declared answer, bytes

    def start(self, app: Application) -> asyncio.Task[None]:
        """Let ``app`` answer, and return its task."""
        self._task = asyncio.get_running_loop().create_task(self._run(app))
        return self._task

    def stop(self, error: Exception) -> None:
        """End the work, and answer ``error``; an answer that has begun is broken off."""
        self.keep_alive = False
        self.scope["refusal"] = error
        if self._task is not None and self._is_running:
            self._task.cancel()

    def disconnect(self) -> None:
        """End the work: there is nobody to answer."""
        self.disconnected = True
        self.news.set()
        if self._task is not None and not self.response_complete:
            self._task.cancel()

    async def _run(self, app: Application) -> None:
        self._is_running = True
        try:
            await app(self.scope, self.receive, self.send)
        except asyncio.CancelledError:
            pass  # by stop, by disconnect, or by the server at the end of its patience
        except Exception:
            logger.exception("an answer was broken off")
        finally:
            self._is_running = False
            if not self.response_complete:
                self._connection.transport.close()

    async def receive(self) -> Message:
        """Return the next piece of the body, or that the client went away (ASGI)."""
        if self.expects_100:
            self.expects_100 = False
            self._connection.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        if not self.disconnected and not self.response_complete:
            self._connection.flow.resume_reading()
            await self.news.wait()
            self.news.clear()
        if self.disconnected or self.response_complete:
            return {"type": "http.disconnect"}
        body, self.body = bytes(self.body), bytearray()
        return {"type": "http.request", "body": body, "more_body": self.more_body}

    async def send(self, message: Message) -> None:
        """Write the head or a piece of the answer, when the client has read enough (ASGI)."""
        flow = self._connection.flow
        if flow.write_paused and not self.disconnected:
            await flow.drain()
        if self.disconnected:
            return
        if not self.response_started:
            self.response_started = True
            self._connection.transport.write(self._head(message))
        else:
            self._write(message.get("body", b""), more=message.get("more_body", False))

    def _head(self, message: Message) -> bytes:
        status = message["status"]
        if self.expects_100:  # nobody knows whether the body will still come
            self.keep_alive = False
        lines = [_STATUS_LINES[status]]
        for name, value in (*self._connection.default_headers, *message.get("headers", ())):
            if _UNSAFE.search(value):
                raise ValueError(f"the header {name!r} has a control character in its value")
            if name == b"connection":
                self.keep_alive = self.keep_alive and value.lower() != b"close"
                continue
            if name == b"content-length":
                self._left = int(value)
            lines += (name, b": ", value, b"\r\n")
        if not self.keep_alive:
            lines.append(b"connection: close\r\n")
        self._is_chunked = self._left is None and self._has_body and status not in _BODILESS
        if self._is_chunked:
            lines.append(b"transfer-encoding: chunked\r\n")
        lines.append(b"\r\n")
        return b"".join(lines)

    def _write(self, body: bytes, *, more: bool) -> None:
        transport: Any = self._connection.transport
        if self._is_chunked:
            if body:
                transport.write(b"%x\r\n%b\r\n" % (len(body), body))
            if not more:
                transport.write(b"0\r\n\r\n")
        elif self._has_body and self._left is not None:
            if len(body) > self._left or (not more and len(body) < self._left):
                raise RuntimeError(f"the answer lacks or exceeds its length by {self._left} bytes")
            self._left -= len(body)
            transport.write(body)
        if not more:
            self.response_complete = True
            self.news.set()
            self._connection.on_response_complete()
