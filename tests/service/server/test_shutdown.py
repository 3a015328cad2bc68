"""SIGTERM while hundreds of requests are in flight: all are answered, then it ends with 0."""

import asyncio
import os
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.images.pngs import encoded, picture
from tests.support.server.gallery_servers import gallery_server
from tests.support.server.hostile.unsafe_server import unsafe_server
from tests.support.server.load_generator import Client, Connection, Reply, request_bytes, run
from tests.support.server.servers import Server, running_server, wait_until_ready
from tests.support.server.targets_table import Target, missed, print_table

PHOTO = encoded(picture(7, (400, 300)), "JPEG")
CLASSIFY = request_bytes("POST", "/v1/classify", PHOTO, Content_Type="image/jpeg")
HEAD_AND_HALF = len(CLASSIFY) - len(PHOTO) // 2
# Connections on which, at the signal, a whole request was just sent, half of one was, or one
# request follows the other; and those on which nothing happens after the first answer.
WHOLE, HALF, LANES, IDLE = 120, 120, 16, 30
TURN_LANES = 24  # with kept connections, and as many with new ones
GRACE_S = 30.0
PATIENT = ("--max-wait-s", "60")  # none is refused, so none may fail


@dataclass(frozen=True)
class Stop:
    """What became of a server that was told to stop, and of everybody connected to it."""

    in_flight: list[Reply]  # requests begun before the signal and not answered by then
    late: list[Reply]  # requests sent after the signal
    idle_open: int  # kept-alive connections that were still open at the end
    exit_code: int
    seconds: float  # from the signal to its end

    @property
    def failed(self) -> Counter[int]:
        """How many of those in flight were not answered with 200, by status."""
        return Counter(reply.status for reply in self.in_flight if reply.status != 200)


def stop_under_load(server: Server) -> Stop:
    """Send SIGTERM when many requests are in flight: just sent, half sent, or being worked on."""

    async def measure() -> Stop:
        loop = asyncio.get_running_loop()
        async with Client(server.url) as client, Client(server.url) as late_client:
            half, whole = await client.open(HALF), await client.open(WHOLE)
            idle, lanes = await client.open(IDLE), await client.open(LANES)
            for connection in (*idle, *whole):
                assert (await greeting(connection)).status == 200
            halves = [Reply(meant=loop.time()) for _ in half]
            tasks = [
                asyncio.create_task(one.exchange(CLASSIFY, reply, pause=(HEAD_AND_HALF, 1.5)))
                for one, reply in zip(half, halves, strict=True)
            ]
            laned: list[Reply] = []
            tasks += [asyncio.create_task(lane(one, laned)) for one in lanes]
            await asyncio.sleep(0.5)  # the server knows of these
            wholes = [Reply(meant=loop.time()) for _ in whole]
            tasks += [
                asyncio.create_task(one.exchange(CLASSIFY, reply))
                for one, reply in zip(whole, wholes, strict=True)
            ]
            await asyncio.sleep(0.01)  # all are sent, few are answered
            signalled = loop.time()
            server.process.send_signal(signal.SIGTERM)
            await asyncio.sleep(0.5)
            late = [await late_client.request(CLASSIFY) for _ in range(5)]
            await asyncio.gather(*tasks)
            code = await loop.run_in_executor(None, server.process.wait, GRACE_S + 10)
            seconds = loop.time() - signalled
            begun = [reply for reply in (*halves, *wholes, *laned) if reply.sent <= signalled]
            late += [reply for reply in laned if reply.sent > signalled]
            in_flight = [reply for reply in begun if reply.ended > signalled]
            return Stop(in_flight, late, sum(one.usable for one in idle), code, seconds)

    return run(measure())


async def greeting(connection: Connection) -> Reply:
    """Return the answer to a first request."""
    reply = Reply(meant=asyncio.get_running_loop().time())
    await connection.exchange(CLASSIFY, reply)
    return reply


async def lane(connection: Connection, replies: list[Reply]) -> None:
    """Send one request after the other until the server closes the connection."""
    while connection.usable:
        replies.append(await greeting(connection))


@pytest.fixture
def stopped(model: Path, tmp_path: Path) -> Stop:
    """What became of a server with a small model, whose queue has room for all."""
    with gallery_server(model, tmp_path, *PATIENT) as server:
        return stop_under_load(server)


def test_all_requests_in_flight_are_answered_when_it_is_told_to_stop(stopped: Stop) -> None:
    assert len(stopped.in_flight) >= 200
    assert stopped.failed == Counter()
    assert stopped.idle_open == 0
    assert {reply.status for reply in stopped.late} <= {0, 200, 503}
    assert stopped.seconds < GRACE_S
    assert stopped.exit_code == 0


@pytest.mark.load
def test_ten_stops_under_load_fail_no_request(model: Path, tmp_path: Path) -> None:
    stops = []
    for number in range(10):
        folder = tmp_path / str(number)
        folder.mkdir()
        with running_server(model, folder / "gallery", folder / "log", *PATIENT) as server:
            stops.append(stop_under_load(server))
    targets = [
        Target("stops", "", len(stops)),
        Target("least in flight", "requests", min(len(s.in_flight) for s in stops), at_least=200),
        Target("failed, of all", "requests", sum(s.failed.total() for s in stops), at_most=0),
        Target("sent after the signal", "requests", sum(len(s.late) for s in stops)),
        Target("idle connections left", "", sum(s.idle_open for s in stops), at_most=0),
        Target("exit codes other than 0", "", sum(s.exit_code != 0 for s in stops), at_most=0),
        Target("longest stop", "s", max(s.seconds for s in stops), at_most=GRACE_S),
    ]

    print_table("SIGTERM under load", targets)
    assert missed(targets) == []


@pytest.mark.load
def test_the_stop_would_show_a_server_that_drops_what_it_has(tmp_path: Path) -> None:
    with unsafe_server(tmp_path / "log") as server:
        seen = stop_under_load(server)

    assert seen.failed.total() > 0


@dataclass(frozen=True)
class Turn:
    """What clients saw while a server, or one of its workers, was told to end."""

    replies: list[Reply]
    refused: int  # attempts to connect
    closing: int  # answers that said that their connection ends

    @property
    def lost(self) -> list[Reply]:
        """Requests that were sent on an open connection and not answered with 200."""
        return [reply for reply in self.replies if reply.status != 200]


def turn(server: Server, pid: int, *, until: Callable[[], bool]) -> Turn:
    """Send requests, on kept and on new connections, while ``pid`` is told to end."""

    async def measure() -> Turn:
        loop = asyncio.get_running_loop()
        replies: list[Reply] = []
        refused = 0
        over = asyncio.Event()

        async def lane(*, keep: bool) -> None:
            nonlocal refused
            async with Client(server.url) as client:
                connection = None
                while not over.is_set():
                    try:
                        if connection is None or not connection.usable:
                            (connection,) = await client.open(1)
                    except ConnectionRefusedError:
                        refused += 1
                        await asyncio.sleep(0.01)
                        continue
                    replies.append(await greeting(connection))
                    if not keep:
                        connection.close()
                    await asyncio.sleep(0.005)

        lanes = [asyncio.create_task(lane(keep=keep)) for keep in [True, False] * TURN_LANES]
        await asyncio.sleep(0.5)
        os.kill(pid, signal.SIGTERM)
        deadline = loop.time() + GRACE_S
        while not until():
            assert loop.time() < deadline, server.log.read_text()
            await asyncio.sleep(0.02)
        over.set()
        await asyncio.gather(*lanes)
        closing = [one for one in replies if one.headers.get("connection") == "close"]
        return Turn(replies, refused, len(closing))

    return run(measure())


@pytest.fixture(scope="module")
def pair(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server of two workers."""
    folder = tmp_path_factory.mktemp("pair")
    options = ("--workers", "2", *PATIENT)
    with running_server(model, folder / "gallery", folder / "log", *options) as server:
        yield server


def test_a_worker_that_is_told_to_end_under_load_loses_no_request(pair: Server) -> None:
    victim, other = pair.workers()

    seen = turn(pair, victim, until=lambda: len({*pair.workers()} - {victim, other}) == 1)

    assert seen.lost == []
    assert seen.refused == 0
    assert seen.closing > 0
    assert len(seen.replies) > 100


def test_a_server_that_is_told_to_end_under_load_loses_no_request(pair: Server) -> None:
    wait_until_ready(pair)

    seen = turn(pair, pair.process.pid, until=lambda: pair.process.poll() is not None)

    assert seen.lost == []
    assert seen.refused > 0
    assert seen.closing > 0
    assert pair.process.returncode == 0
