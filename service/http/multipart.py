"""A multipart/form-data body in memory in, its parts out (RFC 7578, with python-multipart)."""

import base64
import binascii
from dataclasses import dataclass
from typing import Final

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from service.errors import MalformedMultipartError

MAX_PARTS: Final = 256
MAX_FIELD_BYTES: Final = 2**20  # of a part without a file name


@dataclass(frozen=True, slots=True)
class Part:
    """One named part; client file names are not kept, only whether there was one."""

    name: str
    is_file: bool
    data: bytes


class _Collector:
    """The parser's callbacks: gathers header fields and data until a part ends."""

    def __init__(self) -> None:
        self.parts: list[Part] = []
        self.is_complete = False  # the closing delimiter was seen
        self._header_name = b""
        self._header_value = b""
        self._disposition = b""
        self._is_base64 = False  # as mail programs send parts
        self._chunks: list[bytes] = []

    def on_part_begin(self) -> None:
        if len(self.parts) == MAX_PARTS:
            raise MalformedMultipartError(f"a form may have at most {MAX_PARTS} parts")
        self._disposition = b""
        self._is_base64 = False
        self._chunks = []

    def on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._header_name += data[start:end]

    def on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._header_value += data[start:end]

    def on_header_end(self) -> None:
        if self._header_name.lower() == b"content-disposition":
            self._disposition = self._header_value
        elif self._header_name.lower() == b"content-transfer-encoding":
            self._is_base64 = self._header_value.strip().lower() == b"base64"
        self._header_name = self._header_value = b""

    def on_part_data(self, data: bytes, start: int, end: int) -> None:
        self._chunks.append(data[start:end])

    def on_part_end(self) -> None:
        kind, options = parse_options_header(self._disposition)
        if kind != b"form-data" or b"name" not in options:
            raise MalformedMultipartError(
                'every part needs a header Content-Disposition: form-data; name="…"'
            )
        name = options[b"name"].decode("utf-8", "replace")
        data = b"".join(self._chunks)
        part = Part(name, b"filename" in options, _plain(data) if self._is_base64 else data)
        if not part.is_file and len(part.data) > MAX_FIELD_BYTES:
            raise MalformedMultipartError(
                f"a form field may have at most {MAX_FIELD_BYTES} bytes; send images as files"
            )
        self.parts.append(part)

    def on_end(self) -> None:
        self.is_complete = True


def parse_multipart(body: bytes, content_type: str) -> list[Part]:
    """Return the parts of ``body`` in order.

    Raises:
        MalformedMultipartError: no boundary, broken or truncated parts, too many parts.
    """
    boundary = parse_options_header(content_type)[1].get(b"boundary")
    if not boundary:
        raise MalformedMultipartError("the Content-Type header names no multipart boundary")
    collector = _Collector()
    try:
        parser = MultipartParser(
            boundary,
            {
                "on_part_begin": collector.on_part_begin,
                "on_part_data": collector.on_part_data,
                "on_part_end": collector.on_part_end,
                "on_header_field": collector.on_header_field,
                "on_header_value": collector.on_header_value,
                "on_header_end": collector.on_header_end,
                "on_end": collector.on_end,
            },
        )
        parser.write(_without_preamble(body, b"--" + boundary))
        parser.finalize()
    except FormParserError as error:
        raise MalformedMultipartError("the multipart body is damaged") from error
    if not collector.is_complete:
        raise MalformedMultipartError("the multipart body ends before its closing delimiter")
    return collector.parts


def _plain(data: bytes) -> bytes:
    try:
        return base64.b64decode(b"".join(data.split()), validate=True)
    except binascii.Error as error:
        raise MalformedMultipartError("a part that says it is base64 is not") from error


def _without_preamble(body: bytes, delimiter: bytes) -> bytes:
    """Return ``body`` from its first delimiter on; what is before it is no part (RFC 2046, 5.1)."""
    if body.startswith(delimiter):
        return body
    start = body.find(b"\r\n" + delimiter)
    return body if start < 0 else body[start + 2 :]
