"""The outermost layer: request ids, keys, metrics and one log line, around our own application.

It stands before everything BentoML would route, so that only the routes of the contract are
reachable. Written as plain ASGI, because it runs for every request.
"""

import asyncio
import logging
import random
import re
import time
from typing import Any, Final

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.account import note_stage, open_account
from service.config import ServiceSettings
from service.errors import NotReadyError
from service.keys import KeyRing, Right
from service.logs import LogLines
from service.metrics import Metrics
from service.problems import problem_response
from service.tracing import Tracing

logger = logging.getLogger("lookalike.request")

# os.urandom hands the interpreter to another thread, and waits a millisecond to have it back.
_random: Final = random.Random(random.SystemRandom().getrandbits(256))
_REQUEST_ID: Final = re.compile(r"[\w-]{1,64}", re.ASCII)
_OPEN: Final = ("/livez", "/readyz", "/", "/docs", "/openapi.json")  # need no key
_JOBS: Final = "/v1/jobs"
_OPEN_PREFIXES: Final = ("/page/", "/docs/")
_QUIET: Final = ("/livez", "/readyz", "/metrics")  # not worth a log line each time
CLIENT_WENT_AWAY: Final = 499  # as nginx has it: nothing could be answered any more
_SECURITY_HEADERS: Final = [
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
]


class Desk:
    """What a worker's front needs; empty until the worker has started."""

    def __init__(self) -> None:
        self.front: ASGIApp | None = None  # what connections call; BentoML makes it
        self.settings: ServiceSettings | None = None
        self.application: ASGIApp | None = None
        self.metrics: Metrics | None = None
        self.log: LogLines | None = None
        self.tracing: Tracing | None = None  # None: no traces are asked for
        self.worker = 1
        self.keys: KeyRing | None = None  # None: no keys are asked for


class Front:
    """ASGI middleware that answers every HTTP request from ``desk.application``.

    ``inner``, BentoML's own application, only gets the life-cycle events.
    """

    def __init__(self, inner: ASGIApp, *, desk: Desk) -> None:
        self._inner = inner
        self._desk = desk
        desk.front = self

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection event of ASGI."""
        if scope["type"] != "http":
            await self._inner(scope, receive, send)
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
        if "refusal" in scope:  # by the connection: there is no request that could be worked on
            raise scope["refusal"]
        if desk.application is None:
            raise NotReadyError("the service is starting")
        if desk.keys is not None and not _is_open(scope["path"]):
            exchange.key = desk.keys.authorise(
                exchange.headers.get("authorization"), _needed_right(scope)
            )
        await desk.application(scope, exchange.receive, exchange.send)

    def _report(self, scope: Scope, exchange: "_Exchange") -> None:
        seconds = time.perf_counter() - exchange.started
        route = getattr(scope.get("route"), "path", "none")
        desk, account = self._desk, exchange.account
        method, status = scope["method"], exchange.status or CLIENT_WENT_AWAY
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
            **scope.get("log", {}),
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
        self.account = open_account()
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
                *message.get("headers", ()),
                (b"x-request-id", self.request_id.encode()),
                *_SECURITY_HEADERS,
            ]
        else:
            self.account.bytes_out += len(message.get("body", b""))
        await self._send(message)


def _new_id() -> str:
    return f"{_random.getrandbits(128):032x}"


def _is_open(path: str) -> bool:
    return path in _OPEN or path.startswith(_OPEN_PREFIXES)


def _needed_right(scope: Scope) -> Right:
    path = scope["path"].rstrip("/")
    if path == _JOBS or path.startswith(f"{_JOBS}/"):
        return "admin"
    changes = scope["method"] in ("PUT", "DELETE") or path == "/v1/items"
    return "write" if changes and scope["method"] != "GET" else "read"
