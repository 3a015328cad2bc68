"""Requests that pages of other origins have a browser send: which of them may, and who may read.

A browser keeps an answer from a page of another origin unless the answer allows it. But it sends
the request: a form on any page could store items in a service without keys on the reader's machine.
So what is not only read is refused when the browser says that the page is of another site. The rule
is that of Go's ``net/http.CrossOriginProtection``.
"""

from collections.abc import Callable, Iterable
from typing import Final

from starlette.datastructures import Headers
from starlette.responses import Response

from service.config import ANY
from service.errors import CrossSiteError
from service.security.security_headers import Header
from service.security.trusted_proxies import Site

READING: Final = ("GET", "HEAD", "OPTIONS")
_OWN: Final = ("same-origin", "none")  # values of Sec-Fetch-Site: our page, or a person
_PORTS: Final = {"http": 80, "https": 443}
_PREFLIGHT_KEPT_S: Final = 600
_VARY: Final = (b"vary", b"Origin")
_EXPOSED: Final = (b"access-control-expose-headers", b"X-Request-ID, Retry-After, Location, ETag")
_PREFLIGHT: Final = {
    "Access-Control-Allow-Methods": "GET, HEAD, POST, PUT, PATCH, DELETE",
    "Access-Control-Allow-Headers": (
        "Authorization, Content-Type, If-Match, If-None-Match, X-Request-ID"
    ),
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
        if not self.allows(headers.get("origin")):
            return None
        return Response(status_code=204, headers=_PREFLIGHT)

    def lets_show(self, headers: Headers) -> bool:
        """Return whether the page that asks may show a picture (Fetch, 3.7).

        For one in its text (``<img src>``) a browser sends no ``Origin``, but in ``Referer`` the
        origin, unless the page forbids that.
        """
        origin = headers.get("origin")
        if origin is None:
            origin = "/".join(headers.get("referer", "").split("/")[:3])
        return self.allows(origin)

    def allows(self, origin: str | None) -> bool:
        """Return whether pages of ``origin`` may call."""
        return self._is_any or origin in self._origins


def refuse_other_sites(headers: Headers, site: Callable[[], Site], cors: Cors | None) -> None:
    """Let pass what no page sent, and what a page of ours or an allowed one did.

    Browsers say with everything that is not only read which page sent it, in ``Origin``, and over
    a safe connection in ``Sec-Fetch-Site`` too, which no proxy between makes wrong.

    Args:
        headers: of the request.
        site: returns what the client calls this server; asked only where a page has sent it.
        cors: which pages may call; None: those of other origins may not.

    Raises:
        CrossSiteError: a page of another site sent it.
    """
    origin = headers.get("origin")
    if origin is None:  # no browser
        return
    fetch_site = headers.get("sec-fetch-site")
    called = site()
    is_own = _is_same(origin, called) if fetch_site is None else fetch_site in _OWN
    if not is_own and not (cors is not None and cors.allows(origin)):
        shown = f"{called.scheme}://{called.host}" if called.scheme else called.host
        raise CrossSiteError(
            f"a page of {origin[:100]!r} sent this to the host {shown[:100]!r}, another site. "
            "Where both are this service, the proxy between has to pass Host on, or to be trusted "
            "with X-Forwarded-Host (LOOKALIKE_TRUSTED_PROXIES); where the page may call, name its "
            "origin in LOOKALIKE_CORS_ORIGINS"
        )


def _is_same(origin: str, site: Site) -> bool:
    """Return whether a page of ``origin`` is one of ``site``, with a usual port or without it.

    What comes over TLS is not the work of a page that came without: anybody on the way wrote it.
    The reverse is a proxy behind another, which knows no better.
    """
    scheme, _, name = origin.partition("://")
    if not name or (site.scheme == "https" and scheme == "http"):
        return False
    usual = f":{_PORTS.get(scheme, '')}"
    own = name.removesuffix(usual).lower()
    return bool(own) and own == site.host.removesuffix(usual).lower()
