"""Behind a real nginx, as docs/proxies.md has it: plain, a path, a socket, TLS, Host rewritten."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from tests.support.deployment.nginx import DEPLOYED, deployed_nginx, running_nginx
from tests.support.galleries.small_galleries import write_gallery
from tests.support.images.pngs import png
from tests.support.paths import ROOT
from tests.support.server.gallery_servers import gallery_server
from tests.support.server.servers import Server, open_folder, running_at

PNG = {"Content-Type": "image/png"}
DOCUMENT = ROOT / "docs" / "proxies.md"
UPSTREAM = "127.0.0.1:3000"  # where the document has the service
SOCKET = "/run/lookalike/socket"
WAYS = ("plain", "path", "socket")  # the blocks of the document, in its order


@dataclass(frozen=True)
class Proxied:
    """A server as a client sees it through nginx."""

    client: httpx.Client
    url: str

    def page(self, path: str) -> dict[str, str]:
        """Return what a browser sends with a request of the service's own page."""
        origin = urlsplit(self.url)
        return {**PNG, "Origin": f"{origin.scheme}://{origin.netloc}", "Referer": self.url + path}


@pytest.fixture(scope="module")
def server(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    options = ("--trusted-proxies", "127.0.0.1", "--requests-per-minute", "5000")
    with gallery_server(model, tmp_path_factory.mktemp("proxied"), *options) as running:
        yield running


def documented(way: str, server: Server, *, socket: Path | None = None) -> tuple[str, str]:
    """Return the lines of the document for `http` and `server`, with this machine's addresses."""
    blocks = re.findall(r"```nginx\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    assert len(blocks) == len(WAYS)
    block = blocks[WAYS.index(way)].replace(UPSTREAM, server.url.removeprefix("http://"))
    block = block.replace(SOCKET, str(socket))
    block = block.replace("include proxy.conf;", f"include {DEPLOYED / 'proxy.conf'};")
    upstream, _, rest = block.partition("server {")
    kept = [line for line in rest.rsplit("}", 1)[0].splitlines() if "listen" not in line]
    return upstream, "\n".join(line for line in kept if "server_name" not in line)


@pytest.fixture(scope="module")
def socket_path(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("socket")
    write_gallery(folder / "gallery", model)
    quota = ("--requests-per-minute", "5000")
    with (
        open_folder() as shown,
        running_at(shown / "s", model, folder / "gallery", folder / "log", *quota),
    ):
        yield shown / "s"


@pytest.fixture(scope="module", params=(*WAYS, "TLS"))
def proxied(
    request: pytest.FixtureRequest, server: Server, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Proxied]:
    folder = tmp_path_factory.mktemp("nginx") / "n"
    if request.param == "TLS":
        with (
            deployed_nginx(folder, server.url.removeprefix("http://")) as nginx,
            nginx.client() as client,
        ):
            yield Proxied(client, nginx.url)
        return
    at_socket = request.param == "socket"
    socket = request.getfixturevalue("socket_path") if at_socket else None
    http, lines = documented(request.param, server, socket=socket)
    with running_nginx(folder, lines, http=http) as root:
        url = root + ("/visual" if request.param == "path" else "")
        with httpx.Client(base_url=url, timeout=30) as client:
            yield Proxied(client, url)


def test_requests_pass_in_both_directions(proxied: Proxied) -> None:
    client = proxied.client
    stored = client.put("/v1/items/through", content=png(1), headers=PNG)
    found = client.post("/v1/search?k=1", content=png(1), headers=PNG)
    listed = client.get("/v1/items?limit=1000", headers={"Accept-Encoding": "gzip"})

    assert stored.status_code in (200, 201)
    assert found.json()["hits"][0]["score"] == pytest.approx(1, abs=1e-5)
    assert "through" in [item["id"] for item in listed.json()["items"]]
    assert client.head("/v1/model").status_code == 200
    assert client.delete("/v1/items/through").status_code == 200


def test_the_services_own_page_may_change_things_and_others_may_not(proxied: Proxied) -> None:
    own = proxied.client.put("/v1/items/own", content=png(2), headers=proxied.page("/"))
    foreign = {**PNG, "Origin": "https://evil.example"}
    other = proxied.client.put("/v1/items/own", content=png(2), headers=foreign)

    assert own.status_code in (200, 201), own.text
    assert (other.status_code, other.json()["code"]) == (403, "cross_site")


def test_what_a_client_claims_of_itself_is_not_believed(proxied: Proxied) -> None:
    """The proxy's own word replaces it."""
    claims = {"X-Forwarded-Host": "evil.example", "X-Forwarded-For": "203.0.113.9"}
    origin = {**PNG, **claims, "Origin": "http://evil.example"}

    answer = proxied.client.put("/v1/items/claimed", content=png(3), headers=origin)

    assert (answer.status_code, answer.json()["code"]) == (403, "cross_site")


def test_the_page_and_its_links_stay_under_their_path(proxied: Proxied) -> None:
    client = proxied.client
    page = client.get("/")
    assert page.status_code == 200
    links = re.findall(r'(?:href|src)="([^"#:]+)"', page.text)
    assert links
    for link in links:
        assert client.get(f"{proxied.url}/{link}").status_code == 200, link
    job = client.post("/v1/jobs", json={"kind": "duplicates", "min_score": 0.999})
    address = job.request.url.join(job.headers["location"])
    assert str(address).startswith(proxied.url)
    assert client.get(address).status_code == 200


def test_the_document_says_where_the_service_is(proxied: Proxied) -> None:
    document = proxied.client.get("/openapi.json")
    servers = document.json().get("servers", [{"url": "/"}])
    address = document.request.url.join(servers[0]["url"])

    assert str(address).rstrip("/") == proxied.url
    tag = {"If-None-Match": document.headers["etag"]}
    assert proxied.client.get("/openapi.json", headers=tag).status_code == 304


def test_a_page_that_came_without_tls_is_not_our_own_over_tls(proxied: Proxied) -> None:
    host = proxied.url.split("/")[2]
    answers = {
        scheme: proxied.client.put(
            "/v1/items/own", content=png(2), headers={**PNG, "Origin": f"{scheme}://{host}"}
        )
        for scheme in ("http", "https")
    }

    assert answers["https"].status_code in (200, 201)
    if proxied.url.startswith("https"):
        assert answers["http"].json()["code"] == "cross_site"
        assert f"https://{host}" in answers["http"].json()["detail"]
    else:
        assert answers["http"].status_code in (200, 201)


@pytest.fixture(scope="module")
def listed(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that goes by one name, and trusts this machine's proxies; nobody needs a key."""
    options = ("--trusted-proxies", "127.0.0.0/8", "--allowed-hosts", "shop.example")
    with gallery_server(model, tmp_path_factory.mktemp("listed"), *options) as running:
        yield running


@pytest.mark.parametrize("way", ["plain", "Host passed on"])
def test_a_page_that_has_its_name_point_to_the_proxy_gets_nothing(
    listed: Server, tmp_path: Path, way: str
) -> None:
    http, lines = documented("plain", listed)
    if way == "Host passed on":
        http, lines = "", f"location / {{ proxy_pass {listed.url}; proxy_set_header Host $host; }}"
    answers = {}
    with running_nginx(tmp_path / "n", lines, http=http) as url:
        for host in ("shop.example", "evil.example"):
            headers = {**PNG, "Host": host, "Origin": f"http://{host}"}
            answers[host] = httpx.put(
                f"{url}/v1/items/a", content=png(2), headers=headers, timeout=30
            )

    assert answers["shop.example"].status_code in (200, 201)
    assert answers["evil.example"].json()["code"] == "host_not_allowed"
    assert "evil.example" in answers["evil.example"].json()["detail"]


def test_a_page_that_has_its_name_point_here_cannot_pass_for_the_proxy(server: Server) -> None:
    """It comes from the address of the trusted proxy, and no names are listed."""
    rebound = {**PNG, "Host": "evil.example", "Origin": "http://evil.example"}
    claims = {"X-Forwarded-Host": "evil.example", "X-Forwarded-Proto": "http"}
    for headers in (rebound, {**rebound, **claims}):
        with server.client() as client:
            stored = client.put("/v1/items/rebound", content=png(2), headers=headers)
            read = client.get("/v1/items", headers=headers)
        for answer in (stored, read):
            assert (answer.status_code, answer.json()["code"]) == (403, "host_not_allowed")


def test_metrics_are_not_for_the_public(proxied: Proxied) -> None:
    answer = proxied.client.get("/metrics")

    assert answer.status_code == 404
    assert "lookalike_" not in answer.text


def test_a_large_body_is_refused_with_a_problem_or_by_the_proxy(proxied: Proxied) -> None:
    answer = proxied.client.post("/v1/classify", content=bytes(21 * 2**20), headers=PNG)

    assert answer.status_code == 413


def test_many_requests_on_few_connections_are_all_answered(proxied: Proxied) -> None:
    for number in range(100):
        answer = proxied.client.post("/v1/classify", content=png(number), headers=PNG)
        assert answer.status_code == 200
        assert answer.headers["x-request-id"]


def test_a_page_behind_a_proxy_that_says_nothing_of_the_host_is_told_what_to_do(
    server: Server, tmp_path: Path
) -> None:
    """nginx's default: the service hears the upstream's address as its host."""
    lines = f"location / {{ proxy_pass {server.url}; }}"
    with running_nginx(tmp_path / "n", lines) as url:
        told = {**PNG, "Origin": url}
        answer = httpx.put(f"{url}/v1/items/own", content=png(2), headers=told, timeout=30)

    assert (answer.status_code, answer.json()["code"]) == (403, "cross_site")
    for value in (url, server.url.removeprefix("http://"), "X-Forwarded-Host"):
        assert value in answer.json()["detail"]
