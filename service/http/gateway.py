"""The outermost layer of our application: request ids, keys, headers, metrics, one log line.

It stands before everything BentoML would route, so that only the routes of the contract are
reachable. Written as plain ASGI, because it runs for every request.
"""

import asyncio
import logging
import random
import re
import time
from http import HTTPStatus
from typing import Any, Final, Protocol

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.config import ServiceSettings
from service.errors import NotReadyError
from service.http.problem_details import problem_response
from service.security.allowed_hosts import Hosts
from service.security.authorization import Gate, network_of
from service.security.cors import READING, Cors, refuse_other_sites
from service.security.security_headers import Header, secured
from service.security.trusted_proxies import Proxies
from service.telemetry.json_log import LogLines
from service.telemetry.metrics import WorkerMetrics
from service.telemetry.request_record import note_stage, open_record
from service.telemetry.tracing import Tracing

logger = logging.getLogger("lookalike.request")

# os.urandom hands the interpreter to another thread, and waits a millisecond to have it back.
_random: Final = random.Random(random.SystemRandom().getrandbits(256))
_REQUEST_ID: Final = re.compile(r"[\w-]{1,64}", re.ASCII)
_QUIET: Final = ("/livez", "/readyz", "/metrics")  # not worth a log line each time
CLIENT_WENT_AWAY: Final = 499  # as nginx has it: nothing could be answered any more


class Application(Protocol):
    """What answers requests, and knows its routes."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request (ASGI)."""

    def template(self, path: str, method: str) -> str | None:
        """Return the route's path that ``path`` is one of; None: there is none."""


class Desk:
    """What a worker's front needs; empty until the worker has started."""

    def __init__(self) -> None:
        self.front: ASGIApp | None = None  # what connections call; BentoML makes it
        self.settings: ServiceSettings | None = None
        self.application: Application | None = None
        self.metrics: WorkerMetrics | None = None
        self.log: LogLines | None = None
        self.tracing: Tracing | None = None  # None: no traces are asked for
        self.worker = 1
        self.is_stopping = False  # each answer is the last one of its connection
        self.gate: Gate | None = None  # None: everybody may do everything
        self.cors: Cors | None = None  # None: pages of other origins may read nothing
        self.proxies = Proxies()
        self.hosts: Hosts | None = None
        self.root_path = ""  # that a proxy may leave before ours


class Front:
    """ASGI middleware that answers every HTTP request from ``desk.application``.

    ``inner``, BentoML's own application, only gets the life-cycle events; a web socket is refused.
    """

    def __init__(self, inner: ASGIApp, *, desk: Desk) -> None:
        self._inner = inner
        self._desk = desk
        desk.front = self

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection event of ASGI."""
        if scope["type"] == "lifespan":
            await self._inner(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close"})
            return
        exchange = _Exchange(scope, receive, send)
        if self._desk.metrics is not None:
            self._desk.metrics.in_progress += 1
        try:
            await self._answer(scope, exchange)
        except asyncio.CancelledError:
            refusal = scope.get("refusal")
            task = asyncio.current_task()
            if refusal is None or exchange.status or task is None:
                raise
            task.uncancel()  # a deadline ended the work, and the client is still there
            response = problem_response(refusal, request_id=exchange.request_id)
            await response(scope, receive, exchange.send)
        except Exception as error:
            if exchange.status:  # too late for another answer; the server closes the connection
                raise
            response = problem_response(error, request_id=exchange.request_id)
            await response(scope, exchange.receive, exchange.send)
        finally:
            self._report(scope, exchange)

    async def _answer(self, scope: Scope, exchange: "_Exchange") -> None:
        desk = self._desk
        if desk.root_path and scope["path"].startswith(desk.root_path):
            _take_off(desk.root_path, scope)
        if desk.cors is not None:
            exchange.extra = desk.cors.headers(exchange.headers.get("origin"))
            scope["cors"] = desk.cors
        if "refusal" in scope:  # by the connection: there is no request that could be worked on
            raise scope["refusal"]
        if desk.application is None:
            raise NotReadyError("the service is starting")
        if desk.hosts is not None:
            desk.hosts.check(scope)
        if not scope["path"]:  # it ended without the slash to which the page's links are relative
            await _to_the_page(desk.root_path)(scope, exchange.receive, exchange.send)
            return
        if desk.cors is not None:
            preflight = desk.cors.preflight(scope["method"], exchange.headers)
            if preflight is not None:
                await preflight(scope, exchange.receive, exchange.send)
                return
        if scope["method"] not in READING:
            refuse_other_sites(exchange.headers, lambda: desk.proxies.site(scope), desk.cors)
        if desk.gate is not None:
            exchange.key = desk.gate.admit(scope, exchange.headers.get("authorization"))
        exchange.account.caller = exchange.key or network_of(desk.proxies.client(scope))
        await desk.application(scope, exchange.receive, exchange.send)

    def _report(self, scope: Scope, exchange: "_Exchange") -> None:
        seconds = time.perf_counter() - exchange.started
        desk, account = self._desk, exchange.account
        method, status = scope["method"], exchange.status or CLIENT_WENT_AWAY
        route = getattr(scope.get("route"), "path", None)
        if route is None and desk.application is not None:  # it was refused before it got there
            route = desk.application.template(scope["path"], method)
        route = route or "none"
        if desk.metrics is not None:
            desk.metrics.in_progress -= 1
            desk.metrics.count_request(
                method=method, route=route, status=status, seconds=seconds, account=account
            )
        if route in _QUIET:
            return
        trace_id = None
        if desk.tracing is not None:
            trace_id = desk.tracing.record(
                method=method,
                route=route,
                status=status,
                began=exchange.started,
                headers=exchange.headers,
                request_id=exchange.request_id,
                account=account,
            )
        if desk.log is None or not logger.isEnabledFor(logging.INFO):
            return
        # Not through logger.info, which walks the stack and makes a record of twenty fields.
        line: dict[str, Any] = {
            "time": time.time(),
            "level": "info",
            "logger": logger.name,
            "request_id": exchange.request_id,
            "worker": desk.worker,
            "method": method,
            "route": route,
            "status": status,
            "total_ms": round(seconds * 1000, 3),
            **account.milliseconds(),
            "images": account.images,
            "bytes_in": account.bytes_in,
            "bytes_out": account.bytes_out,
        }
        if account.problem is not None:
            line["code"] = account.problem
        if account.item_problems:
            line["failed_items"] = len(account.item_problems)
        if exchange.key is not None:
            line["key"] = exchange.key
        if trace_id is not None:
            line["trace_id"] = trace_id
        desk.log.put(line)


class _Exchange:
    """One request and its answer: the id, the status once sent, the headers every answer has."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.started = time.perf_counter()
        self.headers = Headers(scope=scope)
        given = self.headers.get("x-request-id", "")
        self.request_id = given if _REQUEST_ID.fullmatch(given) else _new_id()
        self.status = 0  # 0: nothing was sent yet
        self.key: str | None = None
        self.account = open_record()
        self.extra: list[Header] = []  # what cross-origin requests need
        self._receive = receive
        self._send = send
        scope["request_id"] = self.request_id

    async def receive(self) -> Message:
        begun = time.perf_counter()
        message = await self._receive()
        if message["type"] == "http.request":
            self.account.bytes_in += len(message.get("body", b""))
            note_stage("body", begun=begun)
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message["headers"] = [
                *secured(message.get("headers", ())),
                (b"x-request-id", self.request_id.encode()),
                *self.extra,
            ]
        else:
            self.account.bytes_out += len(message.get("body", b""))
        await self._send(message)


def _take_off(root: str, scope: Scope) -> None:
    """Leave of the path what stands behind ``root``; of ``root`` itself nothing."""
    path = scope["path"]
    if path == root or path[len(root)] == "/":
        scope["path"] = path[len(root) :]


def _to_the_page(root: str) -> Response:
    location = f"{root.rpartition('/')[2]}/"
    return Response(status_code=HTTPStatus.PERMANENT_REDIRECT, headers={"Location": location})


def _new_id() -> str:
    return f"{_random.getrandbits(128):032x}"
