"""The page at ``/`` and the API browser at ``/docs``: files in, cacheable, locked-down answers out.

Everything comes from this package and from the Swagger UI that ``fastapi-swagger`` carries, so both
work with no internet. Addresses inside are relative: a proxy may serve the service under a prefix.
"""

import gzip
import hashlib
from dataclasses import dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Final

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from service.headers import LOCKED
from service.negotiation import has_it, takes_gzip

MEDIA_TYPES: Final = {
    "css": "text/css; charset=utf-8",
    "html": "text/html; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}
SWAGGER_FILES: Final = ("swagger-ui-bundle.js", "swagger-ui.css")

SAME_ORIGIN: Final = f"{LOCKED}; script-src 'self'; style-src 'self'; connect-src 'self'"
# Trusted Types make the browser itself refuse every way from text to markup (innerHTML and kin).
PAGE_POLICY: Final = (
    f"{SAME_ORIGIN}; img-src 'self' blob: data:;"
    " require-trusted-types-for 'script'; trusted-types 'none'"
)
DOCS_POLICY: Final = f"{SAME_ORIGIN}; img-src 'self' blob: data:"

HEADERS: Final = {
    "Cache-Control": "no-cache",  # kept, and asked about each time: a new release shows at once
    "Vary": "Accept-Encoding",
}  # the headers that every answer has, nosniff among them, are put on at the front


@dataclass(frozen=True, slots=True)
class Asset:
    """One file in memory, as sent: plain and compressed, with the entity tags of both."""

    plain: bytes
    packed: bytes
    tag: str
    media_type: str
    policy: str

    def answer(self, request: Request) -> Response:
        """Return the file, compressed where the client takes it, or 304 when it has it already."""
        is_packed = takes_gzip(request.headers.get("accept-encoding"))
        # Two encodings are two representations, and need two tags (RFC 9110, 8.8.3.3).
        tag = f'"{self.tag}{"-gzip" if is_packed else ""}"'
        headers = HEADERS | {"Content-Security-Policy": self.policy, "ETag": tag}
        if has_it(tag, request.headers.get("if-none-match")):
            return Response(status_code=304, headers=headers)
        if is_packed:
            headers["Content-Encoding"] = "gzip"
        body = self.packed if is_packed else self.plain
        return Response(body, media_type=self.media_type, headers=headers)


def page_routes(document: bytes) -> list[BaseRoute]:
    """Return the routes of ``/``, ``/page/…``, ``/docs``, ``/docs/…`` and of the OpenAPI document.

    Reads 2 MB once and compresses it, some 0.1 s.
    """
    router = APIRouter()
    folder = files("service") / "page"
    swagger = files("fastapi_swagger") / "resources"
    for file in sorted(folder.iterdir(), key=lambda found: found.name):
        if _suffix(file) in MEDIA_TYPES and _suffix(file) != "html":
            _add(router, f"/page/{file.name}", file.read_bytes(), _suffix(file), LOCKED)
    for name in SWAGGER_FILES:
        file = swagger / name
        _add(router, f"/docs/{name}", file.read_bytes(), _suffix(file), LOCKED)
    _add(router, "/docs", (folder / "docs.html").read_bytes(), "html", DOCS_POLICY)
    _add(router, "/", (folder / "index.html").read_bytes(), "html", PAGE_POLICY)

    async def answer_document(request: Request) -> Response:
        return Response(document, media_type="application/json")

    router.add_api_route("/openapi.json", answer_document, methods=["GET", "HEAD"])
    return router.routes


def _add(router: APIRouter, path: str, plain: bytes, suffix: str, policy: str) -> None:
    asset = Asset(
        plain=plain,
        packed=gzip.compress(plain, mtime=0),
        tag=hashlib.sha256(plain).hexdigest()[:32],
        media_type=MEDIA_TYPES[suffix],
        policy=policy,
    )

    async def answer(request: Request) -> Response:
        return asset.answer(request)

    router.add_api_route(path, answer, methods=["GET", "HEAD"])


def _suffix(file: Traversable) -> str:
    return file.name.rpartition(".")[2]
