"""Ambiguous requests: a real nginx and the service agree on how many they were, and on whose.

nginx keeps one connection to the service, so that an answer too many or too few would be handed to
whoever asks next. All is sent first, one after the other, and judged then.
"""

import asyncio
import json
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol
from urllib.parse import urlsplit

import httpx
import pytest

from tests.support.cases import wire
from tests.support.cases.smuggling import CASES, HIDDEN, LAST, Ambiguous, Outcome
from tests.support.deployment.nginx import running_nginx
from tests.support.server.servers import Server, free_port

# What nginx does with a body that is not all there, and with names that are none.
WAYS: Final = {
    "held": "",
    "passed on": "proxy_request_buffering off; ignore_invalid_headers off; "
    "underscores_in_headers on;",
}
HTTP: Final = """
    upstream service {{ server {where}; keepalive 1; }}
    map $http_x_request_id $id {{ ~^after- $http_x_request_id; default $request_id; }}
    log_format seen '$remote_addr|$upstream_addr|$id';
    proxy_http_version 1.1; proxy_set_header Connection ""; proxy_set_header X-Request-ID $id;
    proxy_next_upstream off; proxy_max_temp_file_size 0; add_header X-Front $id always;
    server {{ listen 127.0.0.1:{port}; {lines} }}
"""
LINES: Final = "access_log {log} seen; location / {{ proxy_pass http://service; }}"
PATIENCE_S: Final = 20.0
ANSWER: Final = re.compile(rb"HTTP/1\.1 ([2-5]\d\d) [^\r]*\r\n(.*?)\r\n\r\n", re.DOTALL)
FRONTED: Final = {
    f"{case.name}, {way}": (way, case)
    for way in WAYS
    for case in CASES
    if case.reaches or way == "passed on"
}
ELSEWHERE: Final = {case.name for case in wire.CASES}


class Upstream(Protocol):
    """What nginx asks."""

    @property
    def url(self) -> str:
        """Return where it listens."""

    def asked(self) -> list[str]:
        """Return the ids of the requests that it took, in their order."""


@dataclass(frozen=True)
class Logged:
    """The service, and what it has logged since."""

    url: str
    log: Path
    since: int  # bytes

    def asked(self) -> list[str]:
        whole, _, _ = self.log.read_bytes()[self.since :].rpartition(b"\n")
        lines = (json.loads(line) for line in whole.splitlines() if b"lookalike.request" in line)
        return [line["request_id"] for line in lines]


@dataclass
class Exchange:
    """What came of one case: its answers, somebody else's after it, and who was asked what."""

    said: bytes
    after: httpx.Response
    passed: list[str] = field(default_factory=list)  # ids of what nginx sent to the service
    taken: list[str] = field(default_factory=list)  # of these, what the service took
    strays: list[str] = field(default_factory=list)  # ids of what it took and nginx never sent


def answers(said: bytes) -> list[tuple[int, dict[str, str]]]:
    """Return the status and headers of each answer but those of 1xx."""
    return [
        (int(status), dict(line.lower().split(": ", 1) for line in head.decode().split("\r\n")))
        for status, head in ANSWER.findall(said)
    ]


def outcome(said: bytes) -> Outcome:
    return tuple(status for status, _ in answers(said))


def send(url: str, case: Ambiguous, client_address: str = "127.0.0.1") -> bytes:
    """Send a case from this address; return all that is said until the connection ends."""
    where = urlsplit(url)
    address = str(where.hostname), where.port
    said = b""
    with socket.create_connection(address, PATIENCE_S, (client_address, 0)) as client:
        try:
            client.sendall(case.sent if case.is_cut else case.sent + HIDDEN + LAST)
            if case.is_cut:
                client.shutdown(socket.SHUT_WR)
            while piece := client.recv(65536):
                said += piece
        except ConnectionError:  # closed with our bytes unread; what was said before is here
            pass
    return said


def converse(
    upstream: Upstream, folder: Path, fronted: Sequence[tuple[str, Ambiguous]]
) -> list[Exchange]:
    """Run nginx before ``upstream``, send it each of these cases, and tell what came of them."""
    log, port, where = folder / "seen", free_port(), urlsplit(upstream.url).netloc
    lines = LINES.format(log=log)
    http = HTTP.format(where=where, port=port, lines=WAYS["passed on"] + lines)
    with running_nginx(folder / "nginx", lines, http=http) as held, httpx.Client() as somebody:
        urls = {"held": held, "passed on": f"http://127.0.0.1:{port}"}
        exchanges, clients = [], []
        for number, (way, case) in enumerate(fronted):
            clients.append(f"127.1.{number // 250}.{number % 250 + 1}")  # nobody else has it
            said = send(urls[way], case, clients[-1])
            path, mark = f"/v1/items/item-{number % 40:02d}", {"X-Request-ID": f"after-{number}"}
            exchanges.append(Exchange(said, somebody.get(urls[way] + path, headers=mark)))
        told = [head["x-front"] for each in exchanges for _, head in answers(each.said)]
        told += [each.after.headers["x-front"] for each in exchanges]
        _wait_until(lambda: set(told) <= set(re.findall(r"\|([^|]+)\n", log.read_text())))
    seen = [line.split("|") for line in log.read_text().splitlines()]
    passed = {id_: client for client, address, id_ in seen if address != "-"}
    _wait_until(lambda: passed.keys() <= set(upstream.asked()))
    asked = upstream.asked()
    for exchange, client in zip(exchanges, clients, strict=True):
        exchange.passed = [id_ for id_, by in passed.items() if by == client]
        exchange.taken = [id_ for id_ in asked if id_ in exchange.passed]
    current = iter(exchanges)
    exchange = next(current)
    for id_ in asked:
        if id_ not in passed:
            exchange.strays.append(id_)
        elif id_ == exchange.after.headers["x-front"]:
            exchange = next(current, exchange)
    return exchanges


def _wait_until(check: Callable[[], bool]) -> None:
    """Wait until it is so, or PATIENCE_S have passed: who goes on finds out what is missing."""
    deadline = time.monotonic() + PATIENCE_S
    while not check() and time.monotonic() < deadline:
        time.sleep(0.01)


def judge(exchange: Exchange) -> None:
    """Check that everybody got his own answers, and that nothing else was answered."""
    assert exchange.strays == []
    assert exchange.taken == exchange.passed
    for _, head in answers(exchange.said):
        assert head.get("x-request-id", head["x-front"]) == head["x-front"]
    asked, told = exchange.after.request, exchange.after
    assert told.headers["x-request-id"] == asked.headers["x-request-id"]
    assert told.json()["id"] == asked.url.path.rpartition("/")[-1]


@pytest.fixture(scope="module")
def exchanges(server: Server, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Exchange]:
    upstream = Logged(server.url, server.log, server.log.stat().st_size)
    told = converse(upstream, tmp_path_factory.mktemp("front"), list(FRONTED.values()))
    return dict(zip(FRONTED, told, strict=True))


@pytest.mark.parametrize("name", FRONTED)
def test_nginx_and_the_service_see_the_same_requests(
    exchanges: dict[str, Exchange], name: str
) -> None:
    way, case = FRONTED[name]

    judge(exchanges[name])
    assert outcome(exchanges[name].said) == case.fronted
    if way == "passed on":
        assert bool(exchanges[name].passed) == case.reaches


def test_enough_reaches_the_service() -> None:
    assert sum(case.reaches for case in CASES) >= 50


@pytest.mark.parametrize(
    "case", [pytest.param(case, id=case.name) for case in CASES if case.name not in ELSEWHERE]
)
def test_the_service_itself_takes_a_request_for_one(server: Server, case: Ambiguous) -> None:
    said = send(server.url, case)

    assert outcome(said) == case.direct
    ids = [head["x-request-id"] for _, head in answers(said)]
    followed = case.direct.count(200) - (case.direct[0] == 200) if case.direct else 0
    assert ids[1:] == ["hidden", "last"][2 - followed :] + ids[1 + followed :]
    assert not {"hidden", "last"} & {*ids[:1], *ids[1 + followed :]}


@dataclass
class Stub:
    """A server that answers all, and forgets where the requests end that ``forgets`` names."""

    forgets: str | None
    url: str = ""
    ids: list[str] = field(default_factory=list)

    def asked(self) -> list[str]:
        return list(self.ids)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                method, path, _ = head.split(" ", 2)
                fields = dict(line.lower().split(": ", 1) for line in head.split("\r\n")[1:-2])
                if method != self.forgets:
                    await reader.readexactly(int(fields.get("content-length", 0)))
                    if "transfer-encoding" in fields:
                        await reader.readuntil(b"0\r\n\r\n")
                self.ids.append(fields["x-request-id"])
                body = json.dumps({"id": path.rpartition("/")[-1]})
                head = f"X-Request-ID: {self.ids[-1]}\r\nContent-Length: {len(body)}\r\n\r\n"
                writer.write(f"HTTP/1.1 200 OK\r\n{head}{body}".encode())
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()


@contextmanager
def running_stub(forgets: str | None) -> Iterator[Stub]:
    stub, ready, loop = Stub(forgets), threading.Event(), asyncio.new_event_loop()

    async def listen() -> None:
        server = await asyncio.start_server(stub.serve, "127.0.0.1", 0)
        stub.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        ready.set()

    def run() -> None:
        loop.run_until_complete(listen())
        loop.run_forever()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    ready.wait()
    try:
        yield stub
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()


FORGETFUL: Final = {
    "a length of GET": "GET",
    "a request behind a body that nobody reads": "POST",
    "chunks that hold a request": "POST",
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", FORGETFUL)
def test_a_server_that_forgets_where_a_request_ends_is_found(
    tmp_path: Path, name: str, way: str
) -> None:
    case = next(case for case in CASES if case.name == name)
    with running_stub(None) as stub:
        (exchange,) = converse(stub, tmp_path / "honest", [(way, case)])
    judge(exchange)
    with running_stub(FORGETFUL[name]) as stub:
        (exchange,) = converse(stub, tmp_path / "forgetful", [(way, case)])
    with pytest.raises(AssertionError):
        judge(exchange)
