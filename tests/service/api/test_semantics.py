"""What RFC 9110 asks of every route, and what a page that may call can read of a refusal."""

import json
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.errors import RetryableError
from service.http.problem_details import PROBLEMS, problem_response
from service.server.request_head import MAX_HEADER_BYTES, MAX_HEADERS, MAX_URL_BYTES
from tests.support.images.pngs import png
from tests.support.server.gallery_servers import gallery_server
from tests.support.server.servers import Server, answered

PNG = {"Content-Type": "image/png"}
SHOP = "https://shop.example"
OTHER = "https://other.example"
FEW, MOST_BYTES = 150, 100_000


@pytest.fixture(scope="module")
def server(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that pages of one origin may call, with little room for bodies."""
    options = ("--cors-origins", SHOP, "--max-body-bytes", str(MOST_BYTES))
    more = ("--max-bodies-bytes", "60000", "--requests-per-minute", "100000")
    with gallery_server(model, tmp_path_factory.mktemp("semantics"), *options, *more) as running:
        yield running


def raw(server: Server, sent: bytes) -> httpx.Response:
    """Send exactly these bytes, and return the answer."""
    where = ("127.0.0.1", int(server.url.rpartition(":")[2]))
    with socket.create_connection(where, timeout=30) as connection:
        connection.sendall(sent)
        answer = b""
        while chunk := connection.recv(65536):
            answer += chunk
    head, _, body = answer.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = [tuple(line.split(": ", 1)) for line in lines]
    return httpx.Response(int(first.split()[1]), headers=headers, content=body)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Refusal:
    """A request that is refused, as the bytes that are sent, and how."""

    method: str
    target: str
    status: int
    code: str
    route: str
    headers: bytes = b""
    body: bytes = b""

    def sent(self, origin: str) -> bytes:
        length = b"Content-Length: %d\r\n" % len(self.body) if self.body else b""
        head = f"{self.method} {self.target} HTTP/1.1\r\nHost: localhost\r\n".encode()
        last = f"Origin: {origin}\r\nConnection: close\r\n\r\n".encode()
        return head + self.headers + length + last + self.body


LONG = "x" * MAX_URL_BYTES
IMAGE = b"Content-Type: image/png\r\n"
REFUSED = {
    "another method": Refusal("PUT", "/v1/model", 405, "method_not_allowed", "/v1/model"),
    "too large": Refusal(
        "POST", "/v1/classify", 413, "payload_too_large", "/v1/classify", IMAGE,
        bytes(MOST_BYTES + 1),
    ),
    "a long query": Refusal(
        "GET", f"/v1/items?filter={LONG}", 414, "url_too_long", "/v1/items"
    ),
    "a long id": Refusal("GET", f"/v1/items/{LONG}", 414, "url_too_long", "/v1/items/{item_id}"),
    "another type": Refusal(
        "POST", "/v1/search", 415, "unsupported_image_type", "/v1/search",
        b"Content-Type: text/csv\r\n", b"a,b",
    ),
    "a coding": Refusal(
        "POST", "/v1/embed", 415, "unsupported_image_type", "/v1/embed",
        b"Content-Encoding: br\r\n" + IMAGE, b"abc",
    ),
    "many headers": Refusal(
        "GET", "/v1/gallery", 431, "headers_too_large", "/v1/gallery", b"A: b\r\n" * MAX_HEADERS
    ),
    "a large header": Refusal(
        "DELETE", "/v1/items/a", 431, "headers_too_large", "/v1/items/{item_id}",
        b"A: " + b"b" * 20_000 + b"\r\nC: " + b"b" * (MAX_HEADER_BYTES - 20_000) + b"\r\n",
    ),
    "no room": Refusal(
        "POST", "/v1/search/vote", 503, "overloaded", "/v1/search/vote", IMAGE, bytes(70_000)
    ),
}  # fmt: skip


def counted(client: httpx.Client, refusal: Refusal) -> float:
    """Return how many such answers of that route the metrics count."""
    wanted = (
        f'route="{refusal.route}"',
        f'method="{refusal.method}"',
        f'status="{refusal.status}"',
    )
    lines = client.get("/metrics").text.splitlines()
    return sum(
        float(line.rpartition(" ")[2])
        for line in lines
        if line.startswith("lookalike_requests_total") and all(one in line for one in wanted)
    )


@pytest.mark.parametrize("name", REFUSED)
def test_a_refusal_is_counted_for_its_route_and_can_be_read_by_a_page_that_may_call(
    server: Server, client: httpx.Client, name: str
) -> None:
    refusal = REFUSED[name]
    before = counted(client, refusal)

    named, other = raw(server, refusal.sent(SHOP)), raw(server, refusal.sent(OTHER))

    assert (named.status_code, named.json()["code"]) == (refusal.status, refusal.code)
    assert named.headers["access-control-allow-origin"] == SHOP
    assert "retry-after" in named.headers["access-control-expose-headers"].lower()
    if refusal.status == 503:
        assert int(named.headers["retry-after"]) >= 1
    if refusal.method == "GET":  # all else of another site is refused before it is looked at
        assert other.status_code == refusal.status
    assert "access-control-allow-origin" not in other.headers
    assert named.headers["vary"] == other.headers["vary"] == "Origin"
    deadline = time.monotonic() + 10
    while counted(client, refusal) == before and time.monotonic() < deadline:
        time.sleep(0.1)
    assert counted(client, refusal) - before in (1, 2)
    line = logged(server, named.json()["request_id"])
    assert (line["route"], line["method"], line["status"], line["code"]) == (
        *(refusal.route, refusal.method, refusal.status, refusal.code),
    )


def logged(server: Server, request_id: str) -> dict[str, Any]:
    """Return the line of a request, once it is written."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        for line in server.log.read_text().splitlines():
            if request_id in line:
                found: dict[str, Any] = json.loads(line)
                return found
        time.sleep(0.05)
    raise AssertionError(f"no line has {request_id}")


def test_a_quota_is_counted_for_its_route_too(model: Path, tmp_path: Path) -> None:
    options = ("--requests-per-minute", "1", "--cors-origins", SHOP)
    with gallery_server(model, tmp_path, *options) as server:
        with server.client(headers={"Origin": SHOP}) as client:
            answers = [client.get("/v1/items/a%20b") for _ in range(3)]
        last = answers[-1]
        line = logged(server, last.headers["x-request-id"])

    assert last.status_code == 429
    assert int(last.headers["retry-after"]) >= 1
    assert last.headers["access-control-allow-origin"] == SHOP
    assert (line["route"], line["status"]) == ("/v1/items/{item_id}", 429)


@pytest.mark.parametrize(
    ("first", "same", "other"),
    [
        ("203.0.113.9:4711", "203.0.113.9", "203.0.113.10:4711"),
        ("[2001:db8::1]:443", "2001:db8::2", "[2001:db8:0:1::1]"),
        ("198.51.100.7, 203.0.113.11:80", "[::ffff:203.0.113.11]:81", "198.51.100.7"),
    ],
)
def test_a_client_behind_a_proxy_is_one_however_it_is_written(
    proxied: Server, first: str, same: str, other: str
) -> None:
    with proxied.client() as client:
        statuses = [
            client.get("/v1/model", headers={"X-Forwarded-For": told}).status_code
            for told in (first, first, same, other)
        ]

    assert statuses == [200, 429, 429, 200]


@pytest.fixture(scope="module")
def proxied(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server behind a proxy of this machine, where each client may ask once a minute."""
    options = ("--requests-per-minute", "1", "--trusted-proxies", "127.0.0.1")
    with gallery_server(model, tmp_path_factory.mktemp("proxied"), *options) as running:
        yield running


@pytest.mark.parametrize(
    "head", [b"GET /v1/gallery HTTP/1.0\r\n", b"GET /v1/gallery HTTP/1.1\r\nHost:\r\n"]
)
def test_a_request_need_not_name_a_host(server: Server, head: bytes) -> None:
    """HTTP/1.0 knows none, and 1.1 may leave it empty (RFC 9112, 3.2); no browser does."""
    assert raw(server, head + b"Connection: close\r\n\r\n").status_code == 200


def test_whoever_may_come_again_is_told_when() -> None:
    made = []
    for kind, (status, _) in PROBLEMS.items():
        if status in (429, 503, 507):
            answer = problem_response(kind("full"), request_id="a")
            assert int(answer.headers["retry-after"]) >= 1, kind
            made.append(kind)
        else:
            assert not issubclass(kind, RetryableError), kind
    assert len(made) > 8


def routes_that_are_read(client: httpx.Client) -> Iterator[str]:
    """Return a path of each route that answers GET, in a state that does not change."""
    job = answered(client.post("/v1/jobs", json={"kind": "duplicates", "min_score": 0.999}))["id"]
    while answered(client.get(f"/v1/jobs/{job}"))["state"] in ("queued", "running"):
        time.sleep(0.05)
    for path, methods in client.get("/openapi.json").json()["paths"].items():
        if "get" in methods:
            yield path.replace("{item_id}", "item-01").replace("{job_id}", job)
    yield from ("/", "/docs", "/openapi.json", "/page/page.js", "/docs/swagger-ui.css")


@pytest.mark.parametrize("coding", ["identity", "gzip"])
def test_head_is_get_without_its_body_on_every_route(
    server: Server, client: httpx.Client, coding: str
) -> None:
    """Status, length and headers, then the next request on the same connection."""
    changing = ("date", "x-request-id")
    found = list(routes_that_are_read(client))
    assert len(found) > 10
    for path in found:
        asked = {"Accept-Encoding": coding, "X-Request-ID": "same"}
        shown, told = client.get(path, headers=asked), client.head(path, headers=asked)
        assert (told.status_code, told.content) == (200, b""), path
        names = {name for name in shown.headers if name not in changing}
        assert names == {name for name in told.headers if name not in changing}, path
        if path in ("/metrics", "/readyz", "/v1/gallery"):  # whose figures change
            names.discard("content-length")
        for name in names:
            assert told.headers[name] == shown.headers[name], (path, name)
    ask = b"HEAD /v1/model HTTP/1.1\r\nHost: a\r\n\r\n"
    last = b"HEAD /nowhere HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
    answer = raw(server, ask + last)
    assert answer.content.startswith(b"HTTP/1.1 404 "), "a body came, or none of the next head"
    assert answer.content.endswith(b"\r\n\r\n")


def test_every_route_says_which_methods_it_takes(client: httpx.Client) -> None:
    paths = answered(client.get("/openapi.json"))["paths"]
    for path, operations in paths.items():
        taken = {name.upper() for name in operations}
        taken |= {"HEAD"} if "GET" in taken else set()
        for method in {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"} - taken:
            answer = client.request(method, path.replace("{", "").replace("}", ""))
            if answer.status_code != 405:  # an item may have the name of a route
                assert path in ("/v1/items/delete",), (method, path, answer.text)
                continue
            assert set(answer.headers["allow"].split(", ")) == taken, (method, path)


@pytest.mark.parametrize(
    ("headers", "policy"),
    [
        ({"Origin": SHOP}, "cross-origin"),
        ({"Referer": f"{SHOP}/"}, "cross-origin"),  # as a browser sends it for <img src>
        ({"Referer": f"{SHOP}/coats?a=1"}, "cross-origin"),
        ({"Referer": f"{SHOP}.evil.example/"}, "same-origin"),
        ({"Referer": f"{OTHER}/{SHOP}/"}, "same-origin"),
        ({"Origin": OTHER, "Referer": f"{SHOP}/"}, "same-origin"),
        ({}, "same-origin"),
    ],
)
def test_pages_that_may_call_may_show_pictures(
    client: httpx.Client, headers: dict[str, str], policy: str
) -> None:
    first = client.get("/v1/items/item-01/image", headers=headers)
    kept = {**headers, "If-None-Match": first.headers["etag"]}
    again = client.get("/v1/items/item-01/image", headers=kept)

    assert (first.status_code, again.status_code) == (200, 304)
    for answer in (first, again):
        assert answer.headers.get_list("cross-origin-resource-policy") == [policy]
    other = client.get("/v1/items/item-01", headers=headers)
    assert other.headers["cross-origin-resource-policy"] == "same-origin"


def test_what_is_taken_instead_is_told(client: httpx.Client) -> None:
    coded = {**PNG, "Content-Encoding": "gzip, br"}
    packed = client.post("/v1/classify", content=png(1), headers=coded)
    patch = client.patch("/v1/items/item-01", content=b"a", headers={"Content-Type": "text/csv"})
    listed = client.post("/v1/classify", content=png(1), headers={"Content-Type": "text/csv"})

    assert [one.status_code for one in (packed, patch, listed)] == [415, 415, 415]
    assert packed.headers["accept-encoding"] == "identity"
    assert "application/merge-patch+json" in patch.headers["accept-patch"]
    assert "accept-encoding" not in listed.headers


@pytest.mark.parametrize("query", ["label=Gr%F6%DFe", "filter=%ff", "%E9=1", "limit=1&cursor=%C3"])
def test_a_query_is_utf_8(client: httpx.Client, query: str) -> None:
    for method, path in (("GET", "/v1/items"), ("PUT", "/v1/items/a"), ("POST", "/v1/search")):
        answer = client.request(
            method, f"{path}?{query}", content=png(1) if method != "GET" else b""
        )

        assert (answer.status_code, answer.json()["code"]) == (400, "malformed_request")
        assert "UTF-8" in answer.json()["detail"]
