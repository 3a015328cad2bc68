"""Who asks, and for which host: DNS rebinding, proxies between, forms of answers."""

import gzip
from collections.abc import Iterator
from contextlib import closing
from http.client import HTTPConnection
from ipaddress import ip_network
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from starlette.datastructures import Headers

from service.errors import CrossSiteError, HostNotAllowedError
from service.http.negotiation import accepts_gzip
from service.security.allowed_hosts import AllowedHosts
from service.security.cors import refuse_other_sites
from service.security.trusted_proxies import Site, TrustedProxies
from tests.support.images.pngs import png
from tests.support.server.gallery_servers import gallery_server
from tests.support.server.servers import Server

PNG = {"Content-Type": "image/png"}
PROXY = "127.0.0.9"  # an address of this machine that the server trusts


@pytest.fixture(scope="module")
def server(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("hosts")
    with gallery_server(model, folder, "--trusted-proxies", PROXY) as running:
        yield running


def client_at(server: Server, address: str) -> httpx.Client:
    transport = httpx.HTTPTransport(local_address=address)
    return httpx.Client(base_url=server.url, timeout=30, transport=transport)


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[httpx.Client]:
    with client_at(server, "127.0.0.1") as one:
        yield one


@pytest.fixture(scope="module")
def proxy(server: Server) -> Iterator[httpx.Client]:
    with client_at(server, PROXY) as one:
        yield one


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "HEAD"])
def test_a_page_that_has_its_own_name_point_here_gets_nothing(
    client: httpx.Client, method: str
) -> None:
    rebound = {"Host": "evil.example", "Origin": "http://evil.example"}

    answer = client.request(method, "/v1/items/item-01", headers=rebound)

    assert answer.status_code == 403
    if method != "HEAD":
        assert answer.json()["code"] == "host_not_allowed"
        assert "evil.example" in answer.json()["detail"]
        assert "LOOKALIKE_ALLOWED_HOSTS" in answer.json()["detail"]
    assert client.get("/v1/items/item-01").status_code == 200


@pytest.mark.parametrize(
    "host", ["localhost", "127.0.0.1:3000", "[::1]:3000", "lookalike", "a.localhost", "LOCALHOST"]
)
def test_local_names_are_answered(client: httpx.Client, host: str) -> None:
    assert client.get("/v1/model", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    ("target", "host", "status"),
    [
        ("http://evil.example/v1/model", "localhost", 403),
        ("http://localhost:3000/v1/model", "evil.example", 200),
        ("http://[::1]:3000/v1/model", "evil.example", 200),
    ],
)
def test_the_host_of_an_absolute_address_counts(
    server: Server, target: str, host: str, status: int
) -> None:
    """RFC 9112, 3.2.2."""
    address = urlsplit(server.url)
    with closing(HTTPConnection(str(address.hostname), address.port, timeout=30)) as connection:
        connection.request("GET", target, headers={"Host": host})

        assert connection.getresponse().status == status


def test_probes_are_answered_under_any_name(client: httpx.Client) -> None:
    assert client.get("/livez", headers={"Host": "pod.example"}).status_code == 200


def scope(host: str, *, server: str = "127.0.0.1", path: str = "/") -> dict[str, object]:
    return {
        "path": path,
        "server": (server, 3000),
        "client": ("192.0.2.1", 5),
        "headers": [(b"host", host.encode())],
    }


@pytest.mark.parametrize(
    ("allowed", "has_keys", "host", "server", "is_answered"),
    [
        ([], False, "shop.example", "127.0.0.1", False),
        ([], False, "shop.example", "::1", False),
        ([], False, "shop.example", "10.0.0.7", True),  # not loopback: a container, a machine
        ([], True, "shop.example", "127.0.0.1", True),  # a page has no key
        (["shop.example"], False, "shop.example:8443", "10.0.0.7", True),
        (["Shop.Example"], True, "SHOP.example.", "10.0.0.7", True),
        (["shop.example"], True, "10.0.0.7", "10.0.0.7", False),
        (["shop.example"], False, "shop.example.evil.example", "127.0.0.1", False),
        (["*"], False, "anything.example", "127.0.0.1", True),
    ],
)
def test_the_names_that_are_answered(
    allowed: list[str], has_keys: bool, host: str, server: str, is_answered: bool
) -> None:
    hosts = AllowedHosts(allowed, TrustedProxies(), has_keys=has_keys)
    if is_answered:
        hosts.check(scope(host, server=server))
    else:
        with pytest.raises(HostNotAllowedError):
            hosts.check(scope(host, server=server))


@pytest.mark.parametrize("allowed", [[], ["shop.example"]])
def test_a_page_cannot_pass_for_a_proxy_of_this_machine(allowed: list[str]) -> None:
    hosts = AllowedHosts(allowed, TrustedProxies([ip_network("127.0.0.0/8")]), has_keys=False)
    told = {**scope("evil.example"), "client": ("127.0.0.1", 5)}
    told["headers"] = [(b"host", b"evil.example"), (b"x-forwarded-host", b"shop.example")]
    proxied = {**told, "headers": [(b"host", b"127.0.0.1:3000"), told["headers"][1]]}

    with pytest.raises(HostNotAllowedError):
        hosts.check(told)
    hosts.check(proxied)


def test_what_a_proxy_was_asked_for_is_judged_too_where_names_are_listed() -> None:
    """A page may have its name point to the proxy, which then speaks to us by our own name."""
    hosts = AllowedHosts(
        ["shop.example"], TrustedProxies([ip_network("127.0.0.0/8")]), has_keys=False
    )
    asked = {**scope("127.0.0.1:3000"), "client": ("127.0.0.1", 5)}
    for told, passes in (("shop.example:8443", True), ("10.0.0.7", True), ("evil.example", False)):
        asked["headers"] = [(b"host", b"127.0.0.1:3000"), (b"x-forwarded-host", told.encode())]
        if passes:
            hosts.check(asked)
            continue
        with pytest.raises(HostNotAllowedError, match=told):
            hosts.check(asked)


@pytest.mark.parametrize("host", ["", " ", "shop.example, evil.example"])
def test_a_request_that_names_no_host_is_no_page_and_none_of_the_listed(host: str) -> None:
    """Browsers name one always; HTTP/1.0 may leave it out, and 1.1 may leave it empty."""
    listed = AllowedHosts(["shop.example"], TrustedProxies(), has_keys=False)

    with pytest.raises(HostNotAllowedError):
        listed.check(scope(host))
    if not host.strip():
        AllowedHosts([], TrustedProxies(), has_keys=False).check(scope(host))


@pytest.mark.parametrize(
    ("origin", "host", "scheme", "is_own"),
    [
        ("http://shop.example", "shop.example:80", "", True),
        ("https://shop.example", "shop.example:443", "", True),
        ("https://shop.example:8443", "shop.example:8443", "", True),
        ("https://shop.example:443", "shop.example", "https", True),  # no browser writes it so
        ("https://shop.example", "SHOP.example", "https", True),
        ("http://[2001:db8::1]", "[2001:db8::1]:80", "", True),
        ("https://shop.example", "shop.example", "http", True),  # another proxy has the TLS
        ("http://shop.example", "shop.example", "https", False),  # written by anybody on the way
        ("http://shop.example", "shop.example:443", "", False),
        ("https://shop.example", "shop.example:80", "", False),
        ("https://shop.example:8443", "shop.example", "", False),
        ("https://shop.example", "other.example", "", False),
        ("http://:80", "", "", False),
        ("null", "", "", False),
    ],
)
def test_a_page_is_our_own_by_its_host_with_the_usual_port_or_without(
    origin: str, host: str, scheme: str, is_own: bool
) -> None:
    def called() -> Site:
        return Site(host, scheme)

    headers = Headers({"origin": origin})
    if is_own:
        refuse_other_sites(headers, called, None)
    else:
        with pytest.raises(CrossSiteError):
            refuse_other_sites(headers, called, None)


def test_a_trusted_proxy_tells_the_site_that_the_client_asked_for() -> None:
    proxies = TrustedProxies([ip_network("192.0.2.0/24")])
    told = scope("127.0.0.1:3000")
    told["headers"] = [
        (b"host", b"10.0.0.1"),
        (b"x-forwarded-host", b"a.example, shop.example"),
        (b"x-forwarded-proto", b"http"),
        (b"x-forwarded-proto", b"HTTPS"),
        (b"x-forwarded-prefix", b"/visual/"),
    ]

    assert proxies.site(told) == Site("shop.example", "https")
    assert proxies.prefix(told) == "/visual"
    assert TrustedProxies().site(told) == Site("10.0.0.1", "")
    assert TrustedProxies().prefix(told) == ""


@pytest.mark.parametrize("told", ["//evil.example", "visual", "https://a", "/a b", '/a"', "/", ""])
def test_a_prefix_that_is_no_path_is_none(told: str) -> None:
    proxied = {**scope("a"), "headers": [(b"x-forwarded-prefix", told.encode())]}

    assert TrustedProxies([ip_network("192.0.2.0/24")]).prefix(proxied) == ""


@pytest.mark.parametrize(
    ("told", "client"),
    [
        ("203.0.113.9", "203.0.113.9"),
        ("203.0.113.9:4711", "203.0.113.9"),
        ("[2001:db8::1]:443", "2001:db8::1"),
        ("[2001:db8::1]", "2001:db8::1"),
        ("2001:db8::1", "2001:db8::1"),
        ("::ffff:203.0.113.9", "::ffff:203.0.113.9"),
        ("198.51.100.1, 203.0.113.9:80, 192.0.2.7:81", "203.0.113.9"),
        ("unknown", "192.0.2.1"),
        ("[2001:db8::1", "2001:db8::1"),
        ("", "192.0.2.1"),
    ],
)
def test_a_proxy_tells_the_client_in_every_spelling(told: str, client: str) -> None:
    proxied = {**scope("a"), "headers": [(b"x-forwarded-for", told.encode())]}

    assert TrustedProxies([ip_network("192.0.2.0/24")]).client(proxied) == client


def test_who_may_open_the_unix_socket_is_a_proxy_that_is_trusted() -> None:
    told = {**scope("localhost"), "server": ("/run/lookalike.sock", None), "client": None}
    told["headers"] = [
        (b"host", b"localhost"),
        (b"x-forwarded-for", b"203.0.113.9"),
        (b"x-forwarded-host", b"shop.example"),
    ]

    assert TrustedProxies().client(told) == "203.0.113.9"
    assert TrustedProxies().site(told).host == "shop.example"
    AllowedHosts([], TrustedProxies(), has_keys=False).check(told)
    gone = {**told, "server": ("127.0.0.1", 3000)}  # a client of TCP that has left already
    assert TrustedProxies().client(gone) == ""
    assert TrustedProxies().site(gone).host == "localhost"


def test_the_services_own_page_works_behind_a_proxy_that_rewrites_the_host(
    client: httpx.Client, proxy: httpx.Client
) -> None:
    page = {**PNG, "Origin": "http://shop.example"}
    told = {**page, "X-Forwarded-Host": "shop.example"}

    behind = proxy.put("/v1/items/behind", content=png(5), headers=told)
    silent = proxy.put("/v1/items/behind", content=png(5), headers=page)
    liar = client.put("/v1/items/behind", content=png(5), headers=told)

    assert behind.status_code == 201
    for refused in (silent, liar):
        assert (refused.status_code, refused.json()["code"]) == (403, "cross_site")
        assert "http://shop.example" in refused.json()["detail"]
        assert httpx.URL(refused.request.url).netloc.decode() in refused.json()["detail"]


def test_a_job_is_found_beside_where_it_was_begun(client: httpx.Client) -> None:
    """So a proxy may have the service under a path of its own."""
    answer = client.post("/v1/jobs", json={"kind": "duplicates", "min_score": 0.99})
    begun = answer.request.url.join(answer.headers["location"])

    assert answer.status_code == 202
    assert begun.path == f"/v1/jobs/{answer.json()['id']}"
    assert client.get(begun.path).status_code == 200


ROUTES = ("/v1/model", "/v1/gallery", "/v1/items", "/v1/items/item-01", "/readyz", "/", "/docs")


@pytest.mark.parametrize("path", [*ROUTES, "/v1/items/item-01/image", "/openapi.json", "/metrics"])
def test_head_has_the_headers_of_get_and_no_body(client: httpx.Client, path: str) -> None:
    shown, told = client.get(path), client.head(path)

    assert (told.status_code, told.content) == (200, b"")
    assert told.headers["content-type"] == shown.headers["content-type"]
    if path not in ("/metrics", "/readyz", "/v1/gallery"):  # whose figures change
        assert told.headers["content-length"] == shown.headers["content-length"]
    assert client.get("/livez").status_code == 200, "the connection goes on"


def test_a_path_that_is_only_read_says_that_it_takes_head(client: httpx.Client) -> None:
    answer = client.post("/v1/model")

    assert answer.status_code == 405
    assert answer.headers["allow"] == "GET, HEAD"


TAGGED = (
    *("/v1/items/item-01", "/v1/items/item-01/image", "/", "/docs", "/page/page.css"),
    *("/page/icon.svg", "/docs/swagger-ui.css", "/openapi.json"),
)


@pytest.mark.parametrize("path", TAGGED)
def test_what_a_client_has_already_is_not_sent_again(client: httpx.Client, path: str) -> None:
    plain = {"Accept-Encoding": "identity"}
    first = client.get(path, headers=plain)
    tag = first.headers["etag"]
    assert tag.startswith('"')
    assert "last-modified" not in first.headers

    for told in (tag, f"W/{tag}", f'"other", {tag}', f'"other",W/{tag}, ,', "*"):
        for method in ("GET", "HEAD"):
            answer = client.request(method, path, headers={**plain, "If-None-Match": told})
            assert (answer.status_code, answer.content) == (304, b""), told
            for name in ("etag", "cache-control", "vary", "content-security-policy"):
                assert answer.headers.get(name) == first.headers.get(name), name
    lines = httpx.Headers([*plain.items(), ("If-None-Match", '"other"'), ("If-None-Match", tag)])
    assert client.get(path, headers=lines).status_code == 304
    for told in (f'"x{tag[1:]}', tag.strip('"'), '""'):
        changed = client.get(path, headers={**plain, "If-None-Match": told})
        assert changed.status_code == 200
        assert len(changed.content) == len(first.content)


@pytest.mark.parametrize("path", TAGGED)
def test_a_date_decides_nothing_where_none_was_told(client: httpx.Client, path: str) -> None:
    """RFC 9110, 13.1.3: it is ignored without a date of change, and beside If-None-Match."""
    later = {"If-Modified-Since": "Fri, 31 Dec 2100 23:59:59 GMT"}
    tag = client.head(path).headers["etag"]

    assert client.get(path, headers=later).status_code == 200
    assert client.get(path, headers={**later, "If-None-Match": '"other"'}).status_code == 200
    assert client.get(path, headers={**later, "If-None-Match": tag}).status_code == 304
    part = client.get(path, headers={"Range": "bytes=0-3", "If-Range": tag})
    assert part.status_code == 200
    assert "content-range" not in part.headers


@pytest.mark.parametrize("path", TAGGED)
def test_a_state_that_is_gone_is_not_read(client: httpx.Client, path: str) -> None:
    tag = client.head(path).headers["etag"]

    for told, status in ((tag, 200), (f'"a", {tag}', 200), ("*", 200), ('"a"', 412)):
        assert client.get(path, headers={"If-Match": told}).status_code == status, told
    assert client.get(path, headers={"If-Match": f"W/{tag}"}).status_code == 412
    both = client.get(path, headers={"If-Match": '"a"', "If-None-Match": tag})
    assert (both.status_code, both.json()["code"]) == (412, "precondition_failed")


@pytest.mark.parametrize("path", ["/", "/docs", "/openapi.json", "/docs/swagger-ui-bundle.js"])
def test_two_forms_of_an_answer_have_two_tags(client: httpx.Client, path: str) -> None:
    plain = client.get(path, headers={"Accept-Encoding": "identity"})
    packed = client.get(path, headers={"Accept-Encoding": "gzip"})

    assert packed.content == plain.content
    assert packed.headers["etag"] != plain.headers["etag"]
    assert packed.headers["vary"] == plain.headers["vary"] == "Accept-Encoding"
    told = {"Accept-Encoding": "gzip", "If-None-Match": plain.headers["etag"]}
    assert client.get(path, headers=told).status_code == 200


def test_what_has_one_tag_has_one_form(client: httpx.Client) -> None:
    long = {"metadata": f'{{"text": "{chr(0xDF) * 7_000}"}}'}
    client.put("/v1/items/long", data=long, files={"image": png(1)})
    forms = [
        client.get("/v1/items/long", headers={"Accept-Encoding": told})
        for told in ("gzip", "identity")
    ]

    assert [one.headers.get("content-encoding") for one in forms] == [None, None]
    assert forms[0].headers["etag"] == forms[1].headers["etag"]
    client.delete("/v1/items/long")


@pytest.mark.parametrize(
    ("told", "is_taken"),
    [
        ("gzip", True),
        ("gzip;q=0", False),
        ("gzip; q=0.000", False),
        ("identity, *;q=0", False),
        ("*", True),
        ("GZIP;Q=1", True),
        ("gzip;q=x", False),
        ("x-gzip", True),
        ("gzip;q=0.2, identity;q=0.8", False),
        ("gzip, identity;q=0.5", True),
        ("identity;q=0", False),  # nor is anything else told: it is sent as it is (12.1)
        ("identity;q=0, gzip", True),
        ("*;q=0", False),
        ("br", False),
        ("", False),
    ],
)
def test_what_a_client_takes_is_sent(client: httpx.Client, told: str, is_taken: bool) -> None:
    assert accepts_gzip(Headers({"accept-encoding": told})) is is_taken

    answer = client.get("/openapi.json", headers={"Accept-Encoding": told})

    assert answer.headers.get("content-encoding") == ("gzip" if is_taken else None)
    assert answer.headers["vary"] == "Accept-Encoding"
    assert answer.json()["openapi"].startswith("3.")


def test_a_long_list_is_packed_and_a_short_answer_is_not(client: httpx.Client) -> None:
    for number in range(40):
        metadata = {"metadata": f'{{"text": "{"x" * 1000}"}}'}
        client.put(f"/v1/items/item-{number:02d}", data=metadata, files={"image": png(number)})
    with client.stream("GET", "/v1/items", headers={"Accept-Encoding": "gzip"}) as answer:
        raw = b"".join(answer.iter_raw())

    assert answer.headers["content-encoding"] == "gzip"
    assert int(answer.headers["content-length"]) == len(raw)
    assert len(gzip.decompress(raw)) > 5 * len(raw)
    short = client.get("/v1/items?limit=1", headers={"Accept-Encoding": "gzip"})
    assert "content-encoding" not in short.headers
