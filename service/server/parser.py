"""The parser of a connection: httptools', which takes no offer to speak another protocol.

A client may offer to go on in another protocol and send a body all the same: ``curl --http2`` and
Java's HttpClient offer h2c with each first request. A server that does not take the offer goes on
as if it had not been made (RFC 9110, 7.8). llhttp stops there instead, so the rest of such a
request is given to another parser of its kind, which is told its framing and nothing else.
"""

from collections.abc import Callable
from typing import Protocol

import httptools

from service.server.request_head import RequestHead


class Listener(Protocol):
    """What is told of requests, as httptools calls it."""

    head: RequestHead  # of the request under way

    @property
    def parser(self) -> "RequestParser":
        """Return what tells it."""

    def on_message_begin(self) -> None:
        """Hear that a request begins."""

    def on_url(self, url: bytes) -> None:
        """Hear a piece of the path and query."""

    def on_header(self, name: bytes, value: bytes) -> None:
        """Hear a header, or a trailer after the body."""

    def on_headers_complete(self) -> None:
        """Hear that the head is all there."""

    def on_body(self, body: bytes) -> None:
        """Hear a piece of the body."""

    def on_message_complete(self) -> None:
        """Hear that the request is all there."""


class RequestParser:
    """One connection's requests, one after the other."""

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._parser = self._another(is_known=False)

    def feed_data(self, data: bytes) -> None:
        """Take what came, and tell the listener of it.

        Raises:
            httptools.HttpParserError: it is no HTTP, or the listener raised something.
        """
        while True:
            try:
                self._parser.feed_data(data)
            except httptools.HttpParserUpgrade as offer:
                data = data[offer.args[0] :]
            else:
                return
            version = self._parser.get_http_version().encode()
            head = [b"POST / HTTP/" + version, b"host: -"]
            head += [name + b": " + value for name, value in self._listener.head.framing()]
            self._parser = self._another(is_known=True)
            self._parser.feed_data(b"\r\n".join(head) + b"\r\n\r\n")

    def get_http_version(self) -> str:
        """Return the version of the request whose head is there."""
        return str(self._parser.get_http_version())

    def get_method(self) -> bytes:
        """Return its method."""
        return bytes(self._parser.get_method())

    def should_keep_alive(self) -> bool:
        """Whether its client expects the connection to last after the answer."""
        return bool(self._parser.should_keep_alive())

    def should_upgrade(self) -> bool:
        """Whether its client would go on in another protocol."""
        return bool(self._parser.should_upgrade())

    def _another(self, *, is_known: bool) -> httptools.HttpRequestParser:
        return httptools.HttpRequestParser(_Teller(self._listener, is_known=is_known))


class _Teller:
    """Tells the listener of all but a head that it knows, and an end that is none.

    A parser takes its callbacks when it is made, so they are here by then; most are the listener's.
    """

    def __init__(self, listener: Listener, *, is_known: bool) -> None:
        self._listener = listener
        self._is_known = is_known
        self.on_body = listener.on_body
        self.on_message_begin = self._unless_known(listener.on_message_begin)
        self.on_url = self._unless_known(listener.on_url)
        self.on_header = self._unless_known(listener.on_header)
        self.on_headers_complete = self._unless_known(listener.on_headers_complete)
        if is_known:
            self._tell_head = self.on_headers_complete
            self.on_headers_complete = self._know

    def on_message_complete(self) -> None:
        if not self._listener.parser.should_upgrade():  # else its rest is still to come
            self._listener.on_message_complete()

    def _unless_known(self, tell: Callable[..., None]) -> Callable[..., None]:
        if not self._is_known:
            return tell

        def tell_later(*what: bytes) -> None:
            if not self._is_known:
                tell(*what)

        return tell_later

    def _know(self) -> None:
        self._tell_head()
        self._is_known = False
