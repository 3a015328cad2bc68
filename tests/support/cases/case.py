"""What a case of the table of requests is: bytes for a socket, and the one answer that is right."""

import base64
import json
from dataclasses import dataclass

from tests.support.images.pngs import png

EDGE = b"edge"  # the boundary of all forms
FORM = b"multipart/form-data; boundary=edge"
PICTURE = png(1)
PICTURE_TEXT = base64.b64encode(PICTURE).decode()


@dataclass(frozen=True)
class Case:
    """One request and its answer."""

    name: str
    status: int
    code: str | None  # None: no problem; of 207 the items' codes, with commas between them
    request: bytes
    closes: bool = False  # the server ends the connection, and takes nothing more from it
    strict: bool = False  # for the server with keys and small limits; @name@ stands for a key


def request(method: str, path: str, body: bytes | None = None, *headers: bytes) -> bytes:
    """Return a request with these header lines, and with Content-Length where it has a body."""
    lines = [f"{method} {path} HTTP/1.1".encode(), b"Host: localhost", *headers]
    if body is not None:
        lines.append(b"Content-Length: %d" % len(body))
    return b"\r\n".join(lines) + b"\r\n\r\n" + (body or b"")


def get(path: str, *headers: bytes) -> bytes:
    return request("GET", path, None, *headers)


def typed(path: str, body: bytes, kind: bytes, *headers: bytes, method: str = "POST") -> bytes:
    return request(method, path, body, b"Content-Type: " + kind, *headers)


def raw(path: str, data: bytes, *headers: bytes, method: str = "POST") -> bytes:
    return typed(path, data, b"image/png", *headers, method=method)


def as_json(path: str, value: object, *headers: bytes, method: str = "POST") -> bytes:
    """Return a request of ``value`` as JSON; bytes go as they are."""
    body = value if isinstance(value, bytes) else json.dumps(value).encode()
    return typed(path, body, b"application/json", *headers, method=method)


def form(path: str, *parts: bytes, end: bytes = b"--edge--\r\n", method: str = "POST") -> bytes:
    body = b"".join(b"--" + EDGE + b"\r\n" + part + b"\r\n" for part in parts) + end
    return typed(path, body, FORM, method=method)


def field(name: bytes, value: bytes) -> bytes:
    return b'Content-Disposition: form-data; name="' + name + b'"\r\n\r\n' + value


def file(data: bytes, *, name: bytes = b"image", file_name: bytes = b"a.png") -> bytes:
    head = b'Content-Disposition: form-data; name="' + name + b'"; filename="' + file_name + b'"'
    return head + b"\r\n\r\n" + data


def four_ways(path: str, data: bytes) -> dict[str, bytes]:
    """Return the same image as the body, as a file of a form, as base64 and as a data: URI."""
    text = base64.b64encode(data).decode()
    return {
        "raw": raw(path, data),
        "in a form": form(path, file(data)),
        "in base64": as_json(path, {"image": text}),
        "as a data: URI": as_json(path, {"image": f"data:image/png;base64,{text}"}),
    }


def chunked(path: str, chunks: bytes, *headers: bytes) -> bytes:
    """Return a request whose body is ``chunks``, as they are."""
    given = (b"Content-Type: image/png", b"Transfer-Encoding: chunked", *headers)
    return request("POST", path, None, *given) + chunks
