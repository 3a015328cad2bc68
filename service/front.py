"""The outermost layer: request ids, keys, metrics and one log line, around our own application.

It stands before everything BentoML would route, so that only the routes of the contract are
reachable. Written as plain ASGI, because it runs for every request.
"""

import logging
import random
import re
import time
from typing import Any, Final

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.errors import NotReadyError
from service.keys import KeyRing, Right
from service.metrics import Metrics
from service.problems import problem_response

logger = logging.getLogger("lookalike.request")

# os.urandom hands the interpreter to another thread, and waits a millisecond to have it back.
_random: Final = random.Random(random.SystemRandom().getrandbits(256))
_REQUEST_ID: Final = re.compile(r"[\w-]{1,64}", re.ASCII)
_OPEN: Final = ("/livez", "/readyz", "/", "/docs", "/openapi.json")  # need no key
_JOBS: Final = "/v1/jobs"
_OPEN_PREFIXES: Final = ("/page/", "/docs/")
_QUIET: Final = ("/livez", "/readyz", "/metrics")  # not worth a log line each time
_SECURITY_HEADERS: Final = [
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
]


class Desk:
    """What a worker's front needs; empty until the worker has started."""

    def __init__(self) -> None:
        self.application: ASGIApp | None = None
        self.metrics: Metrics | None = None
        self.keys: KeyRing | None = None  # None: no keys are asked for


class Front:
    """ASGI middleware that answers every HTTP request from ``desk.application``.

    ``inner``, BentoML's own application, only gets the life-cycle events.
    """

    def __init__(self, inner: ASGIApp, *, desk: Desk) -> None:
        self._inner = inner
        self._desk = desk

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection event of ASGI."""
        if scope["type"] != "http":
            await self._inner(scope, receive, send)
            return
        exchange = _Exchange(scope, send)
        try:
            await self._answer(scope, receive, exchange)
        except Exception as error:
            if exchange.status:  # too late for another answer; the server closes the connection
                raise
            response = problem_response(error, request_id=exchange.request_id)
            await response(scope, receive, exchange.send)
        finally:
            self._report(scope, exchange)

    async def _answer(self, scope: Scope, receive: Receive, exchange: "_Exchange") -> None:
        desk = self._desk
        if desk.application is None:
            raise NotReadyError("the service is starting")
        if desk.keys is not None and not _is_open(scope["path"]):
            exchange.key = desk.keys.authorise(
                exchange.headers.get("authorization"), _needed_right(scope)
            )
        await desk.application(scope, receive, exchange.send)

    def _report(self, scope: Scope, exchange: "_Exchange") -> None:
        seconds = time.perf_counter() - exchange.started
        route = getattr(scope.get("route"), "path", "none")
        if self._desk.metrics is not None:
            self._desk.metrics.requests.labels(scope["method"], route, exchange.status).inc()
            self._desk.metrics.seconds.labels(route).observe(seconds)
        if route in _QUIET or not logger.isEnabledFor(logging.INFO):
            return
        line: dict[str, Any] = {
            "request_id": exchange.request_id,
            "method": scope["method"],
            "route": route,
            "status": exchange.status,
            "total_ms": round(seconds * 1000, 2),
            **scope.get("log", {}),
        }
        if exchange.key is not None:
            line["key"] = exchange.key
        # Made here rather than by logger.info, which walks the stack for the name of the caller.
        logger.handle(logger.makeRecord(logger.name, logging.INFO, "", 0, line, (), None))


class _Exchange:
    """One request and its answer: the id, the status once sent, the headers every answer has."""

    def __init__(self, scope: Scope, send: Send) -> None:
        self.started = time.perf_counter()
        self.headers = Headers(scope=scope)
        given = self.headers.get("x-request-id", "")
        self.request_id = given if _REQUEST_ID.fullmatch(given) else _new_id()
        self.status = 0  # 0: nothing was sent yet
        self.key: str | None = None
        self._send = send
        scope["request_id"] = self.request_id

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message["headers"] = [
                *message.get("headers", ()),
                (b"x-request-id", self.request_id.encode()),
                *_SECURITY_HEADERS,
            ]
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
