"""Requests that are cheap to send and were, or might be, dear to answer, and how each may end."""

import gzip
import json
from collections.abc import Iterator
from typing import Any, Final
from urllib.parse import quote

from PIL import Image

from tests.support.images.hostile_images import (
    animation,
    arithmetic,
    declaring_heic,
    exif_png,
    inflating_texts,
    interlaced_png,
    many_chunks,
    many_segments,
    palette_png,
    repeated_baseline_scans,
    repeated_scans,
    with_exif,
)
from tests.support.images.pngs import bomb_png, encoded, picture, png
from tests.support.paths import DATA
from tests.support.server.hostile.attacks import CLOSED, NUMBER, Kind, form, image, json_request
from tests.support.server.load_generator import request_bytes

HEIC: Final = DATA / "gray.heic"
ITEMS: Final = 3_000  # in the gallery, beside those with pictures; called row-0, row-1, …
_HEAD: Final = b"POST /v1/classify HTTP/1.1\r\nHost: lookalike\r\nContent-Type: image/png\r\n"
_FILE: Final = 'Content-Disposition: form-data; name="image"; filename="a"'
_FIELD: Final = 'Content-Disposition: form-data; name="x"'
_IDS: Final = [f"row-{number}" for number in range(ITEMS)]


def jpegs() -> Iterator[Kind]:
    """Pictures whose decoder passes over their pixels again and again, or over much beside them."""
    yield Kind("JPEG of 16,000 repeated scans", lambda: image(repeated_scans(16_000)), (422,))
    yield Kind("JPEG of 90 repeated scans", lambda: image(repeated_scans(80)), (200,))
    yield Kind(
        "sequential JPEG of repeated scans", lambda: image(repeated_baseline_scans(1_500)), (422,)
    )
    yield Kind("sequential JPEG of 90 scans", lambda: image(repeated_baseline_scans(88)), (200,))
    yield Kind("JPEG of many segments", lambda: image(many_segments(1_000_000)), (422,))
    yield Kind("progressive JPEG, large", lambda: image(_progressive()), (200,))
    yield Kind("a cut JPEG, large", lambda: image(_progressive()[:-5_000]), (200,))
    yield Kind("arithmetic-coded JPEG, large", lambda: image(arithmetic(_sequential())), (422,))
    yield Kind(
        "arithmetic-coded progressive JPEG", lambda: image(arithmetic(_progressive())), (422,)
    )
    yield Kind("JPEG with a large EXIF", lambda: image(with_exif(5_000)), (200,))


def _progressive() -> bytes:
    return encoded(picture(3, (4_000, 4_000)), "JPEG", progressive=True, quality=70)


def _sequential() -> bytes:
    return encoded(picture(3, (4_000, 4_000)), "JPEG", quality=70)


def pictures() -> Iterator[Kind]:
    """Pictures of other formats that hold more than their size says."""
    yield Kind("PNG of many chunks", lambda: image(many_chunks(1_000_000)), (422,))
    yield Kind("PNG of 25 megapixels in 3 kB", lambda: image(palette_png()), (200,))
    yield Kind("PNG whose texts inflate", lambda: image(inflating_texts(64)), (200,))
    yield Kind("PNG whose iTXt inflates", lambda: image(inflating_texts(64, b"iTXt")), (200,))
    yield Kind("PNG whose profiles inflate", lambda: image(inflating_texts(64, b"iCCP")), (422,))
    yield Kind("PNG that promises 400 megapixels", lambda: image(bomb_png(20_000, 20_000)), (422,))
    yield Kind("interlaced PNG", lambda: image(interlaced_png(5_000)), (200,))
    yield Kind("PNG of one row", lambda: image(encoded(Image.new("L", (16_000, 1)))), (200,))
    yield Kind("PNG of 65,535 x 1", lambda: image(encoded(Image.new("RGB", (65_535, 1)))), (422,))
    yield Kind(
        "JPEG of 1 x 65,500", lambda: image(encoded(Image.new("RGB", (1, 65_500)), "JPEG")), (422,)
    )
    yield Kind("PNG with an EXIF of 15 MB", lambda: image(exif_png(15_000_000)), (200,))
    yield Kind("GIF of many frames", lambda: image(animation("GIF", 200)), (200,))
    yield Kind("WebP of many frames", lambda: image(animation("WEBP", 60)), (200,))
    yield Kind("APNG of many frames", lambda: image(animation("PNG", 60)), (200,))
    yield Kind(
        "TIFF, large and packed", lambda: image(_flat("TIFF", compression="tiff_deflate")), (200,)
    )
    yield Kind(
        "WebP, large", lambda: image(_flat("WEBP", quality=10, method=0)), (200,), is_long=True
    )
    yield Kind("AVIF, large", lambda: image(_flat("AVIF", quality=10, speed=10)), (200,))
    yield Kind(
        "HEIC that promises 25 megapixels",
        lambda: image(declaring_heic(HEIC.read_bytes(), 5_000, 5_000)),
        (422,),
    )
    yield Kind("zeros", lambda: image(bytes(2 * 2**20)), (415,))
    yield Kind(
        "a form of 48 large pictures",
        lambda: form([(_FILE, palette_png())] * 48),
        (200,),
        is_long=True,
    )
    yield Kind("a form of 256 small pictures", lambda: form([(_FILE, png(1))] * 256), (200,))
    yield Kind(
        "a form of 256 pictures to embed",
        lambda: form([(_FILE, png(1))] * 256, "/v1/embed"),
        (200,),
    )
    yield Kind(
        "large pictures to store",
        lambda: image(palette_png(), f"/v1/items/{NUMBER.decode()}").replace(b"POST", b"PUT", 1),
        (201,),
    )


def _flat(image_format: str, **settings: Any) -> bytes:
    return encoded(Image.new("RGB", (4_900, 4_900), (90, 120, 30)), image_format, **settings)


def values() -> Iterator[Kind]:
    """JSON that is long, deep, or asks for much."""
    many = 400_000
    to = json_request
    yield Kind("items of zeros", lambda: to("/v1/items", {"items": [0] * many}), (422,))
    yield Kind("items of objects", lambda: to("/v1/items", {"items": [{}] * 99_000}), (422,))
    yield Kind("a vector of words", lambda: to("/v1/search", {"vector": [""] * many}), (422,))
    yield Kind("a long vector", lambda: to("/v1/search", {"vector": [0.5] * 99_000}), (422,))
    yield Kind("nested lists", lambda: to("/v1/search", b"[" * 1_000_000), (422,))
    yield Kind("nested objects", lambda: to("/v1/search", b'{"a":' * 300_000), (422,))
    yield Kind("a filter of a megabyte", lambda: to("/v1/search", _filter(90_000)), (422,))
    yield Kind("a filter of values", lambda: to("/v1/search", _filter(1, [0] * 90_000)), (422,))
    yield Kind("a filter of many ranges", lambda: to("/v1/search", _ranges()), (200,))
    yield Kind(
        "a filter that finds nothing", lambda: to("/v1/search", _filter(64, ["x"] * 15)), (200,)
    )
    yield Kind(
        "metadata of a megabyte", lambda: to("/v1/items/h", _metadata(60_000), "PUT"), (422,)
    )
    yield Kind("a patch of a megabyte", lambda: _patch({"a": [0] * 90_000}), (422,))
    yield Kind("patches of much metadata", lambda: _patch(_large_metadata()), (200,))
    yield Kind("long numbers", lambda: to("/v1/search", b'{"k":' + b"9" * 2_000_000 + b"}"), (400,))
    yield Kind(
        "one name many times", lambda: to("/v1/search", b"{" + b'"k":1,' * 150_000 + b"}"), (422,)
    )
    yield Kind("many names", lambda: to("/v1/search", {f"n{i}": i for i in range(90_000)}), (400,))
    yield Kind(
        "text that is no UTF-8", lambda: to("/v1/search", b'{"id":"' + b"\xff" * 2**20), (400,)
    )
    yield Kind("many queries", lambda: to("/v1/search", _queries(k=150, exact=True)), (200,))
    yield Kind(
        "many queries for vectors",
        lambda: to("/v1/search", _queries(k=15, with_vector=True)),
        (200,),
    )
    yield Kind(
        "many queries for too many vectors",
        lambda: to("/v1/search", _queries(k=1000, with_vector=True)),
        (422,),
    )
    yield Kind("far too many queries", lambda: to("/v1/search", {"queries": [{}] * 90_000}), (422,))
    yield Kind(
        "ids to leave out",
        lambda: to("/v1/search", {"id": "row-1", "k": 1000, "exclude": _IDS[:999]}),
        (200,),
    )
    yield Kind(
        "hits in groups",
        lambda: to("/v1/search", {"id": "row-1", "k": 1000, "group_by": "a.1"}),
        (200,),
    )
    yield Kind(
        "base64 that is none", lambda: to("/v1/classify", {"image": "=" * 4_000_000}), (400,)
    )
    yield Kind(
        "too many ids to delete", lambda: to("/v1/items/delete", {"ids": ["x"] * 90_000}), (422,)
    )
    yield Kind(
        "ids to delete",
        lambda: to("/v1/items/delete", {"ids": [f"none-{i}" for i in range(1_000)]}),
        (200,),
    )
    yield Kind(
        "a filter to delete by",
        lambda: to("/v1/items/delete", {"filter": _filter(64, ["x"] * 15)["filter"]}),
        (200,),
    )
    yield Kind(
        "facets",
        lambda: to("/v1/facets", {"keys": [f"a.{i}" for i in range(16)], "limit": 1000}),
        (200,),
    )
    yield Kind(
        "a range of everything",
        lambda: to("/v1/search/range", {"id": "row-1", "min_score": -1, "limit": 10_000}),
        (200,),
    )
    yield Kind(
        "a vote of a thousand", lambda: to("/v1/search/vote", {"id": "row-1", "k": 1000}), (200,)
    )
    wide = {"id": "row-1", "k": 1000, "with_vector": True, "exact": True}
    yield Kind("a search for a thousand", lambda: to("/v1/search", wide), (200,))
    yield Kind(
        "waiting for a write", lambda: to("/v1/search", {"id": "row-1", "min_seq": 10**9}), (503,)
    )
    job = {"kind": "duplicates", "min_score": 0.99}
    yield Kind("jobs", lambda: to("/v1/jobs", job), (202, 409))


def _filter(conditions: int, match: Any = "x") -> dict[str, Any]:
    return {"id": "item-01", "filter": {"must": [{"key": "a", "match": match}] * conditions}}


def _ranges() -> dict[str, Any]:
    conditions = [
        {"key": f"a.{i % 16}", "range": {"gte": i / 100, "lt": 1000 + i}} for i in range(64)
    ]
    return {"id": "row-1", "k": 1000, "filter": {"should": conditions}}


def _metadata(count: int) -> dict[str, Any]:
    return {"image": "", "metadata": {f"key {number}": number for number in range(count)}}


def _large_metadata() -> dict[str, Any]:
    """Return nearly as much as an item may have, which nobody has stored before."""
    return {"number": NUMBER.decode(), **{f"key {number}": "x" * 20 for number in range(400)}}


def _patch(metadata: dict[str, Any]) -> bytes:
    body = {"metadata": metadata}
    kind = "application/merge-patch+json"
    return json_request("/v1/items/item-01", body, "PATCH", Content_Type=kind)


def _queries(**parameters: Any) -> dict[str, Any]:
    return {"queries": [{"id": one} for one in _IDS[:64]], **parameters}


def bodies() -> Iterator[Kind]:
    """Bodies and their parts: of very many pieces, announced and not sent, or packed."""
    yield Kind("a form of thousands of parts", lambda: form([(_FIELD, b"")] * 20_000), (400,))
    yield Kind(
        "a part of endless headers",
        lambda: form([(_FIELD + "\r\nX: " + "y" * 1_000_000, b"")]),
        (400,),
    )
    yield Kind("a form that is like its boundary", _like_its_boundary, (400,))
    data = png(1)
    chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in data + bytes(100_000)) + b"0\r\n\r\n"
    chunked = b"Transfer-Encoding: chunked\r\n\r\n"
    yield Kind("chunks of a byte", lambda: _HEAD + chunked + chunks, (400,))
    trailers = b"%x\r\n%b\r\n0\r\n" % (len(data), data) + b"X: y\r\n" * 50_000 + b"\r\n"
    yield Kind("trailers", lambda: _HEAD + chunked + trailers, (431,))
    yield Kind("a body that is announced", _announced, (408,))
    yield Kind("a body that trickles", _announced, (408,), trickle=b"a")
    yield Kind("a body that inflates", _packed, (415,))
    yield Kind("a body of 20 MB that is no picture", lambda: image(bytes(20 * 2**20)), (415,))
    yield Kind("a body that is too large", lambda: image(bytes(21 * 2**20)), (413,))


def _announced() -> bytes:
    return _HEAD + b"Content-Length: 20000000\r\n\r\n"


def _like_its_boundary() -> bytes:
    kind = "multipart/form-data; boundary=b"
    return request_bytes("POST", "/v1/classify", b"\r\n--" * 500_000, Content_Type=kind)


def _packed() -> bytes:
    body = gzip.compress(bytes(20 * 2**20))
    return image(body, Content_Encoding="gzip")


def heads() -> Iterator[Kind]:
    """Request lines and headers without end, and connections."""
    start = b"GET /livez HTTP/1.1\r\nHost: a\r\n"
    yield Kind("an endless header", lambda: start + b"X: " + b"y" * 1_000_000, (431,))
    yield Kind("many headers", lambda: start + b"X: y\r\n" * 100_000, (431,))
    yield Kind("an endless address", lambda: b"GET /" + b"a" * 1_000_000, (414,))
    fields = "&".join(f"a{number}=1" for number in range(900))
    yield Kind("a long query", lambda: image(png(1), f"/v1/classify?{fields}"), (422,))
    yield Kind("headers that trickle", lambda: _HEAD + b"X: ", (408,), trickle=b"a")
    yield Kind("pipelined requests", lambda: (start + b"\r\n") * 5_000, (200,))
    yield Kind("HEAD of everything", lambda: request_bytes("HEAD", "/openapi.json"), (200,))
    ranges = "bytes=" + ",".join(f"{n}-{n}" for n in range(1_500))
    yield Kind(
        "many byte ranges",
        lambda: request_bytes("GET", "/v1/items/item-01/image", Range=ranges),
        (200,),
    )
    yield Kind("silent connections", lambda: b"", (CLOSED,), connections=50)
    yield Kind(
        "connections that do little",
        lambda: start + b"Connection: close\r\n\r\n",
        (200,),
        connections=50,
    )
    preflight = {"Origin": "https://shop.example", "Access_Control_Request_Method": "PUT"}
    yield Kind(
        "CORS preflights",
        lambda: request_bytes(
            "OPTIONS", "/v1/items/a", **preflight, Access_Control_Request_Headers="x," * 2_000
        ),
        (204,),
        connections=5,
    )
    wrong = {"Authorization": "Bearer " + "a" * 60}
    yield Kind(
        "wrong keys", lambda: image(png(1), **wrong), (401, 429), connections=5, with_keys=True
    )


def answers() -> Iterator[Kind]:
    """What is long to answer; and answers that nobody reads."""
    lists = request_bytes("GET", "/v1/items?limit=1000")
    yield Kind("a list of a thousand items", lambda: lists, (200,))
    one = quote(json.dumps(_filter(1)["filter"]))
    listed = request_bytes("GET", f"/v1/items?limit=1000&filter={one}")
    yield Kind("a list that finds nothing", lambda: listed, (200,))
    wide = json_request("/v1/search", {"id": _IDS[0], "k": 1000, "with_vector": True})
    last = request_bytes("GET", "/livez", Connection="close")
    yield Kind(
        "answers that are not read", lambda: wide * 4 + last, (CLOSED,), unread_s=6, is_long=True
    )
    yield Kind(
        "lists that are not read", lambda: lists * 16 + last, (CLOSED,), unread_s=6, is_long=True
    )


def kinds() -> list[Kind]:
    """Return all of them."""
    return [*jpegs(), *pictures(), *values(), *bodies(), *heads(), *answers()]
