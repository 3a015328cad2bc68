"""The HTTP/1.1 connections of a worker: uvicorn's, with deadlines, limits and our own answers.

Nothing that a client sends, sends slowly, or leaves out keeps a connection, memory or a worker's
time for longer than the settings say. What is wrong with HTTP itself is answered by the gateway,
too, in the shape of every other problem.
"""

import asyncio
import math
from typing import Any, ClassVar, Final

import httptools
from uvicorn.config import Config
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT, FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from service.config import ServiceSettings
from service.errors import (
    MalformedRequestError,
    OverloadedError,
    RequestError,
    SlowRequestError,
    TimedOutError,
)
from service.server.connection_limits import ConnectionLimits
from service.server.deadlines import Arrival, DeadlineTimer, Phase
from service.server.parser import RequestParser
from service.server.request_cycle import Application, RequestResponseCycle
from service.server.request_head import MAX_HEADER_BYTES, RequestHead, headers_too_large

MAX_PIPELINED: Final = 16  # requests sent before the answer to the first
STOPPING_S: Final = 1.0  # for a request that is on its way when the server is told to stop
LINGER_S: Final = 2.0  # for a client to read why, before a connection with unread bytes is reset


class WorkerProtocol(HttpToolsProtocol):
    """One connection.

    Used through a subclass that says what all connections of a worker share, before it listens.
    """

    application: ClassVar[Application]
    settings: ClassVar[ServiceSettings]
    is_stopping: ClassVar[bool] = False  # each answer is the last one of its connection
    watch: ClassVar[DeadlineTimer]
    neighbours: ClassVar[ConnectionLimits]
    parser: RequestParser  # type: ignore[assignment]
    cycle: RequestResponseCycle | None  # type: ignore[assignment]  # the request that arrived last

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, object],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.parser = RequestParser(self)
        self.default_headers = server_state.default_headers
        self.active: RequestResponseCycle | None = None  # the request that is being answered
        self.waiting: list[RequestResponseCycle] = []  # those sent before its answer
        self.phase = Phase.IDLE
        self.entered = 0.0  # when it began; the loop's clock, seconds
        self.deadline = math.inf  # of the phase; the loop's clock, seconds
        self._read_by = math.inf  # when the client must have read what was written
        self.head = RequestHead()
        self._head_begun = False
        self._arrival = Arrival(self.settings.body_timeout_s)
        self._is_deaf = False  # what still comes is not looked at
        self._unparsed = 0  # bytes that came since the parser last had something to tell

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wait for a request; one connection too many is told so, and twice too many are not."""
        self.transport = transport
        self.flow = FlowControl(transport)
        if len(self.connections) >= 2 * self.settings.max_connections:
            transport.abort()
            return
        super().connection_made(transport)
        self._enter(Phase.IDLE, self.settings.header_timeout_s)
        self.watch.look_after(self.connections)  # type: ignore[arg-type]  # all are of this kind
        if refusal := self.neighbours.enter(self):
            self._refuse(refusal)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the work: there is nobody to answer."""
        self.connections.discard(self)
        self.neighbours.leave(self)
        self.waiting.clear()
        if self.active is not None and not self.active.response_complete:
            self.active.disconnect()
        self.flow.resume_writing()
        self.parser = None  # type: ignore[assignment]  # it knows this object too

    def shutdown(self) -> None:
        """Close the connection after the requests that were sent by now (uvicorn)."""
        if self.active is not None and not self.active.response_complete:
            (self.waiting or [self.active])[-1].keep_alive = False
        elif self.phase is Phase.IDLE:
            self._enter(Phase.IDLE, STOPPING_S)

    def data_received(self, data: bytes) -> None:
        """Feed the parser, which calls the ``on_`` functions below."""
        if self._is_deaf:
            return
        self._unparsed += len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserError as error:
            told = error.__context__
            ours = MalformedRequestError("this is not a request of HTTP/1.1")
            self._refuse(told if isinstance(told, RequestError) else ours)
        else:
            if self._unparsed > MAX_HEADER_BYTES:  # one endless header, chunk extension or trailer
                self.head.fault = self.head.fault or headers_too_large()
                self._refuse(self.head.fault)

    def on_message_begin(self) -> None:
        """Take note that a request begins."""
        self.head = RequestHead()
        self._head_begun = True
        if self.phase is Phase.IDLE:
            if self.active is None:  # the time runs since the connection was opened
                self.phase = Phase.HEAD
            else:
                self._enter(Phase.HEAD, self.settings.header_timeout_s)

    def on_url(self, url: bytes) -> None:
        """Collect the path and query."""
        self._unparsed = 0
        self.head.add_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Collect a header, or count a trailer and forget it."""
        self._unparsed = 0
        if self._head_begun:
            self.head.add_header(name, value)
        else:
            self.head.add_trailer(name, value)

    def on_headers_complete(self) -> None:
        """Begin to answer, or let the request wait for its turn."""
        if self.head.fault is not None:
            raise self.head.fault
        if len(self.waiting) >= MAX_PIPELINED:
            raise OverloadedError(f"more than {MAX_PIPELINED} requests came before an answer")
        self._head_begun = False
        version = self.parser.get_http_version()
        method = self.parser.get_method().decode("ascii")
        goes_on = self.parser.should_keep_alive() and not self.is_stopping
        self.cycle = RequestResponseCycle(
            self,
            self.head.scope(method, version, self._about_connection()),
            keep_alive=goes_on and version == "1.1",
            expects_100=self.head.expects_100,
        )
        self._line_up(self.cycle)

    def on_body(self, body: bytes) -> None:
        """Keep a piece of the body for whoever reads it."""
        self._unparsed = 0
        assert self.cycle is not None
        if self.cycle.response_complete:
            return
        if self.phase is Phase.BODY and self.cycle is self.active:
            self.deadline = self._arrival.deadline(self.loop.time(), len(body))
        self.cycle.body += body
        if len(self.cycle.body) > HIGH_WATER_LIMIT:
            self.flow.pause_reading()
        self.cycle.news.set()

    def on_message_complete(self) -> None:
        """Take note that the request is all there."""
        self._unparsed = 0
        assert self.cycle is not None
        self.cycle.more_body = False
        self.cycle.news.set()
        if self.cycle is self.active:
            if self.cycle.response_complete:
                self._enter(Phase.IDLE, self.settings.keep_alive_s)
            else:
                self._enter(Phase.WORK, self.settings.request_timeout_s)

    def on_response_complete(self) -> None:
        """Go on to the next request, or close."""
        assert self.active is not None
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        if not self.active.keep_alive:
            self._finish()
            return
        self.flow.resume_reading()
        if self.waiting:
            self._start(self.waiting.pop(0))
        elif self.active.more_body:
            pass  # the rest is thrown away as it comes, within the deadline of the body
        elif self._head_begun:
            self._enter(Phase.HEAD, self.settings.header_timeout_s)
        else:
            self._enter(Phase.IDLE, self.settings.keep_alive_s)

    def pause_writing(self) -> None:
        """Give the client some time to read (asyncio)."""
        self._read_by = self.loop.time() + self.settings.answer_timeout_s
        self.flow.pause_writing()

    def resume_writing(self) -> None:
        """The client has read (asyncio)."""
        self._read_by = math.inf
        self.flow.resume_writing()

    def check_deadlines(self) -> None:
        """End what took too long."""
        now = self.loop.time()
        if self.transport.is_closing() and self._read_by == math.inf:
            self._read_by = now + self.settings.answer_timeout_s  # the last bytes of an answer
        if now > self._read_by:
            self.transport.abort()
        elif now > self.deadline and not self.transport.is_closing():
            self._expire()

    def _expire(self) -> None:
        self.deadline = math.inf
        active = self.active
        match self.phase:
            case Phase.HEAD:
                seconds = self.settings.header_timeout_s
                self._refuse(SlowRequestError(f"the headers did not arrive within {seconds:g} s"))
            case Phase.BODY if active is not None and not active.response_started:
                self._refuse(self._arrival.error())
            case Phase.WORK if active is not None and not active.response_started:
                seconds = self.settings.request_timeout_s
                active.stop(TimedOutError(f"the work was given up after {seconds:g} seconds"))
            case Phase.LINGER:
                self.transport.abort()
            case Phase.IDLE | Phase.BODY:
                self.transport.close()

    def _refuse(self, error: RequestError) -> None:
        """Answer ``error`` after what was asked before, and look at nothing that still comes."""
        self._is_deaf = True
        arriving = self.cycle
        if arriving is not None and arriving.more_body:
            if arriving.response_started:
                self.transport.close()
            else:
                arriving.stop(error)
            return
        method = self.parser.get_method().decode("ascii")
        scope = self.head.refused_scope(method, self._about_connection(), error)
        self._line_up(RequestResponseCycle(self, scope, keep_alive=False, expects_100=False))

    def _line_up(self, cycle: RequestResponseCycle) -> None:
        if self.active is None or self.active.response_complete:
            self._start(cycle)
        else:
            self.flow.pause_reading()
            self.waiting.append(cycle)

    def _start(self, cycle: RequestResponseCycle) -> None:
        self.active = cycle
        if cycle.more_body:
            self._enter(Phase.BODY, self.settings.body_timeout_s)
            self._arrival.begin(self.entered)
        else:
            self._enter(Phase.WORK, self.settings.request_timeout_s)
        task = cycle.start(self.application)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    def _finish(self) -> None:
        """Close; where bytes are unread, after the client could read why (RFC 9112, 9.6)."""
        assert self.active is not None
        self.waiting.clear()
        if not self.active.more_body or not self.transport.can_write_eof():
            self.transport.close()
            return
        self._is_deaf = True
        self.transport.write_eof()
        self.flow.resume_reading()
        self._enter(Phase.LINGER, LINGER_S)

    def _enter(self, phase: Phase, seconds: float) -> None:
        self.phase = phase
        self.entered = self.loop.time()
        self.deadline = self.entered + seconds

    def _about_connection(self) -> dict[str, Any]:
        return {
            "type": "http",
            "asgi": {"version": self.asgi_version, "spec_version": "2.3"},
            "server": self.server,
            "client": self.client,
            "scheme": self.scheme,
            "root_path": self.root_path,
        }
