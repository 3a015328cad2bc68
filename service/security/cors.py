"""Requests from pages of other origins: which may be sent, and which may read the answers.

A browser keeps an answer from a page of another origin unless the answer allows it. But it sends
the request: a form on any page could store items in a service without keys on the reader's machine.
So requests that change something are refused when the browser says that they come from a page of
another site. The rule is that of Go's ``net/http.CrossOriginProtection``.
"""

from collections.abc import Callable, Iterable
from typing import Final

from starlette.datastructures import Headers
from starlette.responses import Response

from service.config import ANY
from service.errors import CrossSiteError
from service.security.security_headers import Header
from service.security.trusted_proxies import Site

SAFE_METHODS: Final = ("GET", "HEAD", "OPTIONS")
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
        """Return the headers of an answer to a request from ``origin``; None: not from a page."""
        if self._is_any:
            return [(b"access-control-allow-origin", b"*"), _EXPOSED]
        if origin is None or origin not in self._origins:
            return [_VARY]
        return [(b"access-control-allow-origin", origin.encode()), _EXPOSED, _VARY]

    def preflight(self, method: str, headers: Headers) -> Response | None:
        """Return the answer to a preflight request; None: it is none, or from a forbidden origin.

        It needs no key, because browsers send none with it.
        """
        if method != "OPTIONS" or "access-control-request-method" not in headers:
            return None
        if not self.allows(headers.get("origin")):
            return None
        return Response(status_code=204, headers=_PREFLIGHT)

    def allows_embedding(self, headers: Headers) -> bool:
        """Return whether the page that asks may embed an image (Fetch, 3.7).

        For an ``<img src>`` a browser sends no ``Origin``, but the origin in ``Referer``, unless
        the page forbids that.
        """
        origin = headers.get("origin")
        if origin is None:
            origin = "/".join(headers.get("referer", "").split("/")[:3])
        return self.allows(origin)

    def allows(self, origin: str | None) -> bool:
        """Return whether pages of ``origin`` may call."""
        return self._is_any or origin in self._origins


def refuse_other_sites(headers: Headers, site: Callable[[], Site], cors: Cors | None) -> None:
    """Refuse a request from a page of another site, unless its origin is allowed.

    With every request that is not safe, browsers name the page in ``Origin``, and over a secure
    connection in ``Sec-Fetch-Site`` too, which no proxy in between can make wrong.

    Args:
        headers: of the request.
        site: returns how the client addressed this server; called only for pages.
        cors: which origins are allowed; None: only our own.

    Raises:
        CrossSiteError: it is from such a page.
    """
    origin = headers.get("origin")
    if origin is None:  # no browser
        return
    fetch_site = headers.get("sec-fetch-site")
    own = site()
    is_own = _is_same(origin, own) if fetch_site is None else fetch_site in _OWN
    if not is_own and not (cors is not None and cors.allows(origin)):
        address = f"{own.scheme}://{own.host}" if own.scheme else own.host
        raise CrossSiteError(
            f"a page of {origin[:100]!r} sent this to the host {address[:100]!r}, another site. "
            "Where both are this service, the proxy between has to pass Host on, or to be trusted "
            "with X-Forwarded-Host (LOOKALIKE_TRUSTED_PROXIES); where the page may call, name its "
            "origin in LOOKALIKE_CORS_ORIGINS"
        )


def _is_same(origin: str, site: Site) -> bool:
    """Return whether a page of ``origin`` is one of ``site``, with a usual port or without it.

    A page that came without TLS is not of a site with TLS: anybody on the way could have written
    it. The reverse is a proxy behind another, which does not know of the TLS.
    """
    scheme, _, name = origin.partition("://")
    if not name or (site.scheme == "https" and scheme == "http"):
        return False
    usual = f":{_PORTS.get(scheme, '')}"
    own = name.removesuffix(usual).lower()
    return bool(own) and own == site.host.removesuffix(usual).lower()
