"""Requests that are cheap to send stop nobody: each is answered or ended, others are served.

The long form (`make test-hostile`) sends each kind by one client and by twenty, beside ordinary
traffic, and judges what that traffic had to wait. Hostile clients come from two addresses, of which
one is that of the ordinary ones. ``LOOKALIKE_TREE`` names another checkout whose server is put
under the same load: one of before should fail.
"""

import asyncio
import hashlib
import os
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path

import numpy as np
import pytest

from index.gallery import Gallery
from index.items.item import NewItem
from service.security.api_keys import make_key
from tests.support.galleries.small_galleries import write_gallery
from tests.support.processes import Meter, fair_usage
from tests.support.server import servers
from tests.support.server.generator_process import LATE_MS, apart, lateness_ms, punctual
from tests.support.server.hostile.attacks import REFUSED, Kind, attack
from tests.support.server.hostile.hostile_requests import ITEMS, kinds
from tests.support.server.load_generator import Reply, run
from tests.support.server.ordinary_requests import Ordinary, ordinary
from tests.support.server.servers import ROOT, Server, running_server
from tests.support.server.targets_table import Target, missed, print_table
from vision.model.manifest import read_manifest

CROWD = 20
ADDRESSES = ("127.0.0.1", "127.0.0.2")  # ordinary clients have the first
SECONDS = 4.0  # of ordinary traffic, beside which a kind is sent
CALM_S = 8.0
PAUSE_S = 0.05  # of a hostile client that was answered
SAMPLE_S = 0.1
MORE_MB = 300
SERVED = 0.95
PROBE_MS, CLASSIFY_MS, TIMES = 100, 1_000, 3
STOOD_MS = 2_000  # in the short form: for so long a worker stood still
SHORT_S = 6.0
TRIES = 8
FLOOR_MS = 50.0  # the turns of four processes on two cores
KINDS = kinds()


@contextmanager
def hostile_server(model: Path, folder: Path, *options: str) -> Iterator[Server]:
    """A server, maybe of another tree, of some thousand items, that gives up on slow clients."""
    write_gallery(folder / "gallery", model)
    write_more(folder / "gallery", model)
    tree = Path(os.environ.get("LOOKALIKE_TREE", ROOT))
    patience = ("--header-timeout-s", "3", "--body-timeout-s", "3", "--answer-timeout-s", "3")
    origins = ("--cors-origins", "https://shop.example")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(servers, "ROOT", tree)
        options = (*patience, *origins, *options)
        with running_server(model, folder / "gallery", folder / "log", *options) as running:
            yield running


def write_more(folder: Path, model: Path) -> None:
    """Store vectors whose metadata has much to be counted, filtered and listed."""
    manifest = read_manifest(model)
    size = (ITEMS, manifest.architecture.width)
    vectors = np.random.default_rng(0).normal(size=size).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    with Gallery.open(folder, fingerprint=manifest.fingerprint) as gallery:
        gallery.put(
            [
                NewItem(
                    id=f"row-{row}",
                    vector_D=vector,
                    label=None,
                    metadata={"a": {str(key): (row * (key + 1)) % 997 for key in range(16)}},
                    thumbnail=None,
                    content_sha256=hashlib.sha256(vector.tobytes()).hexdigest(),
                )
                for row, vector in enumerate(vectors)
            ]
        )


@pytest.fixture(scope="module")
def server(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with hostile_server(model, tmp_path_factory.mktemp("hostile")) as running:
        yield running


@dataclass(frozen=True)
class Siege:
    """What came of hostile requests, of the ordinary ones beside them, and of the server."""

    ends: Counter[int | None]
    beside: Ordinary
    more_mb: float  # memory of all the server's processes at their peak, above that before
    new_workers: int

    @property
    def planned(self) -> list[Reply]:
        return self.beside.planned

    def targets(self) -> list[Target]:
        """Return what is judged however busy the machine is."""
        return [
            Target("ordinary pictures classified", "", self.beside.served, at_least=SERVED),
            Target("ordinary requests that failed", "", self.beside.failed, at_most=0),
            Target("memory, more at its peak", "MB", self.more_mb, at_most=MORE_MB),
            Target("workers that are new", "", self.new_workers, at_most=0),
            Target("hostile requests without an end", "", self.ends[None], at_most=0),
        ]


def lay(server: Server, kind: Kind, *, clients: int, token: str | None = None) -> Siege:
    """Send one kind by so many clients, again and again, as long as there is ordinary traffic."""
    assert kind.sent is not None  # made before anything is measured
    workers, before = server.workers(), fair_usage(server.process.pid).resident_mb
    ends: Counter[int | None] = Counter()

    async def besiege() -> Ordinary:
        over = asyncio.Event()

        async def one(source: str) -> None:
            while not over.is_set():
                ends.update(await attack(server.url, kind, source=source))
                await asyncio.sleep(PAUSE_S)

        hostile = [asyncio.create_task(one(ADDRESSES[n % 2])) for n in range(clients)]
        beside = await asyncio.to_thread(apart, ordinary, server.url, seconds=SECONDS, token=token)
        over.set()
        await asyncio.gather(*hostile)
        return beside

    with Meter(server.process.pid, SAMPLE_S, fair_usage) as meter:
        beside = run(besiege())
    peak = max(sample.resident_mb for sample in meter.samples)
    new = len({*server.workers()} - {*workers})
    return Siege(ends, beside, peak - before, new)


def parade(server: Server, wanted: list[Kind]) -> tuple[Siege, dict[str, set[int | None]]]:
    """Send kinds once each, one after another, but those that wait at once; and how each ended.

    What was told to come again does. Memory is the most that was added while one kind was sent.
    """
    workers = server.workers()
    ends: dict[str, set[int | None]] = {}
    added: dict[str, float] = {}

    async def send(kind: Kind) -> None:
        for _ in range(TRIES):
            found = {*await attack(server.url, kind)}
            if found & {*kind.ends} or not found <= {*REFUSED}:
                break
            await asyncio.sleep(1)
        ends[kind.name] = found

    async def besiege() -> Ordinary:
        beside = asyncio.create_task(
            asyncio.to_thread(apart, ordinary, server.url, seconds=SHORT_S)
        )
        waiting = [asyncio.create_task(send(kind)) for kind in wanted if kind.waits]
        for kind in wanted:
            if not kind.waits:
                before = fair_usage(server.process.pid).resident_mb
                with Meter(server.process.pid, SAMPLE_S, fair_usage) as meter:
                    await send(kind)
                samples = (*meter.samples, fair_usage(server.process.pid))
                added[kind.name] = max(sample.resident_mb for sample in samples) - before
        await asyncio.gather(*waiting)
        return await beside

    beside = run(besiege())
    dearest = max(added, key=lambda name: added[name])
    sys.stdout.write(f"most memory: {dearest}\n")
    new = len({*server.workers()} - {*workers})
    return Siege(Counter(chain(*ends.values())), beside, added[dearest], new), ends


def test_there_are_many_kinds() -> None:
    assert len({kind.name for kind in KINDS}) == len(KINDS) >= 40


def test_each_kind_ends_as_it_should_beside_ordinary_traffic(server: Server) -> None:
    """Times are judged by whole seconds, and only where the ordinary requests were on time."""
    short = [kind for kind in KINDS if not kind.is_long and not kind.with_keys]

    siege, ends = parade(server, short)

    targets = siege.targets()
    if lateness_ms(siege) <= LATE_MS:
        targets += [
            Target("/livez p99", "ms", siege.beside.livez_ms, at_most=STOOD_MS),
            Target("classify p99", "ms", siege.beside.classify_ms, at_most=STOOD_MS),
        ]
    print_table(f"{len(short)} kinds, once each", targets)
    otherwise = {
        kind.name: ends[kind.name] for kind in short if not ends[kind.name] <= {*kind.ends}
    }
    assert otherwise == {}
    assert missed(targets) == []
    with server.client() as client:
        assert client.get("/readyz").status_code == 200


@pytest.fixture(scope="module")
def keyed_server(
    model: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Server, str]]:
    """A server that asks for keys, and the key of the ordinary clients, who have shown it."""
    folder = tmp_path_factory.mktemp("keyed")
    key = make_key("shop", ["read"])
    (folder / "keys.toml").write_text(key.lines)
    with hostile_server(model, folder, "--api-keys-file", str(folder / "keys.toml")) as running:
        apart(ordinary, running.url, seconds=1, token=key.token)
        yield running, key.token


@pytest.fixture(scope="module")
def calm(server: Server) -> Ordinary:
    """What ordinary traffic waits when there is no other."""
    apart(ordinary, server.url, seconds=2)
    return punctual(partial(apart, ordinary, server.url, seconds=CALM_S), title="calm")


@pytest.mark.hostile
@pytest.mark.parametrize("clients", [1, CROWD])
@pytest.mark.parametrize("kind", KINDS, ids=[kind.name for kind in KINDS])
def test_ordinary_traffic_goes_on(
    request: pytest.FixtureRequest, server: Server, calm: Ordinary, kind: Kind, clients: int
) -> None:
    token = None
    if kind.with_keys:
        server, token = request.getfixturevalue("keyed_server")
    title = f"{kind.name}, {clients} clients"

    def measure() -> Siege:
        siege = lay(server, kind, clients=clients, token=token)
        targets = [*siege.targets(), *ended(kind, siege)]
        print_table(f"{title}: {dict(siege.ends)}", [*targets, *times(siege, calm)])
        assert missed(targets) == []  # no time is needed to see it
        return siege

    assert missed(times(punctual(measure, title=title), calm)) == []


def times(siege: Siege, calm: Ordinary) -> list[Target]:
    """Return what ordinary requests had to wait; it counts if they were sent on time."""
    classify_ms = siege.beside.classify_ms
    at_most = min(max(TIMES * calm.classify_ms, FLOOR_MS), CLASSIFY_MS)
    asked = f"classify p99 ({TIMES} x calm, or {FLOOR_MS:g} ms)"
    return [
        Target("sent late by, p99", "ms", lateness_ms(siege), at_most=LATE_MS),
        Target("/livez p99", "ms", siege.beside.livez_ms, at_most=PROBE_MS),
        Target("classify p99, calm", "ms", calm.classify_ms),
        Target("classify p99 over calm", "x", classify_ms / calm.classify_ms),
        Target(asked, "ms", classify_ms, at_most=at_most),
    ]


def ended(kind: Kind, siege: Siege) -> list[Target]:
    """Return how many requests ended as they should, and otherwise; being refused is neither."""
    met = sum(siege.ends[end] for end in kind.ends)
    others = sum(count for end, count in siege.ends.items() if end not in (*kind.ends, *REFUSED))
    return [
        Target("hostile requests that met what they were made for", "", met, at_least=1),
        Target("hostile requests that ended otherwise", "", others, at_most=0),
    ]
