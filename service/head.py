"""The head of one request, collected as the parser finds it: URL and headers in, ASGI scope out."""

import re
from typing import Any, Final
from urllib.parse import unquote

import httptools
from starlette.types import Scope

from service.errors import HeadersTooLargeError, MalformedRequestError, UrlTooLongError

MAX_URL_BYTES: Final = 8 * 2**10
MAX_HEADER_BYTES: Final = 32 * 2**10  # names and values of one request, trailers included
MAX_HEADERS: Final = 100
_FRAMING: Final = (b"content-length", b"transfer-encoding")
_HOST: Final = re.compile(rb"([\w.~!$&'()*+,;=%-]*|\[[\da-fA-F:.]+\])(:\d*)?")  # RFC 3986, 3.2


class Head:
    """Grows by what comes, and refuses to grow past the limits."""

    def __init__(self) -> None:
        self.url = b""
        self.headers: list[tuple[bytes, bytes]] = []
        self.expects_100 = False  # the client waits for a word before it sends the body
        self._fields = 0
        self._header_bytes = 0
        self._hosts = 0
        self._is_encoded = False

    def add_url(self, piece: bytes) -> None:
        """Take a piece of the path and query.

        Raises:
            UrlTooLongError: they are.
        """
        self.url += piece
        if len(self.url) > MAX_URL_BYTES:
            raise UrlTooLongError(f"the path and query may have {MAX_URL_BYTES} bytes")

    def add_header(self, name: bytes, value: bytes) -> None:
        """Take a header.

        Raises:
            HeadersTooLargeError: that was one too many.
            MalformedRequestError: it names no host, or an encoding that nobody here can read.
        """
        name = name.lower()
        self._count(name, value)
        if name == b"host":
            self._hosts += 1
            if not _HOST.fullmatch(value):
                raise MalformedRequestError("the header Host is no host, with or without a port")
        elif name == b"expect":
            self.expects_100 = value.lower() == b"100-continue"
        elif name == b"transfer-encoding":
            self._is_encoded = True
            if value.lower() != b"chunked":
                raise MalformedRequestError("the only transfer encoding spoken here is chunked")
        self.headers.append((name, value))

    def add_trailer(self, name: bytes, value: bytes) -> None:
        """Count a field that came after the body, and forget it: it is no header (RFC 9110, 6.5.1).

        Raises:
            HeadersTooLargeError: that was one too many.
        """
        self._count(name, value)

    def _count(self, name: bytes, value: bytes) -> None:
        self._fields += 1
        self._header_bytes += len(name) + len(value)
        if self._header_bytes > MAX_HEADER_BYTES or self._fields > MAX_HEADERS:
            raise headers_too_large()

    def framing(self) -> list[tuple[bytes, bytes]]:
        """Return the headers that say where the request ends, and whether the connection does."""
        kept = [(name, value) for name, value in self.headers if name in _FRAMING]
        options = b",".join(value for name, value in self.headers if name == b"connection")
        if b"close" in [option.strip().lower() for option in options.split(b",")]:
            kept.append((b"connection", b"close"))
        return kept

    def scope(self, method: str, version: str, connection: dict[str, Any]) -> Scope:
        """Return the ASGI scope of the request on this ``connection``.

        Raises:
            MalformedRequestError: another version, not one header Host (RFC 9112, 3.2), or chunks
                of HTTP/1.0, which others take for no body (6.1).
            httptools.HttpParserInvalidURLError, UnicodeDecodeError: the URL is none.
        """
        if version not in ("1.0", "1.1"):
            raise MalformedRequestError("only HTTP/1.1 is spoken here")
        if self._hosts != 1 and (self._hosts > 1 or version == "1.1"):
            raise MalformedRequestError("a request needs one header Host")
        if version == "1.0":
            self.expects_100 = False  # RFC 9110, 10.1.1
            if self._is_encoded:
                raise MalformedRequestError("HTTP/1.0 has no transfer encodings")
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
