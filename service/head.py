"""The head of one request, collected as the parser finds it: URL and headers in, ASGI scope out."""

from typing import Any, Final
from urllib.parse import unquote

import httptools
from starlette.types import Scope

from service.errors import HeadersTooLargeError, MalformedRequestError, UrlTooLongError

MAX_URL_BYTES: Final = 8 * 2**10
MAX_HEADER_BYTES: Final = 32 * 2**10  # names and values of one request, trailers included
MAX_HEADERS: Final = 100


class Head:
    """Grows by what comes, and refuses to grow past the limits."""

    def __init__(self) -> None:
        self.url = b""
        self.headers: list[tuple[bytes, bytes]] = []
        self.expects_100 = False  # the client waits for a word before it sends the body
        self._header_bytes = 0
        self._hosts = 0

    def add_url(self, piece: bytes) -> None:
        """Take a piece of the path and query.

        Raises:
            UrlTooLongError: they are.
        """
        self.url += piece
        if len(self.url) > MAX_URL_BYTES:
            raise UrlTooLongError(f"the path and query may have {MAX_URL_BYTES} bytes")

    def add_header(self, name: bytes, value: bytes) -> None:
        """Take a header, or a trailer after the body.

        Raises:
            HeadersTooLargeError: that was one too many.
        """
        name = name.lower()
        self._header_bytes += len(name) + len(value)
        if self._header_bytes > MAX_HEADER_BYTES or len(self.headers) >= MAX_HEADERS:
            raise headers_too_large()
        if name == b"host":
            self._hosts += 1
        elif name == b"expect":
            self.expects_100 = value.lower() == b"100-continue"
        self.headers.append((name, value))

    def scope(self, method: str, version: str, connection: dict[str, Any]) -> Scope:
        """Return the ASGI scope of the request on this ``connection``.

        Raises:
            MalformedRequestError: another version, or not one header Host (RFC 9112, 3.2).
            httptools.HttpParserInvalidURLError, UnicodeDecodeError: the URL is none.
        """
        if version not in ("1.0", "1.1"):
            raise MalformedRequestError("only HTTP/1.1 is spoken here")
        if self._hosts != 1 and (self._hosts > 1 or version == "1.1"):
            raise MalformedRequestError("a request needs one header Host")
        url = httptools.parse_url(self.url)
        raw_path = url.path or b"/"
        path = raw_path.decode("ascii")
        return {
            **connection,
            "http_version": version,
            "method": method,
            "path": unquote(path) if "%" in path else path,
            "raw_path": raw_path,
            "query_string": url.query or b"",
            "headers": self.headers,
        }


def headers_too_large() -> HeadersTooLargeError:
    """Return what is said of too many headers, or too large ones."""
    return HeadersTooLargeError(
        f"a request may have {MAX_HEADERS} header fields and {MAX_HEADER_BYTES} bytes of them"
    )
