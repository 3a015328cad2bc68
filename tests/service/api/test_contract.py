"""What must never be reachable: unpickling, fetching, BentoML's own routes, ports but the one.

Everything here is asked of a real server over real sockets, so a new version of BentoML that opens
something again fails here.
"""

import base64
import importlib.metadata
import itertools
import json
import os
import pickle
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from tests.support.images.pngs import png
from tests.support.server.servers import ROOT, Server, children, clean_environment

BENTOML = "1.4.39"
PICKLE = "application/vnd.bentoml+pickle"
PICKLE_TYPES = [
    PICKLE,
    PICKLE.upper(),
    f"{PICKLE}; charset=utf-8",
    f"{PICKLE};",
    f"application/json, {PICKLE}",
    f"{PICKLE}, application/json",
    "application/x-pickle",
    "application/python-pickle",
    "application/octet-stream",
    "image/png",
    "image/vnd.bentoml+pickle",
    "application/json",
    "application/x-www-form-urlencoded",
    "multipart/form-data; boundary=x",
    "application/vnd.bentoml.v1+pickle",
    "",
]
BENTOML_PATHS = [
    *("/schema.json", "/docs.json", "/healthz", "/metrics.json", "/is_ready", "/ui", "/debug"),
    *("/static_content/swagger-ui.css", "/static_content/", "/assets/", "/assets/index.html"),
    *("//schema.json", "/./docs.json", "/v1/../docs.json", "/docs.json/", "/DOCS.JSON"),
    *("/Lookalike", "/lookalike", "/start", "/stop", "/supervise", "/api/v1/tasks", "/task"),
]


class Touch:
    """Unpickled, it writes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.path}",)


@pytest.fixture(scope="module")
def routes(client: httpx.Client) -> list[tuple[str, str]]:
    """All methods and paths of the contract, with names that nobody has filled in."""
    paths = client.get("/openapi.json").json()["paths"]
    return [
        (method.upper(), re.sub(r"\{\w+\}", "contract", path))
        for path, methods in paths.items()
        for method in methods
    ]


def test_routes_are_grouped_under_words_for_readers(client: httpx.Client) -> None:
    """They are the headings of /docs: no names of classes."""
    paths = client.get("/openapi.json").json()["paths"]
    operations = [operation for methods in paths.values() for operation in methods.values()]

    assert {tag for operation in operations for tag in operation["tags"]} == {
        *("Queries", "Items", "Jobs", "Service")
    }
    for operation in operations:
        assert not re.search(r"[a-z][A-Z]", operation["summary"].replace("OpenAPI", "")), operation


def test_bentoml_is_the_version_that_was_looked_through() -> None:
    assert importlib.metadata.version("bentoml") == BENTOML, (
        "BentoML changed: see that service/server/bento_supervisor.py still closes its control "
        "ports and service/server/bento_hardening.py its pickles, that service/request/gateway.py "
        "still stands before its routes, and run this whole file; "
        "read the notes on deserialisation and file downloads of the releases in between"
    )


@pytest.mark.parametrize("content_type", PICKLE_TYPES)
def test_no_route_unpickles(
    server: Server,
    client: httpx.Client,
    routes: list[tuple[str, str]],
    tmp_path: Path,
    content_type: str,
) -> None:
    canary = tmp_path / "canary"
    body = pickle.dumps(Touch(canary))
    bentoml_routes = [("POST", path) for path in BENTOML_PATHS]
    for (method, path), extra in itertools.product(
        [*routes, *bentoml_routes, ("POST", "/")], [{}, {"Payload-Buffer-Lengths": str(len(body))}]
    ):
        headers = {"Content-Type": content_type, "Buffer-Lengths": str(len(body)), **extra}
        answer = client.request(method, server.url + path, content=body, headers=headers)

        takes_a_body = method in ("POST", "PUT")
        assert answer.status_code < 500, (method, path, answer.text)
        assert answer.is_client_error or not takes_a_body, (method, path, answer.text)
        if takes_a_body and content_type == PICKLE and (method, path) in routes:
            assert answer.status_code == 415, (method, path, answer.text)
        assert not canary.exists(), (method, path)

    pickle.loads(body)
    assert canary.exists(), "the payload is harmless, so this test could not have failed"


def test_a_worker_cannot_unpickle_even_if_a_request_reached_bentoml(tmp_path: Path) -> None:
    body = pickle.dumps(Touch(tmp_path / "canary"))
    program = (
        "import sys; from _bentoml_impl import serde; from bentoml.exceptions import *\n"
        "from service.server.bento_hardening import refuse_pickles\n"
        "kind = serde.ALL_SERDE['application/vnd.bentoml+pickle']\n"
        "refuse_pickles()\n"
        "assert 'application/vnd.bentoml+pickle' not in serde.ALL_SERDE\n"
        "try: kind().deserialize_value(serde.Payload([sys.stdin.buffer.read()], {}))\n"
        "except BentoMLException as error: print(int(error.error_code))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        input=body,
        cwd=ROOT,
        env=clean_environment(),
        capture_output=True,
        check=False,
    )

    assert done.stdout.strip() == b"415", done.stderr
    assert not (tmp_path / "canary").exists()


@contextmanager
def canary_server() -> Iterator[tuple[int, list[bytes]]]:
    """A server that answers everybody with a picture, and remembers who came."""
    visits: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:  # closed
                    return
                with connection:
                    visits.append(connection.recv(4096))
                    head = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n"
                    connection.sendall(head + png(1))

        thread = threading.Thread(target=serve)
        thread.start()
        yield listener.getsockname()[1], visits
        listener.shutdown(socket.SHUT_RDWR)
    thread.join()


def test_nothing_is_ever_fetched(client: httpx.Client, routes: list[tuple[str, str]]) -> None:
    with canary_server() as (port, visits):
        stored = []
        for url in _addresses(port):
            for method, path, sent in _requests(url):
                answer = client.request(method, path, **sent)
                assert answer.status_code < 500, (method, path, answer.text)
                if method == "PUT" and answer.is_success:
                    stored.append(path.partition("?")[0])
            for method, path in routes:
                everywhere = dict.fromkeys(("Referer", "X-Forwarded-Host", "Location"), url)
                name = quote(url, safe="")
                answer = client.request(
                    method, f"{path}?url={name}&image={name}&callback={name}", headers=everywhere
                )
                assert answer.status_code < 500, (method, path, answer.text)
        for path in set(stored):
            client.delete(path)
        assert visits == []

        with httpx.Client() as control:
            assert control.get(f"http://127.0.0.1:{port}/").is_success
        assert len(visits) == 1, "the canary hears nobody, so this test could not have failed"


def _addresses(port: int) -> list[str]:
    hosts = ["127.0.0.1", "localhost", "127.1", "[::ffff:127.0.0.1]", "0.0.0.0", "2130706433"]
    urls = [f"http://{host}:{port}/x.png" for host in hosts]
    return [*urls, f"HTTPS://127.0.0.1:{port}/x.png", f"//127.0.0.1:{port}/x", "file:///etc/passwd"]


def _requests(url: str) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield requests that carry ``url`` in every place that takes something."""
    svg = f'<svg xmlns="http://www.w3.org/2000/svg"><image href="{url}"/></svg>'
    xml = f'<!DOCTYPE x [<!ENTITY e SYSTEM "{url}">]><x>&e;</x>'
    texts = [url, svg, xml, f"data:text/uri-list,{url}", f"data:image/svg+xml,{quote(svg)}"]
    encoded = base64.b64encode(svg.encode()).decode()
    texts += [f"data:image/svg+xml;base64,{encoded}", encoded, f"url:{url}", f"\n{url}\n"]
    picture = base64.b64encode(png(3)).decode()
    takers = ["/v1/classify", "/v1/embed", "/v1/search", "/v1/search/range", "/v1/search/vote"]
    for path, text in itertools.product(takers, texts):
        yield "POST", path, {"json": {"image": text}}
        yield "POST", path, {"json": {"images": [text]}}
        yield "POST", path, {"json": {"id": text}}
        yield "POST", path, {"data": {"image": text}}
        yield "POST", path, {"files": {"image": (text, text.encode(), "image/png")}}
        yield "POST", path, {"files": {"image": (None, text)}}
        for kind in ("image/png", "image/svg+xml", "text/uri-list", "application/octet-stream"):
            yield "POST", path, {"content": text.encode(), "headers": {"Content-Type": kind}}
    for text in texts:
        item = {"id": "contract-url", "image": text}
        yield "POST", "/v1/items", {"json": {"items": [item]}}
        yield "PUT", "/v1/items/contract-url", {"json": {"image": text}}
        labelled = {"image": picture, "label": text, "metadata": {"url": text, "image": url}}
        yield "PUT", "/v1/items/contract-url", {"json": labelled}
        yield "POST", "/v1/jobs", {"json": {"kind": "backup", "name": text}}
        condition = {"must": [{"key": "url", "match": text}]}
        yield "POST", "/v1/search", {"json": {"id": "item-00", "filter": condition}}


@pytest.mark.parametrize("path", BENTOML_PATHS)
def test_no_route_of_bentoml_is_there(server: Server, path: str) -> None:
    for method in ("GET", "POST", "OPTIONS"):
        answer = httpx.request(method, server.url + path, timeout=30)
        assert answer.status_code == 404, (method, answer.text)
        assert answer.json()["code"] == "not_found"


def test_a_web_socket_is_refused(server: Server) -> None:
    where = ("127.0.0.1", int(server.url.rpartition(":")[2]))
    for path in ("/", "/v1/search", "/docs"):
        with socket.create_connection(where, timeout=20) as asking:
            asking.sendall(
                f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\n".encode()
                + b"Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
                + b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
            )
            status = asking.recv(4096).split(b" ")[1]
        assert status != b"101", path
        assert not status.startswith(b"5"), path


# Sockets


def family(pid: int) -> Iterator[int]:
    yield pid
    for child in children(pid):
        yield from family(child)


def sockets_of(pid: int) -> set[str]:
    """Return the inodes of a process's sockets."""
    found = set()
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        try:
            target = os.readlink(entry)
        except FileNotFoundError:  # closed meanwhile
            continue
        if target.startswith("socket:["):
            found.add(target[8:-1])
    return found


def internet_sockets(pid: int) -> list[tuple[str, bool, str, str]]:
    """Return kind, whether it listens, and both addresses of the internet sockets of a server."""
    inodes = set().union(*(sockets_of(member) for member in family(pid)))
    found = []
    for kind in ("tcp", "tcp6", "udp", "udp6", "raw", "raw6", "icmp", "icmp6"):
        table = Path(f"/proc/{pid}/net/{kind}")
        for line in table.read_text().splitlines()[1:] if table.exists() else ():
            fields = line.split()
            if fields[9] in inodes:
                found.append((kind, fields[3] == "0A", _address(fields[1]), _address(fields[2])))
    return found


def _address(text: str) -> str:
    """Return `host:port` of the kernel's notation: words of four bytes, each turned round."""
    host, _, port = text.partition(":")
    words = [bytes.fromhex(host[start : start + 8])[::-1] for start in range(0, len(host), 8)]
    packed = b"".join(words)
    kind = socket.AF_INET if len(packed) == 4 else socket.AF_INET6
    return f"{socket.inet_ntop(kind, packed)}:{int(port, 16)}"


def test_one_port_is_open_the_one_that_was_asked_for(server: Server) -> None:
    found = internet_sockets(server.process.pid)

    listening = {(kind, address) for kind, listens, address, _ in found if listens}
    assert listening == {("tcp", server.url.removeprefix("http://"))}
    assert [one for one in found if not one[0].startswith("tcp")] == []


def test_no_local_socket_takes_orders_either(server: Server) -> None:
    inodes = set().union(*(sockets_of(member) for member in family(server.process.pid)))
    listens = 0x10000  # __SO_ACCEPTCON
    lines = [line.split() for line in Path("/proc/net/unix").read_text().splitlines()[1:]]

    assert [line for line in lines if line[6] in inodes and int(line[3], 16) & listens] == []


def test_no_connection_goes_out(server: Server) -> None:
    """Looked at all the time while every kind of work is done."""
    ended = threading.Event()
    seen: set[tuple[str, str]] = set()

    def watch() -> None:
        while not ended.is_set():
            seen.update((own, peer) for _, _, own, peer in internet_sockets(server.process.pid))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        with server.client() as client:
            for path in ("/", "/docs", "/docs/swagger-ui-bundle.js", "/metrics", "/openapi.json"):
                assert client.get(path).is_success
            for number in range(30):
                picture = {"content": png(number), "headers": {"Content-Type": "image/png"}}
                assert client.post("/v1/search", **picture).is_success  # type: ignore[arg-type]
            job = client.post("/v1/jobs", json={"kind": "duplicates", "min_score": 0.5}).json()
            while client.get(f"/v1/jobs/{job['id']}").json()["state"] in ("queued", "running"):
                pass
    finally:
        ended.set()
        watcher.join()

    own = server.url.removeprefix("http://")
    assert any(peer.startswith("127.0.0.1:") and here == own for here, peer in seen), "saw nothing"
    assert {here for here, _ in seen} == {own}, "a socket that is not of a client of ours"


def test_usage_is_not_reported(server: Server) -> None:
    """Workers get the environment of the supervisor, whose own the kernel shows as it began."""
    for pid in server.workers():
        environment = Path(f"/proc/{pid}/environ").read_text().split("\0")
        assert "BENTOML_DO_NOT_TRACK=True" in environment


def test_the_supervisor_cannot_be_made_to_open_its_control_port() -> None:
    """`bentoml serve --reload` would need it, so that is refused."""
    program = (
        "from service.server.bento_supervisor import adapt_supervisor\n"
        "from bentoml._internal.utils.circus import create_standalone_arbiter\n"
        "adapt_supervisor('a', None)\n"
        "arbiter = create_standalone_arbiter([])\n"
        "print(arbiter.endpoint, arbiter.ctrl.endpoint, arbiter.pubsub_endpoint)\n"
        "create_standalone_arbiter([], plugins=[{'use': 'x'}])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env=clean_environment(),
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.stdout.split() == ["inproc://control", "inproc://control", "inproc://events"]
    assert "--reload needs a control port" in done.stderr


def test_the_log_has_no_trace_of_an_error(server: Server) -> None:
    """Last in this file: what was sent above is the clients' fault, and never ours."""
    lines = [line for line in server.log.read_text().splitlines() if line.startswith("{")]

    assert [line for line in map(json.loads, lines) if line["level"] == "error"] == []
