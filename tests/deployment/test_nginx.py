"""deploy/nginx runs before the real service: what passes, what is refused, and what it says."""

import json
import re
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import httpx
import pytest

from service.config import ServiceSettings
from tests.support.deployment.nginx import DEPLOYED, DeployedNginx, deployed_nginx
from tests.support.images.pngs import png
from tests.support.server.gallery_servers import gallery_server
from tests.support.server.jobs import wait_for
from tests.support.server.servers import Server, free_port

PNG: Final = {"Content-Type": "image/png"}
QUOTA: Final = 150  # requests a minute of one address; no test but one needs so many
CLIENTS: Final = 128  # requests of one address at once, as nginx.conf has it
MEMBERS: Final = {"type", "title", "status", "detail", "code", "request_id"}


@pytest.fixture(scope="module")
def server(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    options = ("--trusted-proxies", "127.0.0.1", "--requests-per-minute", str(QUOTA))
    slow = ("--body-timeout-s", "1", "--allowed-hosts", "127.0.0.1")
    with gallery_server(model, tmp_path_factory.mktemp("behind"), *options, *slow) as running:
        yield running


@pytest.fixture(scope="module")
def nginx(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[DeployedNginx]:
    folder = tmp_path_factory.mktemp("front") / "n"
    with deployed_nginx(folder, server.url.removeprefix("http://")) as running:
        yield running


def problem(answer: httpx.Response) -> str:
    """Return the code of a problem, which has all that the service's own have."""
    told = answer.json()
    assert answer.headers["content-type"] == "application/problem+json"
    assert set(told) == MEMBERS
    assert told["status"] == answer.status_code
    assert told["type"] == f"urn:lookalike:problem:{told['code']}"
    assert told["request_id"] == answer.headers["x-request-id"]
    return str(told["code"])


def requests_logged(nginx: DeployedNginx) -> list[dict[str, object]]:
    lines = nginx.log.read_text().splitlines()
    return [json.loads(line) for line in lines if line.startswith("{")]


def test_what_the_service_does_is_done_through_it(nginx: DeployedNginx) -> None:
    with nginx.client() as client:
        stored = client.put("/v1/items/through", content=png(1), headers=PNG)
        classified = client.post("/v1/classify", content=png(1), headers=PNG)
        found = client.post("/v1/search?k=1", content=png(1), headers=PNG)
        many = client.post("/v1/embed", files=[("image", png(n)) for n in range(20)])
        page = client.get("/")
        deleted = client.delete("/v1/items/through")

    assert stored.status_code == 201
    assert classified.json()["predictions"]
    assert found.json()["hits"][0]["score"] == pytest.approx(1, abs=1e-5)
    assert len(many.json()["results"]) == 20
    assert page.headers["content-type"].startswith("text/html")
    assert "max-age" in page.headers["strict-transport-security"]
    assert deleted.status_code == 200


def test_http_2_is_spoken(nginx: DeployedNginx, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png(1))
    command = ["curl", "--silent", "--http2", "--cacert", str(nginx.certificate), "--output"]
    command += [str(tmp_path / "answer"), "--write-out", "%{http_version} %{http_code}"]
    command += ["--form", f"image=@{tmp_path / 'a.png'}", f"{nginx.url}/v1/classify"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)

    assert done.stdout == "2 200"


def test_plain_http_is_sent_to_tls(nginx: DeployedNginx) -> None:
    answer = httpx.get(f"{nginx.plain_url}/v1/items?limit=3")

    assert answer.status_code == 308
    assert answer.headers["location"] == "https://127.0.0.1/v1/items?limit=3"
    spoken = httpx.get(nginx.url.replace("https", "http"))
    assert (spoken.status_code, problem(spoken)) == (400, "malformed_request")


@pytest.mark.parametrize(
    ("version", "spoken"),
    [
        (ssl.TLSVersion.TLSv1_1, False),
        (ssl.TLSVersion.TLSv1_2, True),
        (ssl.TLSVersion.TLSv1_3, True),
    ],
)
@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1")
def test_versions_of_tls(nginx: DeployedNginx, version: ssl.TLSVersion, spoken: bool) -> None:
    trust = nginx.trust
    trust.set_ciphers("ALL:@SECLEVEL=0")  # this side would say anything
    trust.minimum_version = trust.maximum_version = version
    where = urlsplit(nginx.url)
    with socket.create_connection((where.hostname, where.port), 30) as plain:
        try:
            with trust.wrap_socket(plain, server_hostname="127.0.0.1") as secured:
                name, _, bits = secured.cipher() or ("", "", 0)
        except (ssl.SSLError, ConnectionError):
            assert not spoken
        else:
            assert spoken
            assert re.search("GCM|CHACHA20", name)
            assert bits >= 128


@pytest.mark.parametrize(
    "path", ["/metrics", "/metrics?x", "//metrics", "/./metrics", "/%6Detrics", "/v1/../metrics"]
)
def test_metrics_are_not_for_the_public(nginx: DeployedNginx, path: str) -> None:
    with nginx.client() as client:
        request = client.build_request("GET", "/", headers={"Host": "127.0.0.1"})
        request.url = request.url.copy_with(raw_path=path.encode())
        answer = client.send(request)

    assert (answer.status_code, problem(answer)) == (404, "not_found")
    assert "lookalike_" not in answer.text


def test_a_body_that_is_too_large_is_refused_as_by_the_service(nginx: DeployedNginx) -> None:
    large = bytes(21 * 2**20)

    def chunks() -> Iterator[bytes]:
        for start in range(0, len(large), 2**20):
            yield large[start : start + 2**20]

    with nginx.client() as client:
        whole = client.post("/v1/classify", content=large, headers=PNG)
        in_chunks = client.post("/v1/classify", content=chunks(), headers=PNG)

    for answer in (whole, in_chunks):
        assert (answer.status_code, problem(answer)) == (413, "payload_too_large")


def test_one_that_is_just_not_too_large_passes(nginx: DeployedNginx) -> None:
    with nginx.client() as client:
        answer = client.post("/v1/classify", content=bytes(20 * 2**20), headers=PNG)

    assert (answer.status_code, problem(answer)) == (415, "unsupported_image_type")


def test_a_client_that_stops_in_the_middle_is_told_so_by_the_service(nginx: DeployedNginx) -> None:
    where = urlsplit(nginx.url)
    head = b"POST /v1/classify HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: image/png\r\n"
    with (
        socket.create_connection((where.hostname, where.port), 30) as plain,
        nginx.trust.wrap_socket(plain, server_hostname="127.0.0.1") as secured,
    ):
        secured.sendall(head + b"Content-Length: 5000\r\n\r\n" + png(1)[:100])
        answer = secured.recv(65536).decode()

    assert answer.startswith("HTTP/1.1 408 ")
    assert "request_timeout" in answer


def test_every_client_has_its_own_quota_and_cannot_take_that_of_others(
    nginx: DeployedNginx,
) -> None:
    with nginx.client("127.0.7.1") as greedy, nginx.client("127.0.7.2") as modest:
        claim = {"X-Forwarded-For": "127.0.7.2"}
        codes = [greedy.get("/v1/model", headers=claim).status_code for _ in range(QUOTA + 5)]
        refused = greedy.get("/v1/model", headers=claim)
        answer = modest.get("/v1/model?secret=1")

    assert codes.count(200) in range(QUOTA - 1, QUOTA + 1)
    assert problem(refused) == "too_many_requests"
    assert answer.status_code == 200
    wait_for(lambda: requests_logged(nginx)[-1]["client"] == "127.0.7.2")
    line = requests_logged(nginx)[-1]
    assert line["request_id"] == answer.json()["request_id"], "that of the service's log, too"
    assert (line["method"], line["path"], line["status"]) == ("GET", "/v1/model", 200)
    assert "secret" not in nginx.log.read_text()


def test_one_client_has_so_many_requests_at_once(nginx: DeployedNginx) -> None:
    where, trust = urlsplit(nginx.url), nginx.trust
    # Without a body they are not whole, and stay.
    begun = b"PUT /v1/items/a HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 9\r\n\r\n"
    held = []
    try:
        for _ in range(CLIENTS):
            one = socket.create_connection((where.hostname, where.port), 30, ("127.0.7.3", 0))
            held.append(trust.wrap_socket(one, server_hostname="127.0.0.1"))
        for connection in held:
            connection.sendall(begun)
        with nginx.client("127.0.7.3") as same, nginx.client("127.0.7.4") as other:
            answers = [same.get("/v1/model") for _ in range(3)]
            others = other.get("/v1/model")
    finally:
        for connection in held:
            connection.close()

    assert 429 in {answer.status_code for answer in answers}
    refused = next(answer for answer in answers if answer.status_code == 429)
    assert problem(refused) == "too_many_requests"
    assert refused.headers["retry-after"] == "1"
    assert others.status_code == 200


def test_a_service_that_is_not_there_is_a_problem_like_others(tmp_path: Path) -> None:
    with (
        deployed_nginx(tmp_path / "n", f"127.0.0.1:{free_port()}") as alone,
        alone.client() as client,
    ):
        answer = client.post("/v1/classify", content=png(1), headers=PNG)

    assert (answer.status_code, problem(answer)) == (502, "bad_gateway")
    assert answer.headers["retry-after"] == "5"


class Faithless(threading.Thread):
    """A service that answers the first request of a connection, and hangs up at the next."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listening.getsockname()[1]}"
        self.asked: list[str] = []

    def run(self) -> None:
        while True:
            try:
                connection, _ = self._listening.accept()
            except OSError:  # closed
                return
            for answers in (True, False):
                data = connection.recv(65536)
                if not data:
                    break
                self.asked.append(data.decode("latin-1").split(" HTTP")[0])
                if answers:
                    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
            connection.close()

    def close(self) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()


def test_no_request_is_sent_twice(tmp_path: Path) -> None:
    """By itself nginx sends again what it may have sent on a connection that was just closed."""
    service = Faithless()
    service.start()
    codes = []
    with deployed_nginx(tmp_path / "n", service.address) as proxied:
        for method in ("GET", "DELETE", "PUT", "POST"):
            content = png(1) if method in ("PUT", "POST") else None
            with proxied.client() as client:  # nginx may hang up after a 502
                codes.append(client.get(f"/{method}/before").status_code)
                codes.append(client.request(method, f"/{method}", content=content).status_code)
    service.close()

    assert codes == [200, 502] * 4
    assert len(service.asked) == len(set(service.asked)) == 8


def test_its_limits_are_those_of_the_service() -> None:
    lines = "\n".join((DEPLOYED / name).read_text() for name in ("nginx.conf", "proxy.conf"))
    limits = dict(re.findall(r"^(?: {4})?(\w+) (\d+)[sm]?;", lines, re.MULTILINE))
    defaults = {name: field.default for name, field in ServiceSettings.model_fields.items()}

    assert int(limits["client_max_body_size"]) * 2**20 == defaults["max_body_bytes"]
    assert f"{limits['client_max_body_size']} MiB" in (DEPLOYED / "problems.conf").read_text()
    assert int(limits["client_header_timeout"]) == defaults["header_timeout_s"]
    assert int(limits["client_body_timeout"]) > defaults["body_timeout_s"]
    assert int(limits["send_timeout"]) == defaults["answer_timeout_s"]
    assert int(limits["proxy_read_timeout"]) > defaults["request_timeout_s"]
    upstream = lines.split("upstream lookalike {")[1].split("}")[0]
    (kept,) = re.findall(r"keepalive_timeout (\d+)s", upstream)
    assert int(kept) < defaults["keep_alive_s"]
    assert int(re.findall(r"limit_conn clients (\d+)", lines)[0]) == CLIENTS
