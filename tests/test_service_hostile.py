"""Requests that are cheap to send stop nobody: each is answered or ended, others are served.

The long form (`make test-hostile`) sends each kind by one client and by twenty, beside ordinary
traffic, and judges what that traffic had to wait. ``LOOKALIKE_TREE`` names another checkout whose
server is put under the same load: one of before should fail.
"""

import asyncio
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import servers
from tests.conftest import write_gallery
from tests.figures import Figure, missed, show
from tests.hostile import Kind, attack, kinds
from tests.processes import usage
from tests.servers import ROOT, Server, clean_environment, running_server

CROWD = 20
SECONDS = 4.0  # that each kind is sent for
LATE_MS = 20.0  # ordinary requests sent later than this say nothing of the server
MORE_MB = 300
PROBE_MS, CLASSIFY_MS, TIMES = 100, 1_000, 3
KINDS = kinds()


@pytest.fixture(scope="module")
def server(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("hostile")
    write_gallery(folder / "gallery", model)
    tree = Path(os.environ.get("LOOKALIKE_TREE", ROOT))
    options = ("--header-timeout-s", "3", "--body-timeout-s", "3")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(servers, "ROOT", tree)
        with running_server(model, folder / "gallery", folder / "log", *options) as running:
            yield running


def test_there_are_many_kinds() -> None:
    assert len({kind.name for kind in KINDS}) == len(KINDS) >= 40


def test_each_kind_is_answered_or_ended_and_nothing_restarts(server: Server) -> None:
    workers, before = server.workers(), usage(server.process.pid).resident_mb

    async def send_all() -> dict[str, int | None]:
        found: dict[str, int | None] = {}
        for kind in KINDS:
            found[kind.name] = await attack(server.url, kind)
        return found

    found = asyncio.run(send_all())

    assert [name for name, status in found.items() if status is None or status == 500] == []
    assert server.workers() == workers
    assert usage(server.process.pid).resident_mb < before + 2 * MORE_MB
    with server.client() as client:
        assert client.get("/readyz").status_code == 200


def ordinary(server: Server, seconds: float) -> subprocess.Popen[str]:
    """Begin to send ordinary traffic from a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "tests.ordinary", server.url, str(seconds)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=clean_environment(),
    )


def heard(process: subprocess.Popen[str]) -> dict[str, float]:
    told, _ = process.communicate(timeout=180)
    found: dict[str, float] = json.loads(told)
    return found


async def siege(url: str, kind: Kind, clients: int) -> Counter[int | None]:
    """Send one kind by so many clients, again and again."""
    until = asyncio.get_running_loop().time() + SECONDS
    statuses: Counter[int | None] = Counter()

    async def one() -> None:
        while asyncio.get_running_loop().time() < until:
            statuses[await attack(url, kind)] += 1
            await asyncio.sleep(0.05)

    await asyncio.gather(*(one() for _ in range(clients)))
    return statuses


@pytest.fixture(scope="module")
def calm(server: Server) -> dict[str, float]:
    """What ordinary traffic waits when there is no other."""
    heard(ordinary(server, 2))
    return heard(ordinary(server, 5))


@pytest.mark.hostile
@pytest.mark.parametrize("clients", [1, CROWD])
@pytest.mark.parametrize("kind", KINDS, ids=[kind.name for kind in KINDS])
def test_ordinary_traffic_goes_on(
    server: Server, calm: dict[str, float], kind: Kind, clients: int
) -> None:
    workers, before = server.workers(), usage(server.process.pid).resident_mb
    beside = ordinary(server, SECONDS)
    statuses = asyncio.run(siege(server.url, kind, clients))
    told = heard(beside)
    if told["late_ms"] > LATE_MS:
        pytest.skip(f"INCONCLUSIVE: ordinary requests were sent {told['late_ms']:.0f} ms late")

    figures = [
        Figure("/livez p99", "ms", told["livez_ms"], at_most=PROBE_MS),
        Figure(
            "classify p99", "ms", told["classify_ms"], at_most=max(TIMES * calm["classify_ms"], 50)
        ),
        Figure("classify p99, at most", "ms", told["classify_ms"], at_most=CLASSIFY_MS),
        Figure("ordinary requests that failed", "", told["failed"], at_most=0),
        Figure("ordinary requests refused", "", told["refused"]),
        Figure(
            "memory, more", "MB", usage(server.process.pid).resident_mb - before, at_most=MORE_MB
        ),
        Figure("hostile requests without an end", "", statuses[None], at_most=0),
        Figure("hostile requests answered with 500", "", statuses[500], at_most=0),
        Figure("workers that are new", "", len({*server.workers()} - {*workers}), at_most=0),
    ]
    show(f"{kind.name}, {clients} clients: {dict(statuses)}", figures)
    assert missed(figures) == []
