"""Requests that are cheap to send and were, or might be, dear to answer; and who sends them."""

import asyncio
import contextlib
import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from PIL import Image

from tests.hostile_pictures import (
    animation,
    inflating_texts,
    many_chunks,
    many_segments,
    palette_png,
    repeated_baseline_scans,
    repeated_scans,
)
from tests.load import request_bytes
from tests.pictures import bomb_png, encoded, picture, png

DEADLINE_S: Final = 45.0  # of a request that may wait, work and be answered
TRICKLE_S: Final = 0.2
_HEAD: Final = b"POST /v1/classify HTTP/1.1\r\nHost: lookalike\r\n"


@dataclass(frozen=True)
class Kind:
    """One kind of hostile request."""

    name: str
    sent: bytes
    trickle: bytes = b""  # goes on to be sent, until there is an answer


def json_request(path: str, value: Any, method: str = "POST") -> bytes:
    body = value if isinstance(value, bytes) else json.dumps(value).encode()
    return request_bytes(method, path, body, Content_Type="application/json")


def form(parts: list[tuple[str, bytes]]) -> bytes:
    body = b"".join(
        b"--b\r\n" + head.encode() + b"\r\n\r\n" + data + b"\r\n" for head, data in parts
    )
    kind = "multipart/form-data; boundary=b"
    return request_bytes("POST", "/v1/classify", body + b"--b--\r\n", Content_Type=kind)


def image(data: bytes, path: str = "/v1/classify") -> bytes:
    return request_bytes("POST", path, data, Content_Type="image/png")


def pictures() -> Iterator[Kind]:
    yield Kind("JPEG of 16,000 repeated scans", image(repeated_scans(16_000)))
    yield Kind("JPEG of 90 repeated scans", image(repeated_scans(90)))
    yield Kind("sequential JPEG of repeated scans", image(repeated_baseline_scans(5_000)))
    yield Kind("JPEG of many segments", image(many_segments(1_000_000)))
    yield Kind("PNG of many chunks", image(many_chunks(1_000_000)))
    yield Kind("PNG of 25 megapixels in 3 kB", image(palette_png()))
    yield Kind("PNG whose texts inflate", image(inflating_texts(64)))
    yield Kind("PNG whose iTXt inflates", image(inflating_texts(64, b"iTXt")))
    yield Kind("PNG whose profiles inflate", image(inflating_texts(64, b"iCCP")))
    yield Kind("PNG that promises 400 megapixels", image(bomb_png(20_000, 20_000)))
    yield Kind("interlaced PNG", image(encoded(Image.new("RGB", (4_000, 4_000)), compress_level=9)))
    yield Kind("PNG of one row", image(encoded(Image.new("L", (16_000, 1)))))
    yield Kind("GIF of many frames", image(animation("GIF", 200)))
    yield Kind("WebP of many frames", image(animation("WEBP", 60)))
    yield Kind("APNG of many frames", image(animation("PNG", 60)))
    yield Kind("progressive JPEG, large", image(_progressive()))
    yield Kind("a cut JPEG, large", image(_progressive()[:-5_000]))
    yield Kind("TIFF, large and packed", image(_tiff()))
    yield Kind("zeros", image(bytes(2 * 2**20)))
    part = 'Content-Disposition: form-data; name="image"; filename="a"'
    yield Kind("a form of 48 large pictures", form([(part, palette_png())] * 48))
    yield Kind("a form of 256 small pictures", form([(part, png(1))] * 256))


def _progressive() -> bytes:
    return encoded(picture(3, (4_000, 4_000)), "JPEG", progressive=True, quality=70)


def _tiff() -> bytes:
    return encoded(Image.new("RGB", (4_500, 4_500)), "TIFF", compression="tiff_deflate")


def values() -> Iterator[Kind]:
    many = 400_000
    yield Kind("items of zeros", json_request("/v1/items", {"items": [0] * many}))
    yield Kind("items of objects", json_request("/v1/items", {"items": [{}] * 99_000}))
    yield Kind("a vector of words", json_request("/v1/search", {"vector": [""] * many}))
    yield Kind("a long vector", json_request("/v1/search", {"vector": [0.5] * 99_000}))
    yield Kind("nested lists", json_request("/v1/search", b"[" * 1_000_000))
    yield Kind("nested objects", json_request("/v1/search", b'{"a":' * 300_000))
    yield Kind("a filter of a megabyte", json_request("/v1/search", _filter(90_000)))
    yield Kind("a filter of values", json_request("/v1/search", _filter(1, [0] * 90_000)))
    yield Kind("a filter that finds nothing", json_request("/v1/search", _filter(64, ["x"] * 15)))
    yield Kind("metadata of a megabyte", json_request("/v1/items/h", _metadata(), "PUT"))
    yield Kind("a patch of a megabyte", _patch())
    yield Kind("long numbers", json_request("/v1/search", b'{"k":' + b"9" * 2_000_000 + b"}"))
    yield Kind("one name many times", json_request("/v1/search", b"{" + b'"k":1,' * 150_000 + b"}"))
    yield Kind("many names", json_request("/v1/search", {f"n{i}": i for i in range(90_000)}))
    yield Kind("text that is no UTF-8", json_request("/v1/search", b'{"id":"' + b"\xff" * 2**20))
    yield Kind("many queries", json_request("/v1/search", {"queries": [{"id": "item-01"}] * 64}))
    yield Kind("far too many queries", json_request("/v1/search", {"queries": [{}] * 90_000}))
    yield Kind(
        "ids to leave out", json_request("/v1/search", {"id": "item-01", "exclude": [""] * 999})
    )
    yield Kind("base64 that is none", json_request("/v1/classify", {"image": "=" * 4_000_000}))
    yield Kind("ids to delete", json_request("/v1/items/delete", {"ids": ["x"] * 90_000}))
    yield Kind("facets", json_request("/v1/facets", {"facets": [f"k{i}" for i in range(16)]}))


def _filter(conditions: int, match: Any = "x") -> dict[str, Any]:
    return {"id": "item-01", "filter": {"must": [{"key": "a", "match": match}] * conditions}}


def _metadata() -> dict[str, Any]:
    return {"image": "", "metadata": {f"key {number}": number for number in range(60_000)}}


def _patch() -> bytes:
    body = json.dumps({"metadata": {"a": [0] * 90_000}}).encode()
    return request_bytes(
        "PATCH", "/v1/items/item-01", body, Content_Type="application/merge-patch+json"
    )


def wire() -> Iterator[Kind]:
    part = 'Content-Disposition: form-data; name="x"'
    yield Kind("a form of thousands of parts", form([(part, b"")] * 20_000))
    yield Kind("a part of endless headers", form([(part + "\r\nX: " + "y" * 1_000_000, b"")]))
    kind = "multipart/form-data; boundary=b"
    like = request_bytes("POST", "/v1/classify", b"\r\n--" * 500_000, Content_Type=kind)
    yield Kind("a form that is like its boundary", like)
    yield Kind("an endless header", b"GET /livez HTTP/1.1\r\nHost: a\r\nX: " + b"y" * 1_000_000)
    yield Kind("many headers", b"GET /livez HTTP/1.1\r\nHost: a\r\n" + b"X: y\r\n" * 100_000)
    yield Kind("an endless address", b"GET /" + b"a" * 1_000_000)
    fields = "&".join(f"a{number}=1" for number in range(900))
    yield Kind("a long query", request_bytes("POST", f"/v1/classify?{fields}", png(1)))
    chunks = b"1\r\na\r\n" * 200_000 + b"0\r\n\r\n"
    yield Kind("chunks of a byte", _HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + chunks)
    trailers = b"0\r\n" + b"X: y\r\n" * 50_000 + b"\r\n"
    yield Kind("trailers", _HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + trailers)
    yield Kind("pipelined requests", b"GET /livez HTTP/1.1\r\nHost: a\r\n\r\n" * 5_000)
    yield Kind("a body that is announced", _HEAD + b"Content-Length: 20000000\r\n\r\n")
    yield Kind("a body that trickles", _HEAD + b"Content-Length: 20000000\r\n\r\n", b"a")
    yield Kind("headers that trickle", _HEAD + b"X: ", b"a")
    packed = zlib.compress(bytes(20 * 2**20))
    yield Kind(
        "a body that inflates",
        request_bytes("POST", "/v1/classify", packed, Content_Encoding="gzip"),
    )
    yield Kind("a list of a thousand items", request_bytes("GET", "/v1/items?limit=1000"))
    yield Kind(
        "waiting for a write", json_request("/v1/search", {"id": "item-01", "min_seq": 10**9})
    )
    wide = {"id": "item-01", "k": 1000, "with_vector": True, "exact": True}
    yield Kind("a search for a thousand", json_request("/v1/search", wide))
    job = {"kind": "duplicates", "min_score": 0.99}
    yield Kind("jobs", json_request("/v1/jobs", job))
    yield Kind("HEAD of everything", request_bytes("HEAD", "/openapi.json"))


def kinds() -> list[Kind]:
    """Return all of them."""
    return [*pictures(), *values(), *wire()]


async def attack(url: str, kind: Kind, *, deadline_s: float = DEADLINE_S) -> int | None:
    """Send one such request; return the answer's status, 0: closed without one, None: neither."""
    address = urlsplit(url)
    try:
        async with asyncio.timeout(deadline_s):
            reader, writer = await asyncio.open_connection(address.hostname, address.port)
            try:
                return await _converse(reader, writer, kind)
            finally:
                writer.transport.abort()
    except TimeoutError:
        return None
    except OSError:  # reset: the answer was not worth waiting for
        return 0


async def _converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, kind: Kind) -> int:
    answer = asyncio.create_task(reader.read(12))
    writer.write(kind.sent)
    while kind.trickle and not answer.done():
        with contextlib.suppress(ConnectionError):
            writer.write(kind.trickle)
        await asyncio.wait([answer], timeout=TRICKLE_S)
    line = await answer
    return int(line.split(b" ")[1]) if line.count(b" ") else 0
