"""A path and a method in, the route that FastAPI documents out.

FastAPI's own way to an endpoint leads through ten layers for what our endpoints do not use
(dependencies, validation, exit stacks, redirects): two fifths of the time the event loop spent.
"""

import re
from collections.abc import Sequence
from typing import Final

from fastapi.routing import APIRoute
from starlette.types import Scope

from index.errors import InvalidIdError
from service.errors import MethodNotAllowedError, NotFoundError
from service.telemetry.request_record import RequestRecord

_BROKEN: Final = re.compile(rb"%(?![0-9A-Fa-f]{2})")


class Router:
    """The routes of the service."""

    def __init__(self, routes: Sequence[APIRoute]) -> None:
        self._fixed = {route.path: _Methods(routes, route.path) for route in routes}
        self._patterns = [
            (route.path_regex, self._fixed.pop(route.path))
            for route in routes
            if route.param_convertors and route.path in self._fixed
        ]

    def match(self, scope: Scope, record: RequestRecord) -> tuple[APIRoute, dict[str, str]]:
        """Return the route of a request, and the parameters in its path; ``record`` notes it.

        Raises:
            NotFoundError, MethodNotAllowedError: there is no such route.
            InvalidIdError: a parameter is not encoded as an address is.
        """
        methods, parameters = self._find(scope["path"], scope["method"])
        record.route = methods.path  # also of a request that is refused here
        if parameters and "%" in scope["path"] and _BROKEN.search(scope["raw_path"]):
            raise InvalidIdError("in an address two hexadecimal digits follow a %: %25 is one")
        return methods.pick(scope["method"]), parameters

    def template(self, path: str, method: str) -> str | None:
        """Return the route's path that ``path`` is one of; None: there is none."""
        try:
            return self._find(path, method)[0].path
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


class _Methods:
    """The routes of one path, by method."""

    def __init__(self, routes: Sequence[APIRoute], path: str) -> None:
        self.path = path
        self._routes = {
            method: route
            for route in routes
            if route.path == path
            for method in route.methods or ()
        }
        if "GET" in self._routes:  # the connection leaves the body of its answer away
            self._routes.setdefault("HEAD", self._routes["GET"])

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
