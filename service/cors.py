"""Cross-origin requests of the origins that the operator named: headers for browsers.

A browser keeps an answer from a page of another origin unless the answer allows it. Nothing here
keeps a request away: that is what keys are for.
"""

from collections.abc import Iterable
from typing import Final

from starlette.datastructures import Headers
from starlette.responses import Response

from service.headers import Header

ANY: Final = "*"
_PREFLIGHT_KEPT_S: Final = 600
_VARY: Final = (b"vary", b"Origin")
_EXPOSED: Final = (b"access-control-expose-headers", b"X-Request-ID, Retry-After, Location")
_PREFLIGHT: Final = {
    "Access-Control-Allow-Methods": "GET, POST, PUT, DELETE",
    "Access-Control-Allow-Headers": "Authorization, Content-Type, If-None-Match, X-Request-ID",
    "Access-Control-Max-Age": str(_PREFLIGHT_KEPT_S),
}


class Cors:
    """Which origins may read answers; cookies play no part, keys come in a header."""

    def __init__(self, origins: Iterable[str]) -> None:
        self._origins = frozenset(origins)
        self._is_any = ANY in self._origins

    def headers(self, origin: str | None) -> list[Header]:
        """Return what an answer to a request from ``origin`` carries; None: no page asks."""
        if self._is_any:
            return [(b"access-control-allow-origin", b"*"), _EXPOSED]
        if origin is None or origin not in self._origins:
            return [_VARY]
        return [(b"access-control-allow-origin", origin.encode()), _EXPOSED, _VARY]

    def preflight(self, method: str, headers: Headers) -> Response | None:
        """Return the answer to a browser that asks whether it may ask; None: it is no such request.

        It needs no key, because browsers send none with it.
        """
        if method != "OPTIONS" or "access-control-request-method" not in headers:
            return None
        if not (self._is_any or headers.get("origin") in self._origins):
            return None
        return Response(status_code=204, headers=_PREFLIGHT)
