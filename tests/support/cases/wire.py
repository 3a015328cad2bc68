"""Cases of HTTP itself: request lines, headers, lengths, chunks, versions, methods and targets."""

from tests.support.cases.case import PICTURE, Case, chunked, get, raw, request

CLASSIFY = "/v1/classify"
_PNG = b"Content-Type: image/png"
_HIDDEN = get("/v1/model", b"X-Request-ID: smuggled")  # what must never be taken for a request
_ALL_CHUNKS = b"%x\r\n%s\r\n0\r\n\r\n" % (len(PICTURE), PICTURE)


def _line(line: bytes, *headers: bytes) -> bytes:
    """Return a request of this very first line."""
    return b"\r\n".join([line, b"Host: localhost", *headers]) + b"\r\n\r\n"


def _livez(*headers: bytes) -> bytes:
    return _line(b"GET /livez HTTP/1.1", *headers)


def _long(*lengths: bytes, body: bytes = b"") -> bytes:
    return request("POST", CLASSIFY, None, _PNG, *lengths) + body


_MALFORMED = {
    "no request line": b"hello\r\n\r\n",
    "a request line of one word": b"GET\r\n\r\n",
    "no target": _line(b"GET  HTTP/1.1"),
    "a target without a slash": _line(b"GET livez HTTP/1.1"),
    "a target with a blank": _line(b"GET /livez x HTTP/1.1"),
    "a target with a tab": _line(b"GET /v1/items/a\tb HTTP/1.1"),
    "a target with a NUL": _line(b"GET /v1/items/a\0b HTTP/1.1"),
    "a target in bare UTF-8": _line("GET /v1/items/café HTTP/1.1".encode()),
    "an unknown method": _line(b"FETCH /livez HTTP/1.1"),
    "a method in small letters": _line(b"get /livez HTTP/1.1"),
    "CONNECT to a host": _line(b"CONNECT example.org:443 HTTP/1.1"),
    "a protocol in small letters": _line(b"GET /livez http/1.1"),
    "another protocol": _line(b"GET /livez ICY/1.1"),
    "HTTP/1.2": _line(b"GET /livez HTTP/1.2"),
    "HTTP/9.9": _line(b"GET /livez HTTP/9.9"),
    "HTTP/0.9": b"GET /livez\r\n\r\n",
    "HTTP/2.0 in the line": _line(b"GET /livez HTTP/2.0"),
    "the preface of HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "a greeting of TLS": b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03" + bytes(64),
    "line ends without a carriage return": b"GET /livez HTTP/1.1\nHost: localhost\n\n",
    "no Host": b"GET /livez HTTP/1.1\r\n\r\n",
    "two Hosts": _livez(b"Host: other"),
    "a header without a colon": _livez(b"X-A"),
    "a header without a name": _livez(b": value"),
    "a blank before the colon": _long(b"Content-Length : 5", body=_HIDDEN),
    "a folded header": _livez(b"X-A: b\r\n c"),
    "a header folded with a tab": _livez(b"X-A: b\r\n\tc"),
    "a NUL in a header": _livez(b"X-A: b\0c"),
    "a NUL in a header's name": _livez(b"X\0A: b"),
    "a carriage return in a header": _livez(b"X-A: b\rc"),
    "a bell in a header's name": _livez(b"X\x07A: b"),
    "a length and chunks": _long(
        *(b"Content-Length: 5", b"Transfer-Encoding: chunked"),
        body=b"0\r\n\r\n" + _HIDDEN,
    ),
    "chunks and a length": _long(
        *(b"Transfer-Encoding: chunked", b"Content-Length: 5"),
        body=b"0\r\n\r\n" + _HIDDEN,
    ),
    "two lengths": _long(b"Content-Length: 5", b"Content-Length: 6", body=b"hello" + _HIDDEN),
    "the same length twice": _long(b"Content-Length: 5", b"Content-Length: 5", body=b"hello"),
    "a list of lengths": _long(b"Content-Length: 5, 5", body=b"hello"),
    "a negative length": _long(b"Content-Length: -5", body=b"hello"),
    "a length with a plus": _long(b"Content-Length: +5", body=b"hello"),
    "a hexadecimal length": _long(b"Content-Length: 0x5", body=b"hello"),
    "an empty length": _long(b"Content-Length: "),
    "a length in words": _long(b"Content-Length: five", body=b"hello"),
    "a length of 23 digits": _long(b"Content-Length: " + b"9" * 23, body=b"hello"),
    "an unknown encoding": _long(b"Transfer-Encoding: gzip", body=b"hello"),
    "an encoding like chunked": _long(b"Transfer-Encoding: xchunked", body=_ALL_CHUNKS),
    "chunked before another encoding": _long(b"Transfer-Encoding: chunked, gzip", body=_ALL_CHUNKS),
    "chunked twice": _long(
        *(b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"), body=_ALL_CHUNKS
    ),
    "a chunk's size that is no number": chunked(CLASSIFY, b"zz\r\nhello\r\n0\r\n\r\n"),
    "a chunk's size that is negative": chunked(CLASSIFY, b"-5\r\nhello\r\n0\r\n\r\n"),
    "a chunk's size with 0x": chunked(CLASSIFY, b"0x5\r\nhello\r\n0\r\n\r\n"),
    "a chunk's size of 80 bits": chunked(CLASSIFY, b"f" * 20 + b"\r\nhello\r\n0\r\n\r\n"),
    "a chunk longer than its size": chunked(CLASSIFY, b"2\r\nhello\r\n0\r\n\r\n"),
    "chunks without carriage returns": chunked(CLASSIFY, b"5\nhello\n0\n\n"),
    "a chunk's size that is missing": chunked(CLASSIFY, b"\r\nhello\r\n0\r\n\r\n"),
}
_TOO_LARGE = {
    "a header of 1 MiB": _livez(b"X-A: " + b"a" * 2**20),
    "a header's name of 64 KiB": _livez(b"a" * 2**16 + b": b"),
    "1,000 headers": _livez(*(b"X-%d: a" % number for number in range(1000))),
}
_TOO_LONG = {
    "a query of 100,000 characters": get("/livez?" + "a" * 100_000),
    "a path of 100,000 characters": get("/v1/items/" + "a" * 100_000),
}
_METHODS = {
    f"{method} {path}": request(method, path)
    for method, path in (
        *(("OPTIONS", "/v1/search"), ("TRACE", "/livez"), ("PROPFIND", "/v1/items")),
        *(("PATCH", "/v1/items"), ("POST", "/v1/gallery"), ("GET", "/v1/classify")),
        *(("PUT", "/v1/items"), ("DELETE", "/v1/items"), ("POST", "/v1/items/item-00")),
        *(("GET", "/v1/search/range"), ("PUT", "/v1/jobs"), ("POST", "/livez")),
        *(
            ("PATCH", "/v1/jobs/x"),
            ("DELETE", "/"),
            ("POST", "/openapi.json"),
            ("QUERY", "/v1/search"),
        ),
    )
}
_NOT_FOUND = {
    "GET of a star": _line(b"GET * HTTP/1.1"),
    "two slashes": get("//livez"),
    "two slashes within": get("/v1//model"),
    "a slash at the end": get("/livez/"),
    "a point in the path": get("/./livez"),
    "a path in capitals": get("/LIVEZ"),
    "a path that is not there": get("/v1/nothing"),
    "another version": get("/v2/model"),
    "a path with a backslash": get("/v1\\model"),
    "a path of encoded line ends": get("/livez%0d%0aX-A:%20b"),
}
_WORKS = {
    "a whole request, in chunks": chunked(CLASSIFY, _ALL_CHUNKS),
    "chunks with extensions": chunked(
        CLASSIFY, b"%x;a=b;c\r\n%s\r\n0;d\r\n\r\n" % (len(PICTURE), PICTURE)
    ),
    "chunks with a trailer": chunked(
        CLASSIFY, b"%x\r\n%s\r\n0\r\nX-A: b\r\n\r\n" % (len(PICTURE), PICTURE)
    ),
    "a few bytes a chunk": chunked(
        CLASSIFY,
        b"".join(
            b"%x\r\n%b\r\n" % (len(piece), piece)
            for piece in (PICTURE[at : at + 5] for at in range(0, len(PICTURE), 5))
        )
        + b"0\r\n\r\n",
    ),
    "a request that waits to send": raw(CLASSIFY, PICTURE, b"Expect: 100-continue"),
    "empty lines before the request": b"\r\n\r\n" + _livez(),
    "an absolute target": _line(b"GET http://other.example/livez HTTP/1.1"),
    "an encoded path": get("/%6civez"),
    "a query that nobody reads": get("/livez?a=b&&=c"),
    "a header in Latin-1": _livez(b"X-A: \xff\xfe"),
    "a request id with a line end, encoded": _livez(b"X-Request-ID: a%0d%0ab"),
    "a request id of 100 characters": _livez(b"X-Request-ID: " + b"a" * 100),
    "a body of a request that needs none": request("GET", "/livez", _HIDDEN),
    "HEAD of the page": request("HEAD", "/"),
    "HEAD of a probe": request("HEAD", "/livez"),
    "an upgrade to HTTP/2": _livez(b"Connection: Upgrade", b"Upgrade: h2c"),
    "an upgrade to WebSocket": _livez(
        *(b"Connection: Upgrade", b"Upgrade: websocket", b"Sec-WebSocket-Version: 13"),
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    ),
    "an offer to speak HTTP/2": _livez(b"Connection: HTTP2-Settings", b"HTTP2-Settings: AAMA"),
}
_WORKS_AND_CLOSES = {
    "HTTP/1.0": b"GET /livez HTTP/1.0\r\n\r\n",
    "Connection: close": _livez(b"Connection: close"),
}

CASES = [
    *(Case(name, 400, "malformed_request", sent, closes=True) for name, sent in _MALFORMED.items()),
    *(Case(name, 431, "headers_too_large", sent, closes=True) for name, sent in _TOO_LARGE.items()),
    *(Case(name, 414, "url_too_long", sent, closes=True) for name, sent in _TOO_LONG.items()),
    *(Case(name, 405, "method_not_allowed", sent) for name, sent in _METHODS.items()),
    *(Case(name, 404, "not_found", sent) for name, sent in _NOT_FOUND.items()),
    *(Case(name, 200, None, sent) for name, sent in _WORKS.items()),
    *(Case(name, 200, None, sent, closes=True) for name, sent in _WORKS_AND_CLOSES.items()),
    Case(
        *("a length of 99 GB", 413, "payload_too_large"),
        _long(b"Content-Length: 99999999999", body=_HIDDEN),
        closes=True,
    ),
    Case(
        *("a request within a body that is no image", 415, "unsupported_image_type"),
        raw(CLASSIFY, _HIDDEN),
    ),
    Case(
        *("a request within the body of an unknown path", 404, "not_found"),
        raw("/v1/nothing", _HIDDEN),
    ),
    Case(
        *("a request within the body of a wrong method", 405, "method_not_allowed"),
        raw("/v1/model", _HIDDEN),
    ),
]
