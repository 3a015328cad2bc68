"""Headers of every kind of answer: policies, cross-origin calls, request ids, no trust in Host."""

import json
import re
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from starlette.datastructures import Headers

from service.config import ServiceSettings
from service.errors import CrossSiteError, ServiceConfigError
from service.security.api_keys import make_key
from service.security.cors import Cors, refuse_other_sites
from service.security.trusted_proxies import Site
from tests.support.galleries.small_galleries import write_gallery
from tests.support.images.pngs import png
from tests.support.server.servers import Server, StrictServer, running_server

SHOP = "https://shop.example"
ALWAYS = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "x-frame-options": "DENY",
    "cross-origin-resource-policy": "same-origin",
}


@pytest.mark.parametrize(
    ("method", "path", "status", "kept"),
    [
        ("GET", "/livez", 200, "no-store"),
        ("GET", "/metrics", 200, "no-store"),
        ("GET", "/openapi.json", 200, "no-store"),
        ("GET", "/v1/items/item-00", 200, "no-store"),
        ("GET", "/v1/items/item-00/image", 200, "private, no-cache"),
        ("POST", "/v1/classify", 400, "no-store"),
        ("GET", "/nowhere", 404, "no-store"),
        ("GET", "/v1/items/", 404, "no-store"),
        ("OPTIONS", "/v1/model", 405, "no-store"),
        ("GET", "/", 200, "no-cache"),
        ("GET", "/docs", 200, "no-cache"),
        ("GET", "/page/page.js", 200, "no-cache"),
    ],
)
def test_every_answer_carries_each_policy_once(
    client: httpx.Client, method: str, path: str, status: int, kept: str
) -> None:
    answer = client.request(method, path)
    given = {name: answer.headers.get_list(name) for name in (*ALWAYS, "cache-control")}

    assert answer.status_code == status
    assert given == {name: [value] for name, value in {**ALWAYS, "cache-control": kept}.items()}
    (policy,) = answer.headers.get_list("content-security-policy")
    assert policy.startswith("default-src 'none'; base-uri 'none'; form-action 'none'; frame-anc")
    assert "unsafe" not in policy
    assert "server" not in answer.headers
    assert not [name for name in answer.headers if name.startswith("access-control")]


def test_refusals_of_the_gate_carry_them_too(strict_server: StrictServer) -> None:
    for headers in ({}, strict_server.headers("admin")):
        answer = httpx.get(f"{strict_server.url}/v1/model", headers=headers)
        assert answer.status_code in (401, 403)
        assert ALWAYS.items() <= dict(answer.headers).items()
        assert answer.headers["cache-control"] == "no-store"


def test_cross_origin_calls_are_off_unless_asked_for(client: httpx.Client) -> None:
    asked = {"Origin": SHOP, "Access-Control-Request-Method": "GET"}
    for method, path in (("OPTIONS", "/v1/model"), ("GET", "/v1/model"), ("GET", "/nowhere")):
        answer = client.request(method, path, headers=asked)
        assert not [name for name in answer.headers if name.startswith("access-control")]
    assert client.options("/v1/model", headers=asked).status_code == 405


@pytest.fixture(scope="module")
def shared(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, str]]:
    """A server with a key, that pages of one origin may call, and the key's header."""
    folder = tmp_path_factory.mktemp("cors")
    write_gallery(folder / "gallery", model)
    key = make_key("shop", ["read"])
    (folder / "keys.toml").write_text(key.lines + "requests_per_minute = 6\n")
    options = ("--api-keys-file", str(folder / "keys.toml"), "--cors-origins", f"{SHOP}, http://a")
    with running_server(model, folder / "gallery", folder / "log", *options) as server:
        yield server, f"Bearer {key.token}"


def test_a_named_origin_may_ask_call_and_read(shared: tuple[Server, str]) -> None:
    server, authorization = shared
    asked = {
        "Origin": SHOP,
        "Access-Control-Request-Method": "DELETE",
        "Access-Control-Request-Headers": "authorization",
    }
    with server.client() as client:
        preflight = client.options("/v1/items/a", headers=asked)
        found = client.get("/v1/model", headers={"Origin": SHOP, "Authorization": authorization})
        refused = client.get("/v1/model", headers={"Origin": SHOP})
        for _ in range(9):
            last = client.get("/v1/model", headers={"Origin": SHOP, "Authorization": authorization})

    assert (preflight.status_code, preflight.content) == (204, b"")
    assert "DELETE" in preflight.headers["access-control-allow-methods"]
    assert "authorization" in preflight.headers["access-control-allow-headers"].lower()
    assert [one.status_code for one in (found, refused, last)] == [200, 401, 429]
    for answer in (preflight, found, refused, last):
        assert answer.headers["access-control-allow-origin"] == SHOP
        assert answer.headers.get_list("vary") == ["Origin"]
        assert "x-request-id" in answer.headers["access-control-expose-headers"].lower()
        assert "access-control-allow-credentials" not in answer.headers
        assert ALWAYS.items() <= dict(answer.headers).items()
        assert answer.headers["x-request-id"]


@pytest.mark.parametrize(
    "origin", ["https://other.example", "null", f"{SHOP}.evil", f"{SHOP}:444", "*", SHOP.upper()]
)
def test_another_origin_is_told_nothing(shared: tuple[Server, str], origin: str) -> None:
    server, authorization = shared
    asked = {"Origin": origin, "Access-Control-Request-Method": "GET"}
    with server.client() as client:
        answers = [
            client.options("/v1/model", headers=asked),
            client.options("/v1/model", headers={**asked, "Authorization": authorization}),
            client.get("/livez", headers={"Origin": origin}),
        ]

    assert answers[0].status_code == 401
    assert answers[1].status_code in (405, 429)
    for answer in answers:
        assert not [name for name in answer.headers if name.startswith("access-control")]
        assert answer.headers["vary"] == "Origin"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 201),  # no browser
        ({"Origin": "http://{host}"}, 201),
        ({"Origin": "https://{host}"}, 201),  # a proxy in between speaks TLS
        ({"Origin": "https://{host}.evil"}, 403),
        ({"Origin": "https://other.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": ""}, 403),
        ({"Origin": "http://{host}", "Sec-Fetch-Site": "cross-site"}, 403),
        ({"Origin": "http://{host}", "Sec-Fetch-Site": "same-site"}, 403),
        ({"Origin": "https://seen.example", "Sec-Fetch-Site": "same-origin"}, 201),  # a proxy
        ({"Origin": "null", "Sec-Fetch-Site": "none"}, 201),  # a person
    ],
)
def test_only_our_own_pages_may_change_anything(
    client: httpx.Client, headers: dict[str, str], status: int
) -> None:
    host = f"{client.base_url.host}:{client.base_url.port}"
    sent = {name: value.format(host=host) for name, value in headers.items()}
    item_id = f"by-page-{status}"
    form = {"image": png(3)}

    stored = client.put(f"/v1/items/{item_id}", files=form, headers=sent)
    many = client.post(
        "/v1/items", files=form, data={"items": f'[{{"id": "{item_id}"}}]'}, headers=sent
    )
    asked = client.post("/v1/classify", files=form, headers=sent)
    read = client.get(f"/v1/items/{item_id}", headers=sent)
    deleted = client.delete(f"/v1/items/{item_id}", headers=sent)

    if status == 403:
        for answer in (stored, many, asked, deleted):
            assert (answer.status_code, answer.json()["code"]) == (403, "cross_site")
        assert read.status_code == 404
    else:
        statuses = [one.status_code for one in (stored, many, asked, read, deleted)]
        assert statuses == [201, 207, 200, 200, 200]


def test_pages_of_named_origins_may_change_things() -> None:
    def here() -> Site:
        return Site("here", "")

    headers = Headers({"origin": SHOP, "sec-fetch-site": "cross-site", "host": "here"})
    refuse_other_sites(headers, here, Cors([SHOP]))
    refuse_other_sites(headers, here, Cors(["*"]))
    for cors in (None, Cors(["https://another.example"])):
        with pytest.raises(CrossSiteError):
            refuse_other_sites(headers, here, cors)


def test_any_origin_may_be_let_in_but_never_with_cookies() -> None:
    cors = Cors(["*"])
    names = {"origin": "null", "access-control-request-method": "PUT"}

    assert (b"access-control-allow-origin", b"*") in cors.headers("null")
    assert cors.preflight("OPTIONS", Headers(names)) is not None
    assert cors.preflight("OPTIONS", Headers({"origin": "null"})) is None
    assert cors.preflight("PUT", Headers(names)) is None


@pytest.mark.parametrize("text", ["proxy", "10.0.0.1/8", "", "10.0.0.1;10.0.0.2"])
def test_what_is_no_address_is_no_proxy(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("LOOKALIKE_TRUSTED_PROXIES", text)

    with pytest.raises(ServiceConfigError, match="LOOKALIKE_TRUSTED_PROXIES"):
        ServiceSettings.from_environment()


@pytest.mark.parametrize(
    "text", ["shop.example", f"{SHOP}/", f"{SHOP}/a", "HTTPS://a", "https://", "", "a b", "null"]
)
def test_what_is_no_origin_is_refused_at_the_start(
    monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.setenv("LOOKALIKE_CORS_ORIGINS", text)

    with pytest.raises(ServiceConfigError, match="LOOKALIKE_CORS_ORIGINS"):
        ServiceSettings.from_environment()


HOSTILE_IDS = [
    b"a" * 65,
    b"a b",
    b"a\tb",
    b"<script>",
    b'"},{"',
    b"../../etc",
    b"%0d%0aSet-Cookie:x",
    b"\xc3\xa4",
    b"\xff\xfe",
    "١٢٣".encode(),
    b"",
]


def logged(server: Server, text: bytes) -> list[bytes]:
    """Return the lines of the log with ``text``, which a thread writes a little later."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        if lines := [line for line in server.log.read_bytes().splitlines() if text in line]:
            return lines
        time.sleep(0.02)
    return []


@pytest.mark.parametrize("given", HOSTILE_IDS)
def test_a_request_id_that_could_do_harm_is_replaced(server: Server, given: bytes) -> None:
    answer = raw(server, b"GET /v1/model HTTP/1.1\r\nHost: x\r\nX-Request-ID: " + given)
    found = re.search(rb"x-request-id: ([^\r]*)\r\n", answer)

    assert answer.startswith(b"HTTP/1.1 200")
    assert found is not None
    assert re.fullmatch(rb"[0-9a-f]{32}", found[1])
    assert b"set-cookie" not in answer.lower()
    lines = logged(server, found[1])
    assert len(lines) == 1
    assert json.loads(lines[0])["request_id"] == found[1].decode()


def test_a_good_request_id_is_kept_whole(client: httpx.Client) -> None:
    given = "A-z_0-9" * 9
    answer = client.get("/v1/model", headers={"X-Request-ID": given})

    assert answer.headers.get_list("x-request-id") == [given]
    assert answer.json()["request_id"] == given


@pytest.mark.parametrize("host", [b"evil.example", b"evil.example:80", b""])
def test_the_host_header_decides_nothing(strict_server: StrictServer, host: bytes) -> None:
    server = strict_server.running
    refused = raw(server, b"GET /v1/model HTTP/1.1\r\nHost: " + host)
    slashed = raw(server, b"GET /docs/ HTTP/1.1\r\nHost: " + host)
    alive = raw(server, b"GET /livez HTTP/1.1\r\nHost: " + host)

    assert refused.startswith(b"HTTP/1.1 401")
    assert slashed.startswith(b"HTTP/1.1 404")
    assert alive.startswith(b"HTTP/1.1 200")
    for answer in (refused, slashed, alive):
        assert b"evil" not in answer
        assert b"location:" not in answer.lower()


@pytest.mark.parametrize("host", [b"evil/livez?", b"a/livez#", b"user@evil", b"[::1", b"\xff"])
def test_what_is_no_host_is_refused(strict_server: StrictServer, host: bytes) -> None:
    """RFC 9112, 3.2."""
    for path in (b"/v1/model", b"/docs/", b"/livez"):
        answer = raw(strict_server.running, b"GET " + path + b" HTTP/1.1\r\nHost: " + host)

        assert answer.startswith(b"HTTP/1.1 400")
        assert b"evil" not in answer
        assert b"location:" not in answer.lower()


def raw(server: Server, head: bytes) -> bytes:
    """Send exactly these bytes, and return the whole answer."""
    where = ("127.0.0.1", int(server.url.rpartition(":")[2]))
    with socket.create_connection(where, timeout=20) as connection:
        connection.sendall(head + b"\r\nConnection: close\r\n\r\n")
        answer = b""
        while chunk := connection.recv(65536):
            answer += chunk
    return answer


def test_a_picture_can_still_be_kept_by_a_browser(client: httpx.Client) -> None:
    sent = client.put("/v1/items/kept", content=png(5), headers={"Content-Type": "image/png"})
    first = client.get("/v1/items/kept/image")
    again = client.get("/v1/items/kept/image", headers={"If-None-Match": first.headers["etag"]})
    client.delete("/v1/items/kept")

    assert sent.status_code == 201
    assert again.status_code == 304
    assert again.headers.get_list("cache-control") == ["private, no-cache"]
