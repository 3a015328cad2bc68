"""Cases of requests that two servers could take for different numbers of requests.

Behind each comes one that is hidden, for a server that ends the first one early, and one more that
ends the connection. An outcome is the statuses of the answers until then.
"""

from dataclasses import dataclass

from tests.support.cases.case import PICTURE, chunked, get, request

Outcome = tuple[int, ...]
CLASSIFY = "/v1/classify"
ALL = b"%x\r\n%s\r\n0\r\n\r\n" % (len(PICTURE), PICTURE)
CHUNKED = b"Transfer-Encoding: chunked"
LENGTH = b"Content-Length: %d" % len(PICTURE)
OFFER = (b"Connection: Upgrade", b"Upgrade: websocket")
HIDDEN = get("/v1/model", b"X-Request-ID: hidden")
LAST = get("/v1/model", b"X-Request-ID: last", b"Connection: close")


@dataclass(frozen=True)
class Ambiguous:
    """A request and those behind it, and what comes of them."""

    name: str
    sent: bytes
    fronted: Outcome  # through nginx
    direct: Outcome
    reaches: bool = True  # nginx passes the first one on
    is_cut: bool = False  # the client ends what it sends there, and nothing follows


def apart(status: int) -> Outcome:
    """Return the outcome where the hidden request was one of its own."""
    return status, 200, 200


def within(status: int) -> Outcome:
    """Return the outcome where the hidden request was a part of the first."""
    return status, 200


def _post(*headers: bytes, body: bytes = b"") -> bytes:
    return request("POST", CLASSIFY, None, b"Content-Type: image/png", *headers) + body


def _encoded(header: bytes) -> bytes:
    """Return a request that ends where its length says, or where its chunks do."""
    return _post(header, LENGTH, body=PICTURE)


def _in_chunks(*headers: bytes, version: bytes = b"1.1") -> bytes:
    return _line(b"POST /v1/classify HTTP/" + version, b"Content-Type: image/png", *headers) + ALL


def _of_length(value: bytes) -> bytes:
    return _post(b"Content-Length: " + value, body=b"hello")


def _chunks(chunks: bytes) -> bytes:
    return chunked(CLASSIFY, chunks)


def _line(first: bytes, *headers: bytes) -> bytes:
    return b"\r\n".join([first, b"Host: localhost", *headers]) + b"\r\n\r\n"


def _head(*headers: bytes) -> bytes:
    return get("/v1/model", *headers)


# nginx refuses these with 400, and so does the service.
_REFUSED = {
    "a length and chunks": _post(b"Content-Length: 5", CHUNKED, body=b"0\r\n\r\n"),
    "chunks and a length": _post(CHUNKED, b"Content-Length: 5", body=b"0\r\n\r\n"),
    "a length of all and chunks that end": _post(
        b"Content-Length: %d" % (5 + len(HIDDEN)), CHUNKED, body=b"0\r\n\r\n"
    ),
    "a length and chunks of HTTP/1.0": _in_chunks(CHUNKED, LENGTH, version=b"1.0"),
    "chunks of HTTP/1.0": _in_chunks(CHUNKED, version=b"1.0"),
    "chunks of HTTP/1.0 that is kept": _in_chunks(
        *(CHUNKED, b"Connection: keep-alive"), version=b"1.0"
    ),
    "an encoding with a blank before the colon": _encoded(b"Transfer-Encoding : chunked"),
    "an encoding with a tab before the colon": _encoded(b"Transfer-Encoding\t: chunked"),
    "an encoding over two lines": _encoded(b"Transfer-Encoding:\r\n chunked"),
    "an encoding whose colon is on the next line": _encoded(b"Transfer-Encoding\r\n : chunked"),
    "an encoding without a colon": _encoded(b"Transfer-Encoding chunked"),
    "an encoding after a blank": _encoded(b" Transfer-Encoding: chunked"),
    "an encoding in a folded header": _encoded(b"X-A: b\r\n Transfer-Encoding: chunked"),
    "an encoding after a bare line feed": _encoded(b"X-A: b\nTransfer-Encoding: chunked"),
    "an encoding after a bare carriage return": _encoded(b"X-A: b\rTransfer-Encoding: chunked"),
    "an encoding after a NUL": _encoded(b"X-A: b\0\r\nTransfer-Encoding: chunked"),
    "chunked in two headers": _in_chunks(CHUNKED, CHUNKED),
    "another encoding and chunked in two headers": _in_chunks(b"Transfer-Encoding: x", CHUNKED),
    "chunked and another encoding in two headers": _in_chunks(CHUNKED, b"Transfer-Encoding: x"),
    "two lengths, the smaller first": _post(b"Content-Length: 0", LENGTH, body=PICTURE),
    "two lengths, the larger first": _post(LENGTH, b"Content-Length: 0", body=PICTURE),
    "the same length twice": _post(LENGTH, LENGTH, body=PICTURE),
    "a length over two lines": _post(b"Content-Length: 5\r\n 0", body=b"hello"),
    "a length after a fold": _post(b"X-A: b\r\n\tContent-Length: 5", body=b"hello"),
    "a length after a bad name": _post(b"Content Length: 5", body=b"hello"),
    **{
        f"a length of {name}": _of_length(value)
        for name, value in {
            "the same twice": b"5, 5",
            "two numbers": b"5, 6",
            "a list of one": b"5,",
            "a plus": b"+5",
            "a minus": b"-5",
            "minus zero": b"-0",
            "a blank inside": b"1 0",
            "a hexadecimal number": b"0x5",
            "a number with an underscore": b"0_5",
            "a number with a point": b"5.0",
            "a number with an exponent": b"5e0",
            "a number in quotes": b'"5"',
            "a number and a parameter": b"5;",
            "an Arabic digit": b"\xd9\xa5",
            "a vertical tab and a number": b"\x0b5",
            "a number and a NUL": b"5\0",
            "nothing": b"",
            "2**64 + 5": b"18446744073709551621",
        }.items()
    },
    "chunks of 64 bits": _chunks(b"10000000000000005\r\nhello\r\n0\r\n\r\n"),
    "chunks of a minus": _chunks(b"-5\r\nhello\r\n0\r\n\r\n"),
    "chunks of a plus": _chunks(b"+5\r\nhello\r\n0\r\n\r\n"),
    "chunks of a hexadecimal number": _chunks(b"0x5\r\nhello\r\n0\r\n\r\n"),
    "chunks of a number with an underscore": _chunks(b"0_5\r\nhello\r\n0\r\n\r\n"),
    "chunks after a blank": _chunks(b" 5\r\nhello\r\n0\r\n\r\n"),
    "chunks that end a line with a carriage return": _chunks(b"5\rhello\r\n0\r\n\r\n"),
    "chunks that end a line with two": _chunks(b"5\r\r\nhello\r\n0\r\n\r\n"),
    "chunks that end with any two bytes": _chunks(b"5\r\nhelloxx0\r\n\r\n"),
    "chunks that end with a carriage return more": _chunks(b"5\r\nhello\r\r\n0\r\n\r\n"),
    "chunks that do not end": _chunks(b"5\r\nhello0\r\n\r\n"),
    "chunks that are longer than they say": _chunks(b"2\r\nhello\r\n0\r\n\r\n"),
    "chunks that end all with a carriage return": _chunks(b"5\r\nhello\r\n0\r\n\r"),
    "an extension with a line feed": _chunks(b"5;a\nb\r\nhello\r\n0\r\n\r\n"),
    "an extension with a carriage return": _chunks(b"5;a\rb\r\nhello\r\n0\r\n\r\n"),
    "an extension with a line end in quotes": _chunks(b'5;a="\r\nb"\r\nhello\r\n0\r\n\r\n'),
    "an offer, a length and chunks": _post(
        *OFFER, b"Content-Length: 5", CHUNKED, body=b"0\r\n\r\n"
    ),
    "an offer and two lengths": _post(*OFFER, b"Content-Length: 0", LENGTH, body=PICTURE),
    "an offer and a length with a plus": _post(*OFFER, b"Content-Length: +5", body=b"hello"),
    "an offer and a folded encoding": _post(
        *(*OFFER, b"X-A: b\r\n Transfer-Encoding: chunked", LENGTH), body=PICTURE
    ),
    "an offer and chunks of HTTP/1.0": _in_chunks(*OFFER, CHUNKED, version=b"1.0"),
    "CONNECT with a body": _line(b"CONNECT a:1 HTTP/1.1", b"Content-Length: 5") + b"hello",
    "two carriage returns in the first line": b"GET /v1/model HTTP/1.1\r\r\nHost: a\r\n\r\n",
    "two requests in one line": _line(b"GET /v1/model HTTP/1.1 GET /v1/model HTTP/1.1"),
    "two hosts": _head(b"Host: other"),
    "a host with a path": b"GET /v1/model HTTP/1.1\r\nHost: a/b\r\n\r\n",
    "a host with a user": b"GET /v1/model HTTP/1.1\r\nHost: a/@b\r\n\r\n",
    "a blank in a header's name": _head(b"X A: b"),
    "a header that begins with a blank": b"GET /v1/model HTTP/1.1\r\n Host: a\r\n\r\n",
    "an encoded line end in the version": get("/v1/model%0d%0aX: y%0d%0a%0d%0aGET /v1/model"),
}
# nginx refuses these with 501, and the service with 400.
_NOT_IMPLEMENTED = {
    **{
        f"an encoding of {name}": _encoded(b"Transfer-Encoding: " + value)
        for name, value in {
            "identity": b"identity",
            "xchunked": b"xchunked",
            "chunke": b"chunke",
            "nothing": b"",
            "chunked in quotes": b'"chunked"',
            "chunked after a vertical tab": b"\x0bchunked",
            "chunked after a DEL": b"\x7fchunked",
            "chunked after a blank of Latin-1": b"\xa0chunked",
            "chunked before a line end of Latin-1": b"chunked\x85",
            "chunked with the sign of kelvin": "chun\u212aed".encode(),
        }.items()
    },
    **{
        f"chunks in {name}": _in_chunks(b"Transfer-Encoding: " + value)
        for name, value in {
            "chunked and identity": b"chunked, identity",
            "chunked twice": b"chunked, chunked",
            "chunked with a parameter": b"chunked;a=b",
            "chunked and nothing": b"chunked,",
            "nothing and chunked": b",chunked",
            "identity and chunked": b"identity, chunked",
            "gzip and chunked": b"gzip, chunked",
        }.items()
    },
    "an offer and an encoding nobody knows": _post(
        *OFFER, b"Transfer-Encoding: x", LENGTH, body=PICTURE
    ),
    "an offer and chunks that are encoded": _in_chunks(*OFFER, b"Transfer-Encoding: chunked, gzip"),
}
# nginx takes these for whole bodies that are no picture, and makes them plain; asked directly, the
# service refuses them.
_MADE_PLAIN = {
    "chunks before a blank": _chunks(b"5 \r\nhello\r\n0\r\n\r\n"),
    "chunks that end lines with a line feed": _chunks(b"5\nhello\n0\n\n"),
    "chunks that end one line with a line feed": _chunks(b"5\nhello\r\n0\r\n\r\n"),
    "chunks that end with a line feed": _chunks(b"5\r\nhello\n0\r\n\r\n"),
    "chunks that end all with a line feed": _chunks(b"5\r\nhello\r\n0\r\n\n"),
    "chunks whose last ends with a line feed": _chunks(b"5\r\nhello\r\n0\n\r\n"),
    "an offer and chunks with a line feed": _post(*OFFER, CHUNKED, body=b"5\nhello\r\n0\r\n\r\n"),
    "an extension after a blank": _chunks(b"5 ;a\r\nhello\r\n0\r\n\r\n"),
    "an extension with a NUL": _chunks(b"5;a\0\r\nhello\r\n0\r\n\r\n"),
    "an extension of the last chunk that ends with a line feed": _chunks(
        b"5\r\nhello\r\n0;a\n\r\n"
    ),
    "a trailer that is a length": _chunks(b"5\r\nhello\r\n0\r\nContent-Length: 9\r\n\r\n"),
    "a trailer that is an encoding": _chunks(
        b"5\r\nhello\r\n0\r\nTransfer-Encoding: chunked\r\n\r\n"
    ),
    "a trailer over two lines": _chunks(b"5\r\nhello\r\n0\r\nX: a\r\n b\r\n\r\n"),
    "a trailer that ends with a line feed": _chunks(b"5\r\nhello\r\n0\r\nX: a\n\r\n"),
    "a trailer without a colon": _chunks(b"5\r\nhello\r\n0\r\nX\r\n\r\n"),
    "a trailer with a NUL": _chunks(b"5\r\nhello\r\n0\r\nX: \0\r\n\r\n"),
}
# The same with requests that have no body.
_MADE_PLAIN_WITHOUT_BODY = {
    "line feeds alone": b"GET /v1/model HTTP/1.1\nHost: a\n\n",
    "a line feed after the first line": b"GET /v1/model HTTP/1.1\nHost: a\r\n\r\n",
    "a line feed after a header": b"GET /v1/model HTTP/1.1\r\nHost: a\n\r\n",
    "a line feed after all headers": b"GET /v1/model HTTP/1.1\r\nHost: a\r\n\n",
    "a blank after the first line": _line(b"GET /v1/model HTTP/1.1 "),
    "a host with a port that is none": b"GET /v1/model HTTP/1.1\r\nHost: a:b\r\n\r\n",
    "HTTP/1.10": _line(b"GET /v1/model HTTP/1.10"),
    "a header without a colon": _head(b"X-A"),
    "an encoding over two names": _head(b"Transfer-\nEncoding: chunked"),
}
# Both take these for the same.
_ALIKE = {
    "chunked in capitals": (200, _in_chunks(b"Transfer-Encoding: CHUNKED")),
    "chunked with an underscore": (200, _encoded(b"Transfer_Encoding: chunked")),
    "a length with blanks around": (415, _of_length(b"   5   ")),
    "a length with a zero before": (415, _of_length(b"05")),
    "a length with forty": (415, _of_length(b"0" * 40 + b"5")),
    "a length with an underscore": (400, _post(b"Content_Length: 5")),
    "no length": (400, _post()),
    "chunks of GET": (200, _head(CHUNKED) + b"0\r\n\r\n"),
    "chunks of zeros": (415, _chunks(b"0" * 40 + b"5\r\nhello\r\n0\r\n\r\n")),
    "chunks that end with zeros": (415, _chunks(b"5\r\nhello\r\n0000\r\n\r\n")),
    "a target with a fragment": (200, _line(b"GET /v1/model#a HTTP/1.1")),
    "a target with an encoded line end": (200, get("/v1/model?%0d%0aX:%20y")),
    "a target like a host": (404, get("//other.example/v1/model")),
    "a blank more in the first line": (200, _line(b"GET  /v1/model HTTP/1.1")),
    "a request behind a body": (200, _post(LENGTH, body=PICTURE)),
    "a request behind another": (200, _head()),
    "a request behind empty lines": (200, _head() + b"\r\n\r\n"),
    "a request behind line feeds": (200, _head() + b"\n\n"),
    "a request behind a body that nobody reads": (404, request("POST", "/v1/nothing", HIDDEN)),
    "an expectation that is met": (200, _post(b"Expect: 100-continue", LENGTH, body=PICTURE)),
    "an expectation nobody knows": (200, _post(b"Expect: y 100-continue", LENGTH, body=PICTURE)),
    "chunks that hold a request": (
        415,
        _chunks(b"%x\r\n%s\r\n0\r\n\r\n" % (len(HIDDEN), HIDDEN)),
    ),
    "HEAD with a body": (200, request("HEAD", "/v1/model", b"hello")),
    "an offer": (200, _head(*OFFER)),
    "an offer and a length": (200, _post(*OFFER, LENGTH, body=PICTURE)),
    "an offer and chunks": (200, _in_chunks(*OFFER, CHUNKED)),
    "headers named by Connection": (200, _head(b"Connection: X-Forwarded-For, Host")),
    "a length named by Connection": (
        200,
        _post(b"Connection: Content-Length", LENGTH, body=PICTURE),
    ),
    "an encoding named by Connection": (200, _in_chunks(b"Connection: Transfer-Encoding", CHUNKED)),
}
# The service takes these for the same as others do, and nginx refuses them.
_REFUSED_BY_NGINX = {
    "a host of nothing": b"GET /v1/model HTTP/1.1\r\nHost:\r\n\r\n",
    "a target with a user": _line(b"GET http://a:b@c/v1/model HTTP/1.1"),
}
_HIDES = b"Content-Length: %d" % len(HIDDEN)
_EACH_FOR_ITSELF = [
    Ambiguous("a length of a tab and a number", _of_length(b"\t5\t"), (400,), apart(415), False),
    Ambiguous(
        "chunked after a tab",
        *(_in_chunks(b"Transfer-Encoding:\tchunked"), (501,), apart(200), False),
    ),
    Ambiguous("HTTP/9.9", _line(b"GET /v1/model HTTP/9.9"), (505,), (400,), False),
    Ambiguous(
        "another host in the target",
        _line(b"GET http://other.example/v1/model HTTP/1.1"),
        apart(200),
        apart(403),
    ),
    Ambiguous("a length of GET", _head(_HIDES), within(200), within(200)),
    Ambiguous(
        "a length of OPTIONS", request("OPTIONS", "/v1/search", None, _HIDES), *[within(405)] * 2
    ),
    Ambiguous(
        "a length of TRACE", request("TRACE", "/v1/model", None, _HIDES), (405,), within(405), False
    ),
    Ambiguous(
        "a length of DELETE", request("DELETE", "/v1/items/none", None, _HIDES), *[within(400)] * 2
    ),
    Ambiguous("a trailer that is a request", _chunks(b"5\r\nhello\r\n0\r\n"), within(415), (400,)),
    Ambiguous("a request after the last", _head(b"Connection: close"), (200,), (200,)),
    Ambiguous("a request after HTTP/1.0", _line(b"GET /v1/model HTTP/1.0"), (200,), (200,)),
    Ambiguous(
        "a request after HTTP/1.0 that is kept",
        *(_line(b"GET /v1/model HTTP/1.0", b"Connection: keep-alive"), apart(200), (200,)),
    ),
    Ambiguous(
        "an offer with the last",
        _head(b"Connection: Upgrade, close", b"Upgrade: h2c"),
        (200,),
        (200,),
    ),
    Ambiguous("an expectation without a body", _head(b"Expect: 100-continue"), apart(200), (200,)),
    Ambiguous("an expectation of GET", _head(b"Expect: 100-continue", _HIDES), within(200), (200,)),
    Ambiguous(
        "an expectation that is refused",
        *(
            request("POST", "/v1/nothing", None, b"Expect: 100-continue", _HIDES),
            within(404),
            (404,),
        ),
    ),
    Ambiguous("nonsense after a request", _head() + b"nonsense\r\n\r\n", (200, 400), (200, 400)),
    Ambiguous("a NUL after a request", _head() + b"\0", (200, 400), (200, 400)),
    Ambiguous("a length of 2**32 + 5", _of_length(b"4294967301"), (413,), (413,), False, True),
    Ambiguous("chunks of 32 bits", _chunks(b"100000005\r\nhello"), (413,), (), False, True),
]

CASES: list[Ambiguous] = [
    *(Ambiguous(name, sent, (400,), (400,), False) for name, sent in _REFUSED.items()),
    *(Ambiguous(name, sent, (501,), (400,), False) for name, sent in _NOT_IMPLEMENTED.items()),
    *(Ambiguous(name, sent, apart(415), (400,)) for name, sent in _MADE_PLAIN.items()),
    *(Ambiguous(name, sent, apart(200), (400,)) for name, sent in _MADE_PLAIN_WITHOUT_BODY.items()),
    *(Ambiguous(name, sent, apart(code), apart(code)) for name, (code, sent) in _ALIKE.items()),
    *(Ambiguous(name, sent, (400,), apart(200), False) for name, sent in _REFUSED_BY_NGINX.items()),
    *_EACH_FOR_ITSELF,
]
