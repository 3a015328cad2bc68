"""The page at ``/`` and the API browser at ``/docs``: files in, cacheable, locked-down answers out.

Everything comes from this package and from the Swagger UI that ``fastapi-swagger`` carries, so both
work with no internet. Addresses inside are relative: a proxy may serve the service under a prefix.
"""

import asyncio
import gzip
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Any, Final, Self

from fastapi import APIRouter
from starlette.responses import Response
from starlette.routing import BaseRoute

from service.http.negotiation import accepts_gzip, is_not_modified
from service.request.context import RequestContext
from service.security.security_headers import API_CONTENT_POLICY

MEDIA_TYPES: Final = {
    "css": "text/css; charset=utf-8",
    "html": "text/html; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
    "json": "application/json",
}
FOLDERS_KEPT: Final = 8  # of which the document is kept as it is sent
SWAGGER_FILES: Final = ("swagger-ui-bundle.js", "swagger-ui.css")

SAME_ORIGIN: Final = (
    f"{API_CONTENT_POLICY}; script-src 'self'; style-src 'self'; connect-src 'self'"
)
# Trusted Types make the browser itself refuse every way from text to markup (innerHTML and kin).
PAGE_POLICY: Final = (
    f"{SAME_ORIGIN}; img-src 'self' blob: data:;"
    " require-trusted-types-for 'script'; trusted-types 'none'"
)
DOCS_POLICY: Final = f"{SAME_ORIGIN}; img-src 'self' blob: data:"

KEPT: Final = "no-cache"  # kept, and asked about each time: a new release shows at once


@dataclass(frozen=True, slots=True)
class Asset:
    """One file in memory, as sent: plain and compressed, with the entity tags of both."""

    plain: bytes
    packed: bytes
    tag: str
    media_type: str
    policy: str
    cache_control: str = KEPT

    @classmethod
    def of(
        cls,
        plain: bytes,
        suffix: str,
        policy: str = API_CONTENT_POLICY,
        *,
        cache_control: str = KEPT,
    ) -> Self:
        """Return a file, compressed here: 2 MB take some 0.1 s."""
        tag = hashlib.sha256(plain).hexdigest()[:32]
        packed = gzip.compress(plain, mtime=0)
        return cls(plain, packed, tag, MEDIA_TYPES[suffix], policy, cache_control)

    def answer(self, request: RequestContext) -> Response:
        """Return the file, compressed where the client takes it, or 304 when it has it already."""
        is_packed = accepts_gzip(request.headers)
        # Two encodings are two representations, and need two tags (RFC 9110, 8.8.3.3).
        tag = f'"{self.tag}{"-gzip" if is_packed else ""}"'
        headers = {
            "Cache-Control": self.cache_control,
            "Content-Security-Policy": self.policy,
            "ETag": tag,
            "Vary": "Accept-Encoding",
        }  # what every answer has, nosniff among it, is put on by RequestContext.send
        if is_not_modified(tag, request.headers):
            return Response(status_code=304, headers=headers)
        if is_packed:
            headers["Content-Encoding"] = "gzip"
        body = self.packed if is_packed else self.plain
        return Response(body, media_type=self.media_type, headers=headers)


def page_routes(document: Callable[[], dict[str, Any]]) -> list[BaseRoute]:
    """Return the routes of the page, the API browser, their files, and the OpenAPI document.

    What few ask for is made when somebody does: 0.2 s that no worker's start waits for.
    """
    router = APIRouter()
    folder = files("service") / "page"
    swagger = files("fastapi_swagger") / "resources"
    for file in sorted(folder.iterdir(), key=lambda found: found.name):
        if _suffix(file) in MEDIA_TYPES and _suffix(file) != "html":
            _add(router, f"/page/{file.name}", file)
    for name in SWAGGER_FILES:
        _add(router, f"/docs/{name}", swagger / name)
    _add(router, "/docs", folder / "docs.html", DOCS_POLICY)
    _add(router, "/", folder / "index.html", PAGE_POLICY)

    @lru_cache(maxsize=FOLDERS_KEPT)
    def document_under(path: str) -> Asset:
        servers = {"servers": [{"url": path}]} if path else {}
        return Asset.of(
            json.dumps({**document(), **servers}).encode(), "json", cache_control="no-store"
        )

    async def answer_document(request: RequestContext) -> Response:
        state = request.worker
        path = state.proxies.prefix(request.scope) or state.settings.root_path
        return (await asyncio.to_thread(document_under, path)).answer(request)

    router.add_api_route("/openapi.json", answer_document, methods=["GET", "HEAD"])
    return router.routes


def _add(router: APIRouter, path: str, file: Traversable, policy: str = API_CONTENT_POLICY) -> None:
    content = file.read_bytes()  # now: what is served later is of the same version

    @cache
    def asset() -> Asset:
        return Asset.of(content, _suffix(file), policy)

    async def answer(request: RequestContext) -> Response:
        return (await asyncio.to_thread(asset)).answer(request)

    router.add_api_route(path, answer, methods=["GET", "HEAD"])


def _suffix(file: Traversable) -> str:
    return file.name.rpartition(".")[2]
