"""One of two workers is killed: the other goes on, and a new one takes its place."""

import asyncio
import contextlib
import fcntl
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from files.module_command import module_command
from service.server.ready_workers import ReadyWorkers
from service.telemetry.health import ServerReadiness
from service.telemetry.shared_metrics import shared_folder, started_ticks
from tests.service.jobs.test_jobs import begin, rebuilding, wait_for
from tests.support.fakes import clustered_vectors
from tests.support.galleries.small_galleries import write_vectors
from tests.support.images.pngs import png
from tests.support.processes import family
from tests.support.server.load_generator import Client, Reply, request_bytes, run
from tests.support.server.servers import (
    ROOT,
    Server,
    clean_environment,
    free_port,
    running_server,
    serve_command,
)
from tests.support.server.targets_table import Target, missed, print_table

PNG = {"Content-Type": "image/png"}
LIVEZ, READYZ = (request_bytes("GET", path) for path in ("/livez", "/readyz"))
CLASSIFY = request_bytes("POST", "/v1/classify", png(7), Content_Type="image/png")
LANES, PAUSE_S = 4, 0.1  # leaves the new worker the time to load
AFTERWARDS_S = 3.0  # how long it is watched once the new worker is there
REPLACED_S = 60.0
ENDED_S = 5.0  # a second on a machine with nothing else to do


@dataclass(frozen=True)
class Kill:
    """What clients saw of it."""

    killed: float  # when, on the clock of the replies
    replaced_s: float  # until two workers could answer
    replies: list[Reply]

    @property
    def broken(self) -> list[Reply]:
        """Requests that the killed worker had, or was just being sent."""
        return [reply for reply in self.replies if reply.status == 0]

    @property
    def failed(self) -> Counter[int]:
        """Answers other than 200."""
        return Counter(r.status for r in self.replies if r.status not in (0, 200))


def start_lanes(url: str, over: asyncio.Event, replies: list[Reply]) -> list[asyncio.Task[None]]:
    """Ask until ``over`` is set: by connections that stay, and by new ones."""

    async def keep() -> None:
        async with Client(url) as client:
            while not over.is_set():
                replies.append(await client.request(CLASSIFY))
                await asyncio.sleep(PAUSE_S)

    async def come_anew() -> None:
        while not over.is_set():
            async with Client(url) as client:
                replies.append(await client.request(CLASSIFY))
            await asyncio.sleep(PAUSE_S)

    return [asyncio.create_task(lane()) for lane in [keep, come_anew] * LANES]


def kill_one(server: Server, ready_workers: ReadyWorkers) -> Kill:
    """Send requests, on kept and on new connections, while one worker of two is killed."""

    async def measure() -> Kill:
        loop = asyncio.get_running_loop()
        replies: list[Reply] = []
        over = asyncio.Event()

        lanes = start_lanes(server.url, over, replies)
        await asyncio.sleep(1)
        victim = server.workers()[0]
        killed = loop.time()
        os.kill(victim, signal.SIGKILL)
        while len(ready_workers.pids() - {victim}) < 2:
            await asyncio.sleep(0.05)
            assert loop.time() < killed + REPLACED_S, "nobody took its place"
        replaced_s = loop.time() - killed
        await asyncio.sleep(AFTERWARDS_S)
        over.set()
        await asyncio.gather(*lanes)
        return Kill(killed, replaced_s, replies)

    return run(measure())


def folder_of(server: Server) -> Path:
    """Return what the workers of ``server`` share."""
    environment = Path(f"/proc/{server.workers()[0]}/environ").read_text().split("\0")
    (server_id,) = [one for one in environment if one.startswith("LOOKALIKE_SERVER_ID=")]
    return shared_folder(server_id.partition("=")[2])


@pytest.fixture
def kill(model: Path, tmp_path: Path) -> Kill:
    """What clients saw of a worker's end."""
    options = (model, tmp_path / "gallery", tmp_path / "log", "--workers", "2")
    with running_server(*options) as server:
        ready_workers = ReadyWorkers(folder_of(server), size=2)
        seen = kill_one(server, ready_workers)
        assert len(server.workers()) == 2
    return seen


def test_a_killed_worker_is_replaced_and_only_its_own_connections_break(kill: Kill) -> None:
    assert kill.failed == Counter()
    assert len(kill.broken) <= 2 * LANES
    assert {reply.sent < kill.killed + 1 for reply in kill.broken} <= {True}
    assert len(kill.replies) > 100


@pytest.mark.load
def test_a_killed_worker_is_replaced_within_seconds(kill: Kill) -> None:
    targets = [
        Target("replies", "", len(kill.replies)),
        Target("connections that broke with it", "", len(kill.broken)),
        Target("other errors", "", kill.failed.total(), at_most=0),
        Target("until two workers answer again", "s", kill.replaced_s, at_most=5),
    ]

    print_table("One of two workers is killed", targets)
    assert missed(targets) == []


def test_a_server_has_begun_once_all_of_its_workers_could_answer(tmp_path: Path) -> None:
    """The process of this test is one of the two, its parent the other."""
    ready_workers, parent = ReadyWorkers(tmp_path / "shared", size=2), os.getppid()
    other = tmp_path / "shared" / f"ready.{parent}.{started_ticks(parent)}"
    ready_workers.add()
    (tmp_path / "shared" / f"ready.{parent}.1").touch()  # one that ended: its process id came again

    assert ready_workers.pids() == {os.getpid()}
    assert ready_workers.readiness() == ServerReadiness(1, 2, has_started=False)
    assert (
        ready_workers.readiness().reason
        == "the service is still loading: 1 of 2 workers can answer"
    )
    other.touch()
    assert ready_workers.readiness() == ServerReadiness(2, 2, has_started=True)
    assert ready_workers.readiness().reason is None
    other.unlink()
    assert ready_workers.readiness() == ServerReadiness(1, 2, has_started=True)
    assert str(ready_workers.readiness().reason).startswith(
        "1 of 2 workers can answer; the log says"
    )


def test_one_worker_has_the_door_while_none_can_answer(tmp_path: Path) -> None:
    first, second = ReadyWorkers(tmp_path, size=2), ReadyWorkers(tmp_path, size=2)

    assert first.take_probes()
    assert not second.take_probes()
    assert first.take_probes()
    first.release_probes()
    assert second.take_probes()
    second.release_probes()
    first.add()
    assert not second.take_probes()


@dataclass(frozen=True)
class Start:
    """What clients saw of a server's start."""

    ready: float  # when it first said so, on the clock of the replies
    readiness: list[Reply]  # before
    replies: list[Reply]

    @property
    def refused_then(self) -> list[bytes]:
        """What was not answered of all that was sent once the server had said it was ready."""
        return [one.body for one in self.replies if one.sent > self.ready and one.status != 200]


def watch_start(server: Server) -> Start:
    """Send requests from the first moment on, on kept and on new connections."""

    async def measure() -> Start:
        loop = asyncio.get_running_loop()
        replies: list[Reply] = []
        readiness: list[Reply] = []
        over = asyncio.Event()

        lanes = start_lanes(server.url, over, replies)
        while True:
            async with Client(server.url) as client:
                alive = await client.request(LIVEZ)
                reply = await client.request(READYZ)
            assert alive.status in (0, 200), alive
            if reply.status == 200:
                break
            readiness.append(reply)
            assert server.process.poll() is None, server.log.read_text()
            await asyncio.sleep(0.05)
        ready = loop.time()
        await asyncio.sleep(AFTERWARDS_S)
        over.set()
        await asyncio.gather(*lanes)
        return Start(ready, readiness, replies)

    return run(measure())


SLOWLY = """
import sys
if "--worker-id" in sys.orig_argv:
    import asyncio
    from service.inference.engine import Engine
    number = int(sys.orig_argv[sys.orig_argv.index("--worker-id") + 1])
    start = Engine.start
    async def start_slowly(*given, **named):
        await asyncio.sleep({1: 4.0, 2: 0.5, 3: 1.5, 4: 2.5}[number])
        return await start(*given, **named)
    Engine.start = start_slowly
"""


def test_no_request_is_refused_once_a_server_of_workers_that_load_slowly_is_ready(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "slow").mkdir()
    (tmp_path / "slow" / "sitecustomize.py").write_text(SLOWLY)
    monkeypatch.setattr(
        "tests.support.server.servers.clean_environment",
        lambda: clean_environment(PYTHONPATH=f"{tmp_path / 'slow'}:{ROOT}"),
    )
    options = (model, tmp_path / "gallery", tmp_path / "log", "--workers", "4")
    with running_server(*options, wait=False) as server:
        seen = watch_start(server)
        assert len(ReadyWorkers(folder_of(server), size=4).pids()) == 4

    told = [json.loads(one.body) for one in seen.readiness if one.status]
    assert {one.status for one in seen.readiness} <= {0, 503}
    assert "not_ready" in {one["code"] for one in told}
    assert {one["checks"]["workers"] for one in told} >= {
        f"the service is still loading: {n} of 4 workers can answer" for n in (1, 2)
    }
    assert len([one for one in seen.replies if one.sent > seen.ready]) > 100
    assert seen.refused_then == []


def test_a_worker_that_cannot_load_takes_no_request_from_those_that_can(
    model: Path, tmp_path: Path
) -> None:
    moved = tmp_path / "model"
    shutil.copytree(model, moved)
    options = (moved, tmp_path / "gallery", tmp_path / "log", "--workers", "2")
    with running_server(*options) as server:
        moved.rename(tmp_path / "elsewhere")
        victim = server.workers()[0]
        os.kill(victim, signal.SIGKILL)
        wait_for(lambda: "the service cannot start" in server.log.read_text(), timeout_s=REPLACED_S)
        url = f"{server.url}/v1/classify"
        answers = [httpx.post(url, content=png(7), headers=PNG) for _ in range(30)]
        ready = httpx.get(f"{server.url}/readyz")

    assert [one.text for one in answers if one.status_code != 200] == []
    assert ready.status_code == 200
    assert ready.json()["checks"]["workers"].startswith("1 of 2 workers can answer")


def test_all_of_a_server_ends_when_its_supervisor_is_killed(model: Path, tmp_path: Path) -> None:
    """Also a rebuild that goes on, so that the port and the gallery are free for the next."""
    gallery = tmp_path / "gallery"
    write_vectors(gallery, model, clustered_vectors(20_000, 256, seed=1))
    with running_server(model, gallery, tmp_path / "log", "--workers", "2") as server:
        shared = folder_of(server)
        begin(httpx.Client(base_url=server.url), "rebuild", recall=0.9)
        wait_for(lambda: (gallery / "snapshots" / ".lock").exists() and rebuilding(server))
        members = family(server.process.pid)
        kill_and_watch(server.process, members)

        assert len(members) >= 4  # the gallery may be rebuilt by its upkeep too
        wait_for(lambda: is_free(int(server.url.rpartition(":")[2])), timeout_s=ENDED_S)
        assert not shared.exists()
        wait_for(lambda: can_lock(gallery / "snapshots" / ".lock"), timeout_s=ENDED_S)


def test_all_that_up_started_ends_when_it_is_killed(model: Path, tmp_path: Path) -> None:
    port = free_port()
    command = serve_command(model, tmp_path / "gallery", port, "--create", "--workers", "2")
    told = {"command": command, "host": "127.0.0.1", "port": port, "watched": None}
    log = tmp_path / "log"
    with log.open("wb") as output:
        up = subprocess.Popen(
            module_command("cli.up.server", json.dumps(told)),
            env=clean_environment(),
            cwd=tmp_path,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        wait_for(lambda: "the page is at" in log.read_text(), timeout_s=REPLACED_S)
        members = family(up.pid)
    finally:
        up.kill()
    kill_and_watch(up, members)

    assert len(members) == 4  # itself, the supervisor and two workers
    wait_for(lambda: is_free(port), timeout_s=ENDED_S)


def kill_and_watch(first: "subprocess.Popen[Any]", members: list[int]) -> None:
    """Kill ``first``; fail if any of ``members`` lives on."""
    began = time.monotonic()
    first.kill()
    first.wait(timeout=10)
    while left := [pid for pid in members if started_ticks(pid) is not None]:
        if time.monotonic() > began + ENDED_S:
            for pid in left:
                os.kill(pid, signal.SIGKILL)
            pytest.fail(f"{len(left)} of {len(members)} processes lived on")
        time.sleep(0.01)
    sys.stdout.write(f"all ended after {time.monotonic() - began:.2f} s\n")


# What a process had is given back a moment after it ended: when its last thread has.
def can_lock(file: Path) -> bool:
    """Return whether a rebuild could begin."""
    with file.open("a") as lock, contextlib.suppress(BlockingIOError):
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    return False


def is_free(port: int) -> bool:
    """Return whether a server could listen on ``port``."""
    with socket.socket() as probe, contextlib.suppress(OSError):
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do
        probe.bind(("127.0.0.1", port))
        return True
    return False
