"""The head of one request, collected as the parser finds it: URL and headers in, ASGI scope out."""

import re
from typing import Any, Final
from urllib.parse import unquote

import httptools
from starlette.types import Scope

from service.errors import (
    HeadersTooLargeError,
    MalformedRequestError,
    RequestError,
    UrlTooLongError,
)

MAX_URL_BYTES: Final = 8 * 2**10
MAX_HEADER_BYTES: Final = 32 * 2**10  # names and values of one request, trailers included
MAX_HEADERS: Final = 100
_MOST: Final = 2  # times as much is looked at for who asks, and then no more
_FRAMING: Final = (b"content-length", b"transfer-encoding")
_HOST: Final = re.compile(rb"([\w.~!$&'()*+,;=%-]*|\[[\da-fA-F:.]+\])(:\d*)?")  # RFC 3986, 3.2


class RequestHead:
    """Grows by what comes, and refuses to grow past the limits.

    Past them it goes on for a while without keeping what comes: so the refusal is for the right
    route, and a page that may call can read it.
    """

    def __init__(self) -> None:
        self.url = b""
        self.headers: list[tuple[bytes, bytes]] = []
        self.expects_100 = False  # the client waits for a word before it sends the body
        self.fault: RequestError | None = None  # why it is not to be answered
        self._fields = 0
        self._header_bytes = 0
        self._hosts = 0
        self._is_encoded = False

    def add_url(self, piece: bytes) -> None:
        """Take a piece of the path and query.

        Raises:
            UrlTooLongError: they are, by far.
        """
        self.url += piece
        if len(self.url) > MAX_URL_BYTES:
            self.fault = UrlTooLongError(f"the path and query may have {MAX_URL_BYTES} bytes")
            if len(self.url) > _MOST * MAX_URL_BYTES:
                raise self.fault

    def add_header(self, name: bytes, value: bytes) -> None:
        """Take a header.

        Raises:
            HeadersTooLargeError: there are too many, by far.
            MalformedRequestError: it names no host, or an encoding that nobody here can read.
        """
        name = name.lower()
        if self._is_too_much(name, value) and name != b"origin":
            return
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
        if self._is_too_much(name, value):
            raise headers_too_large()

    def _is_too_much(self, name: bytes, value: bytes) -> bool:
        self._fields += 1
        self._header_bytes += len(name) + len(value)
        if self._header_bytes <= MAX_HEADER_BYTES and self._fields <= MAX_HEADERS:
            return False
        self.fault = headers_too_large()
        if self._header_bytes > _MOST * MAX_HEADER_BYTES or self._fields > _MOST * MAX_HEADERS:
            raise self.fault
        return True

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
        if url.host:
            self._take_host(url)
        return {
            **connection,
            "http_version": version,
            "method": method,
            "path": unquote(path) if "%" in path else path,
            "raw_path": raw_path,
            "query_string": url.query or b"",
            "headers": self.headers,
        }

    def _take_host(self, url: httptools.parser.url_parser.URL) -> None:
        """Put the host of an absolute address in place of Host (RFC 9112, 3.2.2)."""
        host = b"[%b]" % url.host if b":" in url.host else url.host
        if url.port:
            host += b":%d" % url.port
        self.headers = [field for field in self.headers if field[0] != b"host"]
        self.headers.append((b"host", host))

    def refused_scope(
        self, method: str, connection: dict[str, Any], refusal: RequestError
    ) -> Scope:
        """Return the scope of what is refused: of its own ``fault`` the route, and who asks."""
        known = self if refusal is self.fault else RequestHead()
        try:
            raw_path = httptools.parse_url(known.url).path or b"/"
        except httptools.HttpParserInvalidURLError:  # there is none, or its end is missing
            raw_path = b""
        return {
            **connection,
            "http_version": "1.1",
            "method": method if raw_path else "-",
            "path": unquote(raw_path.decode("latin-1")),
            "raw_path": raw_path,
            "query_string": b"",
            "headers": known.headers,
            "refusal": refusal,
        }


def headers_too_large() -> HeadersTooLargeError:
    """Return what is said of too many headers, or too large ones."""
    return HeadersTooLargeError(
        f"a request may have {MAX_HEADERS} header fields and {MAX_HEADER_BYTES} bytes of them"
    )
