"""A request in, the answer of its route out: FastAPI documents the routes, and this calls them.

FastAPI's own way to an endpoint leads through ten layers for what our endpoints do not use
(dependencies, validation, exit stacks, redirects): two fifths of the time the event loop spent.
"""

import asyncio
import re
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Final

from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from index.errors import InvalidIdError
from service.errors import MethodNotAllowedError, NotFoundError
from service.http.negotiation import packed, takes_gzip
from service.request.exchange import STATE, WorkerState
from service.telemetry.request_record import current_caller

JSON: Final = "application/json"
JOBS: Final = "/v1/jobs"
PACKED_BYTES: Final = 32 * 2**10  # of an answer that is worth packing
PROBES: Final = ("/livez", "/readyz", "/metrics")  # answered whatever else there is to do

_BROKEN: Final = re.compile(rb"%(?![0-9A-Fa-f]{2})")


class Router:
    """The routes of one worker, as an ASGI application; it raises what an endpoint raises."""

    def __init__(self, routes: Sequence[APIRoute], state: WorkerState) -> None:
        self.state = state
        self._fixed = {route.path: _Methods(routes, route.path) for route in routes}
        self._patterns = [
            (route.path_regex, self._fixed.pop(route.path))
            for route in routes
            if route.param_convertors and route.path in self._fixed
        ]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, whose ``scope["route"]`` then is its route.

        Raises:
            NotFoundError, MethodNotAllowedError: no such route.
            OverloadedError: there is too much to read already.
        """
        methods, parameters = self._find(scope["path"], scope["method"])
        scope["route"] = methods.any_route  # the path of its template is in the log in any case
        if parameters and "%" in scope["path"] and _BROKEN.search(scope["raw_path"]):
            raise InvalidIdError("in an address two hexadecimal digits follow a %: %25 is one")
        route = methods.pick(scope["method"])
        scope["route"] = route
        scope[STATE] = self.state
        with self._admitted(route), self.state.bodies.reserve(current_caller()) as scope["held"]:
            request = Request(scope, receive)
            response: Response = await route.endpoint(request, **parameters)
            if len(response.body) >= PACKED_BYTES:
                await _pack(response, request)
        await response(scope, receive, send)

    def _admitted(self, route: APIRoute) -> AbstractContextManager[None]:
        """Take a place for reading, until the answer is made; others take theirs with the image."""
        is_for_reading = "GET" in (route.methods or ()) or route.path.startswith(JOBS)
        if not is_for_reading or route.path in PROBES:
            return nullcontext()
        return self.state.reading.admit(current_caller())

    def template(self, path: str, method: str) -> str | None:
        """Return the route's path that ``path`` is one of; None: there is none."""
        try:
            return self._find(path, method)[0].any_route.path
        except NotFoundError:
            return None

    def _find(self, path: str, method: str) -> "tuple[_Methods, dict[str, str]]":
        fixed = self._fixed.get(path)
        if fixed is not None and fixed.take(method):
            return fixed, {}
        for pattern, methods in self._patterns:
            match = pattern.fullmatch(path)
            # An item may have the name of a route.
            if match is not None and (fixed is None or methods.take(method)):
                return methods, match.groupdict()
        if fixed is not None:
            return fixed, {}
        raise NotFoundError("there is nothing at this path; /docs lists the routes")


async def _pack(response: Response, request: Request) -> None:
    """Make a long answer of JSON shorter for a client that takes it so."""
    if response.media_type != JSON or "etag" in response.headers:  # one tag is of one form
        return
    response.headers["Vary"] = "Accept-Encoding"
    if not takes_gzip(request.headers):
        return
    response.body = await asyncio.to_thread(packed, bytes(response.body))
    response.headers["Content-Encoding"] = "gzip"
    response.headers["Content-Length"] = str(len(response.body))


class _Methods:
    """The routes of one path, by method."""

    def __init__(self, routes: Sequence[APIRoute], path: str) -> None:
        self._routes = {
            method: route
            for route in routes
            if route.path == path
            for method in route.methods or ()
        }
        if "GET" in self._routes:  # the connection leaves the body of its answer away
            self._routes.setdefault("HEAD", self._routes["GET"])
        self.any_route = next(iter(self._routes.values()))

    def take(self, method: str) -> bool:
        """Whether one of them takes ``method``."""
        return method in self._routes

    def pick(self, method: str) -> APIRoute:
        """Return the route that takes ``method``.

        Raises:
            MethodNotAllowedError: none does.
        """
        route = self._routes.get(method)
        if route is None:
            raise MethodNotAllowedError(
                f"this path does not take {method[:20]}", allowed=sorted(self._routes)
            )
        return route
