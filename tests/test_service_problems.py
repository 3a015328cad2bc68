"""Every row of the error table, over HTTP, against real servers."""

import base64
import inspect
import json
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from urllib.parse import urlsplit

import httpx
import pytest

from index import errors as index_errors
from index.gallery import Gallery
from service import errors as service_errors
from service.problems import MEDIA_TYPE, PROBLEMS, find_problem
from tests.conftest import StrictServer
from tests.fakes import new_item
from tests.pictures import bomb_png, encoded, picture, png
from tests.servers import Server
from vision import errors as vision_errors

PNG = {"Content-Type": "image/png"}
JSON = {"Content-Type": "application/json"}
BASE64 = base64.b64encode(png(1)).decode()

# Ours, not the caller's: they are answered with 500 and a fixed sentence.
OUR_FAULT: set[type[Exception]] = {
    vision_errors.VisionError,
    vision_errors.ImageError,
    vision_errors.ModelFolderError,
    vision_errors.ExportError,
    vision_errors.DeviceError,
    index_errors.VectorIndexError,
    index_errors.GalleryFolderError,
    index_errors.ModelMismatchError,
    index_errors.SourceError,
    index_errors.LogCutError,
    index_errors.GenerationError,
    service_errors.RequestError,
    service_errors.RetryableError,
    service_errors.ServiceConfigError,
}


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[httpx.Client]:
    with server.client() as client:
        yield client


def assert_problem(response: httpx.Response, status: int, code: str) -> None:
    """Check the one shape that every error has."""
    assert response.headers["content-type"] == MEDIA_TYPE, response.text
    body = response.json()
    assert (response.status_code, body["code"]) == (status, code), body
    assert set(body) == {"type", "title", "status", "detail", "code", "request_id"}
    assert body["status"] == status
    assert body["request_id"] == response.headers["x-request-id"]
    assert 10 < len(body["detail"]) < 400
    assert not re.search(r"Traceback|Error\b|0x[0-9a-f]{6}|\.py\b|PIL|pydantic", body["detail"])


def multipart(*parts: bytes, boundary: bytes = b"edge", end: bytes = b"--edge--\r\n") -> bytes:
    return b"".join(b"--" + boundary + b"\r\n" + part + b"\r\n" for part in parts) + end


def form(*parts: bytes, **settings: bytes) -> dict[str, object]:
    return {
        "content": multipart(*parts, **settings),
        "headers": {"Content-Type": "multipart/form-data; boundary=edge"},
    }


IMAGE_PART = b'Content-Disposition: form-data; name="image"; filename="a.png"\r\n\r\n' + png(1)

# (case, status, code, route, request)
BAD_REQUESTS: list[tuple[str, int, str, str, dict[str, object]]] = [
    ("no body at all", 400, "missing_image", "/v1/classify", {}),
    ("an empty form", 400, "missing_image", "/v1/classify", form()),
    ("an empty JSON object", 400, "missing_image", "/v1/classify", {"json": {}}),
    ("search with nothing to go by", 400, "missing_image", "/v1/search", {"json": {"k": 3}}),
    ("embed without an image", 400, "missing_image", "/v1/embed", {"json": {}}),
    ("two images", 400, "ambiguous_query", "/v1/search", form(IMAGE_PART, IMAGE_PART)),
    (
        *("image and id", 400, "ambiguous_query", "/v1/search"),
        {"json": {"image": BASE64, "id": "item-00"}},
    ),
    (
        *("id and vector", 400, "ambiguous_query", "/v1/search"),
        {"json": {"id": "item-00", "vector": [1.0]}},
    ),
    (
        *("k twice", 400, "ambiguous_query", "/v1/classify?k=1&k=2"),
        {"content": png(1), "headers": PNG},
    ),
    (
        *("an unknown parameter", 400, "unexpected_field", "/v1/classify?colour=red"),
        {"content": png(1), "headers": PNG},
    ),
    ("an unknown member", 400, "unexpected_field", "/v1/search", {"json": {"id": "a", "x": 1}}),
    (
        *("an unknown form field", 400, "unexpected_field", "/v1/classify"),
        form(IMAGE_PART, b'Content-Disposition: form-data; name="x"\r\n\r\n1'),
    ),
    (
        *("no boundary", 400, "malformed_multipart", "/v1/classify"),
        {"content": b"x", "headers": {"Content-Type": "multipart/form-data"}},
    ),
    (
        "another boundary",
        400,
        "malformed_multipart",
        "/v1/classify",
        form(boundary=b"x", end=b"zz"),
    ),
    ("no closing delimiter", 400, "malformed_multipart", "/v1/classify", form(IMAGE_PART, end=b"")),
    (
        *("a part without a name", 400, "malformed_multipart", "/v1/classify"),
        form(b"Content-Disposition: form-data\r\n\r\nx"),
    ),
    (
        *("a part without headers", 400, "malformed_multipart", "/v1/classify"),
        form(b"\r\nx"),
    ),
    (
        *("too many parts", 400, "malformed_multipart", "/v1/classify"),
        form(*[b'Content-Disposition: form-data; name="x"\r\n\r\n1'] * 300),
    ),
    (
        *("a boundary of 300 characters", 400, "malformed_multipart", "/v1/classify"),
        {
            "content": b"--x",
            "headers": {"Content-Type": "multipart/form-data; boundary=" + "b" * 300},
        },
    ),
    ("cut JSON", 400, "invalid_json", "/v1/search", {"content": b'{"id": "a', "headers": JSON}),
    ("empty JSON body", 400, "invalid_json", "/v1/search", {"content": b"", "headers": JSON}),
    ("JSON array", 400, "invalid_json", "/v1/search", {"content": b"[1]", "headers": JSON}),
    ("NaN", 400, "invalid_json", "/v1/search", {"content": b'{"k": NaN}', "headers": JSON}),
    ("deep JSON", 400, "invalid_json", "/v1/search", {"content": b"[" * 9999, "headers": JSON}),
    ("not UTF-8", 400, "invalid_json", "/v1/search", {"content": b'{"\xff": 1}', "headers": JSON}),
    (
        *("a lone surrogate", 400, "invalid_json", "/v1/search"),
        {"content": b'{"id": "\\ud800"}', "headers": JSON},
    ),
    ("a number for an image", 400, "invalid_json", "/v1/classify", {"json": {"image": 7}}),
    ("text that is not base64", 400, "invalid_json", "/v1/classify", {"json": {"image": "é!"}}),
    (
        *("a URL, which is never fetched", 400, "invalid_json", "/v1/classify"),
        {"json": {"image": "http://127.0.0.1:1/cat.png"}},
    ),
    (
        *("a data URI without base64", 400, "invalid_json", "/v1/classify"),
        {"json": {"image": "data:image/png,abc"}},
    ),
    ("images that are no list", 400, "invalid_json", "/v1/embed", {"json": {"images": BASE64}}),
    ("an empty raw body", 400, "empty_image", "/v1/classify", {"content": b"", "headers": PNG}),
    (
        *("an empty file", 400, "empty_image", "/v1/classify"),
        form(b'Content-Disposition: form-data; name="image"; filename="a.png"\r\n\r\n'),
    ),
    ("an empty base64 image", 400, "empty_image", "/v1/classify", {"json": {"image": ""}}),
    ("an unknown id", 404, "unknown_id", "/v1/search", {"json": {"id": "nobody"}}),
    ("text as an image", 415, "unsupported_image_type", "/v1/classify", {"content": b"hello"}),
    (
        *("SVG", 415, "unsupported_image_type", "/v1/classify"),
        {"content": b"<svg/>", "headers": {"Content-Type": "image/svg+xml"}},
    ),
    (
        *("TIFF called PNG", 415, "unsupported_image_type", "/v1/classify"),
        {"content": b"II*\0" + b"\0" * 64, "headers": PNG},
    ),
    (
        *("an urlencoded form", 415, "unsupported_image_type", "/v1/classify"),
        {"data": {"image": "x"}},
    ),
    (
        *("a pickle", 415, "unsupported_image_type", "/v1/classify"),
        {
            "content": b"\x80\x05cos\nsystem\n.",
            "headers": {"Content-Type": "application/vnd.bentoml+pickle"},
        },
    ),
    (
        *("a truncated PNG", 422, "corrupt_image", "/v1/classify"),
        {"content": png(1)[:100], "headers": PNG},
    ),
    (
        *("a truncated JPEG", 422, "corrupt_image", "/v1/search"),
        {"content": encoded(picture(1), "JPEG")[:-40], "headers": PNG},
    ),
    (
        *("a bomb of 2.5 gigapixels", 422, "too_many_pixels", "/v1/classify"),
        {"content": bomb_png(50_000, 50_000), "headers": PNG},
    ),
    ("k of 0", 422, "invalid_k", "/v1/search", {"json": {"id": "item-00", "k": 0}}),
    ("a negative k", 422, "invalid_k", "/v1/search", {"json": {"id": "item-00", "k": -1}}),
    ("k of 1001", 422, "invalid_k", "/v1/search", {"json": {"id": "item-00", "k": 1001}}),
    ("k of 2.5", 422, "invalid_k", "/v1/search", {"json": {"id": "item-00", "k": 2.5}}),
    ("k of true", 422, "invalid_k", "/v1/search", {"json": {"id": "item-00", "k": True}}),
    ("k of null", 422, "invalid_k", "/v1/search", {"json": {"id": "item-00", "k": None}}),
    ("k of 10**99", 422, "invalid_k", "/v1/search", {"json": {"id": "item-00", "k": 10**99}}),
    (
        *("k as text in a query", 422, "invalid_k", "/v1/classify?k=ten"),
        {"content": png(1), "headers": PNG},
    ),
    (
        *("a filter that is text", 422, "invalid_filter", "/v1/search"),
        {"json": {"id": "item-00", "filter": "label=coat"}},
    ),
    (
        *("a filter with an unknown part", 422, "invalid_filter", "/v1/search"),
        {"json": {"id": "item-00", "filter": {"any": []}}},
    ),
    (
        *("a range of text and number", 422, "invalid_filter", "/v1/search"),
        {
            "json": {
                "id": "item-00",
                "filter": {"must": [{"key": "number", "range": {"gte": 1, "lt": "x"}}]},
            }
        },
    ),
    ("an id with a slash", 422, "invalid_id", "/v1/search", {"json": {"id": "a/b"}}),
    ("an id that is a number", 422, "invalid_id", "/v1/search", {"json": {"id": 7}}),
    ("an id that is too long", 422, "invalid_id", "/v1/search", {"json": {"id": "a" * 129}}),
    ("an empty id", 422, "invalid_id", "/v1/search", {"json": {"id": ""}}),
    ("a short vector", 422, "invalid_vector", "/v1/search", {"json": {"vector": [1.0]}}),
    ("a zero vector", 422, "invalid_vector", "/v1/search", {"json": {"vector": [0.0] * 256}}),
    (
        *("an infinite vector", 422, "invalid_vector", "/v1/search"),
        {"content": b'{"vector": [' + b"1e999," * 255 + b"1]}", "headers": JSON},
    ),
    ("a vector of text", 422, "invalid_vector", "/v1/search", {"json": {"vector": "abc"}}),
    (
        *("min_score above 1", 422, "invalid_parameter", "/v1/search"),
        {"json": {"id": "item-00", "min_score": 1.5}},
    ),
    (
        *("a crop outside the image", 422, "invalid_parameter", "/v1/search"),
        {"json": {"image": BASE64, "crop": {"top": 0.5, "bottom": 0.4}}},
    ),
    (
        *("a crop with an unknown side", 422, "invalid_parameter", "/v1/search"),
        {"json": {"image": BASE64, "crop": {"middle": 0.5}}},
    ),
    (
        *("range without min_score", 400, "invalid_json", "/v1/search/range"),
        {"json": {"id": "item-00"}},
    ),
    (
        *("range with nothing to go by", 400, "missing_image", "/v1/search/range"),
        {"json": {"min_score": 0}},
    ),
    (
        *("range with k", 400, "unexpected_field", "/v1/search/range"),
        {"json": {"id": "item-00", "min_score": 0, "k": 3}},
    ),
    (
        *("range from min_score 1.01", 422, "invalid_parameter", "/v1/search/range"),
        {"json": {"id": "item-00", "min_score": 1.01}},
    ),
    (
        *("range from min_score -1.01", 422, "invalid_parameter", "/v1/search/range"),
        {"json": {"id": "item-00", "min_score": -1.01}},
    ),
    (
        *("range from min_score nan", 422, "invalid_parameter", "/v1/search/range?min_score=nan"),
        {"content": png(1), "headers": PNG},
    ),
    (
        *("range with min_score null", 422, "invalid_parameter", "/v1/search/range"),
        {"json": {"id": "item-00", "min_score": None}},
    ),
    (
        *("range with a limit of 0", 422, "invalid_parameter", "/v1/search/range"),
        {"json": {"id": "item-00", "min_score": 0, "limit": 0}},
    ),
    (
        *("range with a limit of 10001", 422, "invalid_parameter", "/v1/search/range"),
        {"json": {"id": "item-00", "min_score": 0, "limit": 10_001}},
    ),
    (
        *("range with a limit of 2.5", 422, "invalid_parameter", "/v1/search/range"),
        {"json": {"id": "item-00", "min_score": 0, "limit": 2.5}},
    ),
    (
        *("range with an unknown filter", 422, "invalid_filter", "/v1/search/range"),
        {"json": {"id": "item-00", "min_score": 0, "filter": {"any": []}}},
    ),
    (
        *("range by an unknown id", 404, "unknown_id", "/v1/search/range"),
        {"json": {"id": "nobody", "min_score": 0}},
    ),
    (
        *("exact that is no truth value", 422, "invalid_parameter", "/v1/search"),
        {"json": {"id": "item-00", "exact": "perhaps"}},
    ),
    ("a vote of k 0", 422, "invalid_k", "/v1/search/vote", {"json": {"id": "item-00", "k": 0}}),
    (
        *("a vote with min_score", 400, "unexpected_field", "/v1/search/vote"),
        {"json": {"id": "item-00", "min_score": 0.5}},
    ),
    (
        *("a vote by image and id", 400, "ambiguous_query", "/v1/search/vote"),
        {"json": {"image": BASE64, "id": "item-00"}},
    ),
    (
        "a vote by a short vector",
        422,
        "invalid_vector",
        "/v1/search/vote",
        {"json": {"vector": [1]}},
    ),
    ("a vote about nothing", 400, "missing_image", "/v1/search/vote", {"json": {}}),
    ("a job of no kind", 400, "invalid_json", "/v1/jobs", {"json": {}}),
    ("a job of an unknown kind", 422, "invalid_parameter", "/v1/jobs", {"json": {"kind": "dance"}}),
    ("a kind that is a list", 422, "invalid_parameter", "/v1/jobs", {"json": {"kind": ["tune"]}}),
    (
        *("a job with an image", 400, "unexpected_field", "/v1/jobs?kind=rebuild"),
        {"content": png(1), "headers": PNG},
    ),
    (
        *("a job with another's parameter", 400, "unexpected_field", "/v1/jobs"),
        {"json": {"kind": "rebuild", "name": "a"}},
    ),
    (
        *("a recall of 0", 422, "invalid_parameter", "/v1/jobs"),
        {"json": {"kind": "rebuild", "recall": 0}},
    ),
    (
        *("a recall above 1", 422, "invalid_parameter", "/v1/jobs"),
        {"json": {"kind": "tune", "recall": 1.1}},
    ),
    (
        *("a recall of text", 422, "invalid_parameter", "/v1/jobs"),
        {"json": {"kind": "tune", "recall": "much"}},
    ),
    ("a backup without a name", 400, "invalid_json", "/v1/jobs", {"json": {"kind": "backup"}}),
    *(
        (
            *(f"a backup named {name!r}", 422, "invalid_parameter", "/v1/jobs"),
            {"json": {"kind": "backup", "name": name}},
        )
        for name in ("", "..", "../up", "/tmp/x", "a/b", "a\0b", "a b", "x" * 129, 7, None)
    ),
    (
        *("duplicates without min_score", 400, "invalid_json", "/v1/jobs"),
        {"json": {"kind": "duplicates"}},
    ),
    (
        *("duplicates from min_score 2", 422, "invalid_parameter", "/v1/jobs"),
        {"json": {"kind": "duplicates", "min_score": 2}},
    ),
    ("a path that is not there", 404, "not_found", "/v1/nothing", {"json": {}}),
    ("a method that is not there", 405, "method_not_allowed", "/v1/gallery", {"json": {}}),
]


@pytest.mark.parametrize(
    ("status", "code", "route", "request_"),
    [pytest.param(*case[1:], id=case[0]) for case in BAD_REQUESTS],
)
def test_a_bad_request_is_answered_with_its_problem(
    client: httpx.Client, status: int, code: str, route: str, request_: dict[str, object]
) -> None:
    response = client.post(route, **request_)  # type: ignore[arg-type]

    assert_problem(response, status, code)


@pytest.mark.parametrize(
    ("method", "route", "status", "code"),
    [
        ("GET", "/v1/items/nobody", 404, "unknown_id"),
        ("GET", "/v1/items/nobody/image", 404, "unknown_id"),
        ("DELETE", "/v1/items/nobody", 404, "unknown_id"),
        ("GET", "/v1/items/a%20b", 422, "invalid_id"),
        ("GET", f"/v1/items/{'a' * 129}", 422, "invalid_id"),
        ("GET", "/v1/items/a%00b", 422, "invalid_id"),
        ("DELETE", "/v1/items/caf%C3%A9", 422, "invalid_id"),
        ("GET", "/v1/items/item-00?x=1", 400, "unexpected_field"),
        ("GET", "/v1/items?limit=0", 422, "invalid_parameter"),
        ("GET", "/v1/items?limit=1001", 422, "invalid_parameter"),
        ("GET", "/v1/items?cursor=made-up", 422, "invalid_parameter"),
        ("GET", "/v1/items?filter=%7B", 422, "invalid_filter"),
        ("GET", "/v1/items?offset=3", 400, "unexpected_field"),
        ("PATCH", "/v1/items/item-00", 405, "method_not_allowed"),
        ("GET", "/v1/search/range", 405, "method_not_allowed"),
        ("GET", "/v1/jobs/20260101T000000-00000000", 404, "unknown_job"),
        ("GET", "/v1/jobs/..", 404, "not_found"),
        ("GET", "/v1/jobs/%2e%2e%2fgallery", 404, "not_found"),
        ("GET", "/v1/jobs/begin", 404, "unknown_job"),
        ("DELETE", "/v1/jobs/a%00b", 404, "unknown_job"),
        ("GET", "/v1/jobs?state=done", 400, "unexpected_field"),
        ("GET", "/v1/jobs/x?x=1", 400, "unexpected_field"),
        ("PUT", "/v1/jobs", 405, "method_not_allowed"),
        ("GET", "/docs.json", 404, "not_found"),
        ("GET", "/schema.json", 404, "not_found"),
        ("GET", "/page/../../etc/passwd", 404, "not_found"),
    ],
)
def test_a_bad_address_is_answered_with_its_problem(
    client: httpx.Client, method: str, route: str, status: int, code: str
) -> None:
    assert_problem(client.request(method, route), status, code)


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("label=" + "x" * 257, "invalid_parameter"),
        ("label=%00", "invalid_parameter"),
        ("metadata=%5B%5D", "invalid_parameter"),
        ("metadata=%7B", "invalid_parameter"),
        ("upsert=perhaps", "invalid_parameter"),
    ],
)
def test_an_item_that_cannot_be_stored_is_refused(
    client: httpx.Client, query: str, code: str
) -> None:
    response = client.put(f"/v1/items/refused?{query}", content=png(1), headers=PNG)

    assert_problem(response, 422, code)
    assert client.get("/v1/items/refused").status_code == 404


def test_an_id_that_holds_other_content_is_a_conflict_unless_it_may_be_replaced(
    client: httpx.Client,
) -> None:
    client.put("/v1/items/taken", content=png(100), headers=PNG)

    refused = client.put("/v1/items/taken?upsert=false", content=png(101), headers=PNG)

    assert_problem(refused, 409, "id_conflict")
    assert client.delete("/v1/items/taken").status_code == 200


def test_no_key_and_a_wrong_key_are_unauthorized(strict_server: StrictServer) -> None:
    for headers in ({}, {"Authorization": "Bearer lk_wrong"}, {"Authorization": "Basic abc"}):
        response = httpx.get(f"{strict_server.url}/v1/model", headers=headers)

        assert_problem(response, 401, "unauthorized")
        assert response.headers["www-authenticate"] == "Bearer"


def test_a_key_without_the_right_is_forbidden(strict_server: StrictServer) -> None:
    reader, writer = strict_server.headers("reader"), strict_server.headers("writer")
    address = f"{strict_server.url}/v1/items/by-key"

    for method in ("PUT", "DELETE"):
        assert_problem(httpx.request(method, address, headers=reader), 403, "forbidden")
    bulk = httpx.post(f"{strict_server.url}/v1/items", headers=reader, json={"items": []})
    assert_problem(bulk, 403, "forbidden")
    assert httpx.put(address, headers={**writer, **PNG}, content=png(1)).status_code == 201
    assert httpx.delete(address, headers=writer).status_code == 200


def test_jobs_need_the_right_to_administer_which_gives_no_other(
    strict_server: StrictServer,
) -> None:
    jobs = f"{strict_server.url}/v1/jobs"
    admin, rebuild = strict_server.headers("admin"), {"kind": "rebuild"}

    for key in ("reader", "writer"):
        headers = strict_server.headers(key)
        assert_problem(httpx.get(jobs, headers=headers), 403, "forbidden")
        assert_problem(httpx.get(f"{jobs}/x", headers=headers), 403, "forbidden")
        assert_problem(httpx.post(jobs, headers=headers, json=rebuild), 403, "forbidden")
        assert_problem(httpx.post(f"{jobs}/", headers=headers, json=rebuild), 403, "forbidden")
        assert_problem(httpx.delete(f"{jobs}/x", headers=headers), 403, "forbidden")
    assert httpx.get(jobs, headers=admin).status_code == 200
    assert_problem(httpx.delete(f"{jobs}/x", headers=admin), 404, "unknown_job")
    assert_problem(httpx.get(f"{strict_server.url}/v1/model", headers=admin), 403, "forbidden")


def test_without_a_folder_for_backups_there_are_none(strict_server: StrictServer) -> None:
    asked = httpx.post(
        f"{strict_server.url}/v1/jobs",
        headers=strict_server.headers("admin"),
        json={"kind": "backup", "name": "monday"},
    )

    assert_problem(asked, 409, "no_backups_folder")


def test_a_key_reads_what_it_may_and_probes_need_none(strict_server: StrictServer) -> None:
    allowed = httpx.get(f"{strict_server.url}/v1/model", headers=strict_server.headers("reader"))

    assert allowed.status_code == 200
    for open_path in ("/livez", "/readyz", "/", "/docs"):
        assert httpx.get(f"{strict_server.url}{open_path}").status_code == 200, open_path
    assert httpx.get(f"{strict_server.url}/metrics").status_code == 401


def test_a_key_over_its_quota_is_told_to_wait(strict_server: StrictServer) -> None:
    answers = [
        httpx.get(f"{strict_server.url}/v1/model", headers=strict_server.headers("slow"))
        for _ in range(3)
    ]

    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert_problem(answers[-1], 429, "too_many_requests")
    assert int(answers[-1].headers["retry-after"]) >= 1


@pytest.mark.parametrize("chunked", [False, True], ids=["declared", "streamed"])
def test_a_body_that_is_too_large_is_refused(strict_server: StrictServer, chunked: bool) -> None:
    body = b"\x89PNG" + b"\0" * 70_000
    content = iter([body[:40_000], body[40_000:]]) if chunked else body

    response = httpx.post(
        f"{strict_server.url}/v1/classify",
        headers={**strict_server.headers("reader"), **PNG},
        content=content,
    )

    assert_problem(response, 413, "payload_too_large")


def test_an_image_with_too_many_pixels_is_refused(strict_server: StrictServer) -> None:
    response = httpx.post(
        f"{strict_server.url}/v1/classify",
        headers={**strict_server.headers("reader"), **PNG},
        content=png(1, (101, 100)),
    )

    assert_problem(response, 422, "too_many_pixels")


def test_a_body_that_comes_too_slowly_is_given_up(strict_server: StrictServer) -> None:
    where = urlsplit(strict_server.url)
    with socket.create_connection((where.hostname, where.port), timeout=20) as slow:
        slow.sendall(
            b"POST /v1/classify HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\n"
            b"Authorization: Bearer " + strict_server.tokens["reader"].encode() + b"\r\n"
            b"Content-Length: 1000\r\n\r\n\x89PNG"
        )
        started = time.monotonic()
        answer = b""
        while chunk := slow.recv(4096):  # until the server closes the connection
            answer += chunk

    assert answer.startswith(b"HTTP/1.1 408")
    assert b'"code": "request_timeout"' in answer
    assert 0.9 < time.monotonic() - started < 10


def test_more_requests_than_allowed_are_refused_at_once(strict_server: StrictServer) -> None:
    """With room for one request, of many sent at the same time some are told to come back."""
    headers = {**strict_server.headers("reader"), **PNG}
    barrier = threading.Barrier(12)
    answers: list[httpx.Response] = []

    def ask() -> None:
        with httpx.Client(base_url=strict_server.url, headers=headers, timeout=30) as client:
            client.get("/livez")  # the connection stands before the start
            barrier.wait()
            answers.extend(client.post("/v1/classify", content=png(1)) for _ in range(20))

    threads = [threading.Thread(target=ask) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    refused = [answer for answer in answers if answer.status_code != 200]
    assert len(refused) < len(answers), "not one request was served"
    assert refused, "not one request was refused"
    for answer in refused:
        assert_problem(answer, 503, "overloaded")
        assert int(answer.headers["retry-after"]) >= 1


def test_a_write_that_has_not_happened_cannot_be_waited_for(client: httpx.Client) -> None:
    response = client.post("/v1/search", json={"id": "item-00", "min_seq": 10**9})

    assert_problem(response, 503, "not_ready")
    assert int(response.headers["retry-after"]) >= 1


def errors_of(module: ModuleType) -> set[type[Exception]]:
    return {
        value
        for value in vars(module).values()
        if inspect.isclass(value) and issubclass(value, Exception)
    }


def test_an_item_that_was_stored_as_a_vector_has_no_image(server: Server) -> None:
    item = replace(new_item("bare", width=256), thumbnail=None)
    with Gallery.open(server.log.parent / "gallery", fingerprint=None) as gallery:
        gallery.put([item])

    with server.client() as client:
        answer = client.get("/v1/items/bare/image")
        client.delete("/v1/items/bare")

    assert (answer.status_code, answer.json()["code"]) == (404, "no_image")


def test_every_error_is_either_answered_or_declared_our_fault() -> None:
    ours = set().union(*map(errors_of, (vision_errors, index_errors, service_errors)))

    assert ours == set(PROBLEMS) | OUR_FAULT
    assert not set(PROBLEMS) & OUR_FAULT


def test_every_code_of_the_table_was_driven_over_http() -> None:
    """Those that need a broken disk are driven in test_service_storage.py and by the index."""
    source = "".join(inspect.getsource(test) for test in _tests()) + json.dumps(
        [case[2] for case in BAD_REQUESTS]
    )
    for other in ("jobs", "protocol"):
        source += (Path(__file__).parent / f"test_service_{other}.py").read_text()

    for _, code in PROBLEMS.values():
        if code not in ("disk_full", "read_only", "storage_failed"):
            assert f'"{code}"' in source, code


def _tests() -> list[Callable[..., None]]:
    return [value for name, value in globals().items() if name.startswith("test_")]


def test_an_error_nobody_foresaw_tells_nothing() -> None:
    status, code = find_problem(ZeroDivisionError("a secret"))

    assert (status, code) == (500, "internal")
