"""A request in, its images and its other fields out, however they were sent.

An image comes as a multipart file, as the raw body, or as base64 (or a data: URI) in JSON. Other
fields come as form fields, as query parameters, or as JSON members. Nothing is ever fetched.
"""

import asyncio
import base64
import binascii
import mmap
import time
from typing import Any, Final
from urllib.parse import parse_qsl

from pydantic_core import from_json
from starlette.requests import ClientDisconnect, Request

from service.errors import (
    AmbiguousQueryError,
    BodyTooLargeError,
    InvalidJsonError,
    InvalidParameterError,
    ListTooLongError,
    MalformedRequestError,
    SlowRequestError,
    UnexpectedFieldError,
    UnsupportedBodyError,
)
from service.http.admission import Reservation
from service.http.multipart import Part, parse_multipart
from service.schemas.image_fields import IMAGE_NAMES, image_field_hint
from service.schemas.parameters import MAX_IMAGES, MAX_JSON_VALUES, FormText
from vision.formats.detect import sniff_format

MAX_QUERY_FIELDS: Final = 100
PAGED_BYTES: Final = 2**20  # of a body above which its pieces would be held twice
LARGE_BYTES: Final = 64 * 2**10  # of a body that takes some milliseconds to take apart
JSON_TYPES: Final = ("application/json", "application/merge-patch+json")
_URL_SAFE: Final = bytes.maketrans(b"-_", b"+/")  # RFC 4648, section 5
_WHITE_SPACE: Final = b" \t\r\n\f\v"
# What a data: URI has of base64 in percent signs; the rest of its letters need none.
_PERCENT: Final = (
    *(("%2B", "+"), ("%2b", "+"), ("%2F", "/"), ("%2f", "/"), ("%3D", "="), ("%3d", "=")),
    *(("%0A", ""), ("%0a", ""), ("%0D", ""), ("%0d", ""), ("%20", "")),
)
_MOST_PADDING: Final = 2  # equals signs
_PRIVATE: Final = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS  # or else it would be shared memory
_WITHOUT_BODY: Final = ("GET", "HEAD", "DELETE")  # many clients name a type all the same


async def read_request(
    request: Request, *, max_bytes: int, held: Reservation, turn: asyncio.Lock
) -> tuple[list[bytes], dict[str, Any]]:
    """Return the encoded images of ``request`` in order, and every other field by its name.

    Fields are ``Text`` from forms and queries, and typed values from JSON. Large bodies are taken
    apart one at a time, each at its ``turn``, and then the event loop is everybody else's for as
    long as that took.

    Args:
        request: as it arrives.
        max_bytes: of its body.
        held: where these bytes are counted.
        turn: of large bodies.

    Raises:
        RequestError: the body is too large, or cannot be read.
    """
    body = await read_body(request, max_bytes=max_bytes, held=held)
    if len(body) <= LARGE_BYTES:
        return _parse(request, body)
    await turn.acquire()
    begun = time.perf_counter()
    try:
        return _parse(request, body)
    finally:
        taken_s = time.perf_counter() - begun
        asyncio.get_running_loop().call_later(taken_s, turn.release)


def _parse(request: Request, body: bytes) -> tuple[list[bytes], dict[str, Any]]:
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if body and encoding != "identity":
        raise UnsupportedBodyError(
            f"the body is encoded as {encoding[:60]!r}; send it as it is, without Content-Encoding",
            accepts=("Accept-Encoding", "identity"),
        )
    images: list[bytes] = []
    fields = _unique(_queried(request.scope["query_string"]))
    is_reading = not body and request.method in _WITHOUT_BODY
    header = "" if is_reading else request.headers.get("content-type", "")
    kind = header.partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
        parts = parse_multipart(body, header)
        images = [_image_of(part) for part in parts if part.name in IMAGE_NAMES]
        texts = [(part.name, _text(part)) for part in parts if part.name not in IMAGE_NAMES]
        fields = _unique([*fields.items(), *texts])
    elif kind in JSON_TYPES:
        members = _json_object(body)
        if {"image", "images"} <= members.keys():
            raise AmbiguousQueryError("send either image or images")
        if "image" in members:
            images.append(decode_image_text(members.pop("image"), name="image"))
        if "images" in members:
            images += _images_of_json(members.pop("images"))
        fields = _unique([*fields.items(), *members.items()])
    elif kind.startswith("image/") or kind == "application/octet-stream" or (body and not kind):
        images.append(body)
    elif body:
        raise UnsupportedBodyError(
            f"the body is of type {kind[:60]!r}; send an image/* body, multipart/form-data or JSON"
        )
    if len(images) > MAX_IMAGES:
        raise ListTooLongError(f"{len(images)} images came; at most {MAX_IMAGES} in one request")
    return images, fields


async def read_body(request: Request, *, max_bytes: int, held: Reservation) -> bytes:
    """Return the whole body, counted while it arrives; it is in time, or the connection ends.

    Raises:
        BodyTooLargeError: more than ``max_bytes``, declared or received.
        OverloadedError: all bodies together would be more than the worker may hold.
    """
    declared = request.headers.get("content-length", "0")
    if int(declared) > max_bytes:
        raise BodyTooLargeError(f"the body has {declared} bytes; at most {max_bytes} are allowed")
    gathered = _Gathered(int(declared))
    size = 0
    try:
        async for chunk in request.stream():
            size += len(chunk)
            if size > max_bytes:
                raise BodyTooLargeError(f"the body is larger than the {max_bytes} bytes allowed")
            held.grow_to(size)
            gathered.add(chunk)
    except ClientDisconnect as error:
        raise SlowRequestError("the client went away before the body arrived") from error
    return gathered.taken()


class _Gathered:
    """Pieces as they come; those of a large body in pages that the system has back at once."""

    def __init__(self, declared: int) -> None:
        self._pieces: list[bytes] = []
        # What is never written takes no memory, whatever was declared.
        self._pages = mmap.mmap(-1, declared, _PRIVATE) if declared > PAGED_BYTES else None

    def add(self, piece: bytes) -> None:
        if self._pages is None:
            self._pieces.append(piece)
        else:
            self._pages.write(piece)

    def taken(self) -> bytes:
        """Return all that came."""
        if self._pages is None:
            return b"".join(self._pieces)
        with self._pages:
            return self._pages[: self._pages.tell()]


def decode_image_text(text: Any, *, name: str) -> bytes:
    """Return the bytes that ``text``, base64 or a data: URI, stands for.

    The alphabet may be the one for addresses, line ends may be in it, and its padding may be
    missing.

    Raises:
        InvalidJsonError: it is something else.
    """
    if not isinstance(text, str):
        raise InvalidJsonError(f"{name} must be base64 text or a data: URI")
    text = text.strip()
    start = text[:8].lower()
    if start.startswith(("http://", "https://")):
        raise InvalidJsonError(f"{name} is a URL; this service fetches nothing, send the bytes")
    if start.startswith("data:"):
        head, _, text = text.partition(",")
        if not head.lower().endswith(";base64"):
            raise InvalidJsonError(f"{name} is a data: URI without ;base64")
        for code, letter in _PERCENT:
            text = text.replace(code, letter)
    try:
        data = text.encode("ascii").translate(_URL_SAFE, _WHITE_SPACE)
    except UnicodeEncodeError as error:
        raise InvalidJsonError(f"{name} is not valid base64") from error
    bare = data.rstrip(b"=")
    if len(data) - len(bare) > _MOST_PADDING:
        raise InvalidJsonError(f"{name} is not valid base64: it ends with too many =")
    try:
        return base64.b64decode(bare + b"=" * (-len(bare) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidJsonError(f"{name} is not valid base64") from error


def _image_of(part: Part) -> bytes:
    """Return the image in a part of a form; a field without a file name may carry it as text."""
    if part.is_file or not part.data.isascii() or sniff_format(part.data) is not None:
        return part.data
    return decode_image_text(part.data.decode("ascii"), name=part.name)


def _images_of_json(values: Any) -> list[bytes]:
    if not isinstance(values, list) or not values:
        raise InvalidJsonError("images must be a list of base64 texts, at least one")
    if len(values) > MAX_IMAGES:
        raise ListTooLongError(f"{len(values)} images came; at most {MAX_IMAGES} in one request")
    return [decode_image_text(value, name=f"images[{i}]") for i, value in enumerate(values)]


def _queried(query: bytes) -> list[tuple[str, FormText]]:
    """Return the fields of a query, which is UTF-8 behind its percent signs.

    Raises:
        MalformedRequestError: it is something else.
        InvalidParameterError: it has too many fields.
    """
    if not query:
        return []
    try:
        pairs = parse_qsl(
            query.decode("ascii"),
            keep_blank_values=True,
            errors="strict",
            max_num_fields=MAX_QUERY_FIELDS,
        )
    except UnicodeDecodeError as error:
        raise MalformedRequestError(
            "the query is not UTF-8: write other letters as the percent-encoded bytes of UTF-8"
        ) from error
    except ValueError as error:
        raise InvalidParameterError(f"a query has at most {MAX_QUERY_FIELDS} fields") from error
    return [(name, FormText(value)) for name, value in pairs]


def _json_object(body: bytes) -> dict[str, Any]:
    # There are about as many values as commas and brackets, of which base64 has none.
    if body.count(b",") + body.count(b"[") + body.count(b"{") > MAX_JSON_VALUES:
        raise ListTooLongError(f"the JSON has more than {MAX_JSON_VALUES} values")
    try:
        members = from_json(body, allow_inf_nan=False)
    except ValueError as error:
        raise InvalidJsonError("the body is not valid JSON") from error
    if not isinstance(members, dict):
        raise InvalidJsonError("the body must be a JSON object")
    if len(members) > MAX_QUERY_FIELDS:
        raise InvalidJsonError(
            f"the object has {len(members)} members; no route takes more than {MAX_QUERY_FIELDS}"
        )
    return members


def _unique(items: list[tuple[str, Any]]) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for name, value in items:
        if name in fields:
            raise AmbiguousQueryError(f"{name[:60]!r} came more than once")
        fields[name] = value
    return fields


def _text(part: Part) -> FormText:
    if part.is_file and sniff_format(part.data) is not None:
        raise UnexpectedFieldError(image_field_hint(part.name))
    return FormText(part.data.decode("utf-8", "replace"))
