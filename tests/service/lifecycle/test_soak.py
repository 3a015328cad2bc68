"""Minutes of mixed traffic: nothing grows, and the gallery holds what was acknowledged."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import pytest

from index.gallery import Gallery
from tests.support.images.pngs import png
from tests.support.processes import Meter, Usage, growth, slope_per_minute
from tests.support.server.hostile.unsafe_server import unsafe_server
from tests.support.server.load_generator import Client, run
from tests.support.server.mixed_traffic import Seen, mixed_traffic
from tests.support.server.servers import Server, running_server
from tests.support.server.targets_table import Target, missed, print_table

LANES = 8
PAUSE_S = 0.05  # of each lane, after each request: what was stored is remembered, within a bound
# What chance may add: a thread or a connection more that happened to be needed at once.
THREADS, DESCRIPTORS = 3, 12
MB_A_MINUTE = 1.0


@dataclass(frozen=True)
class Soak:
    """What traffic saw, and what the server's processes held meanwhile."""

    seen: Seen
    samples: list[Usage]

    @property
    def threads(self) -> float:
        return growth(self.samples, lambda one: one.threads)

    @property
    def descriptors(self) -> float:
        return growth(self.samples, lambda one: one.descriptors)

    @property
    def mb_a_minute(self) -> float:
        return slope_per_minute(self.samples, lambda one: one.resident_mb)

    def targets(self) -> list[Target]:
        last = self.samples[-1]
        requests = self.seen.statuses.total()
        refused = sum(
            n for kind, n in self.seen.statuses.items() if kind.endswith((" 503", " 429"))
        )
        return [
            Target("requests", "", requests),
            Target("of these, refused properly", "", refused),
            Target("of these, not as they should be", "", len(self.seen.unexpected), at_most=0),
            Target("resident memory at the end", "MB", last.resident_mb),
            Target("resident memory, slope", "MB/min", self.mb_a_minute, at_most=MB_A_MINUTE),
            Target("threads at the end", "", last.threads),
            Target("threads, last third over first", "", self.threads, at_most=THREADS),
            Target("descriptors at the end", "", last.descriptors),
            Target("descriptors, last third over first", "", self.descriptors, at_most=DESCRIPTORS),
        ]


def soak(server: Server, *, warm_up_s: float, seconds: float) -> Soak:
    """Let traffic run, and look at the server's processes once it has warmed up."""

    async def traffic(seen: Seen, duration_s: float) -> None:
        async with Client(server.url) as client:
            await mixed_traffic(client, seen, lanes=LANES, seconds=duration_s, pause_s=PAUSE_S)

    seen = Seen()
    run(traffic(seen, warm_up_s))
    with Meter(server.process.pid) as meter:
        run(traffic(seen, seconds))
    return Soak(seen, meter.samples)


def check_gallery(folder: Path, seen: Seen) -> None:
    """Hold what is stored against what was acknowledged."""
    with Gallery.open(folder, fingerprint=None) as gallery:
        assert gallery.verify() == []
        assert gallery.count == len(seen.stored)
        for item_id, number in seen.stored.items():
            content = hashlib.sha256(png(number)).hexdigest()
            assert gallery.get(item_id).content_sha256 == content


def test_after_seconds_of_mixed_traffic_nothing_has_grown_and_nothing_is_lost(
    model: Path, tmp_path: Path
) -> None:
    with running_server(model, tmp_path / "gallery", tmp_path / "log") as server:
        seen = soak(server, warm_up_s=4, seconds=10)

    assert seen.seen.unexpected == []
    assert seen.threads <= THREADS
    assert seen.descriptors <= DESCRIPTORS
    assert len(seen.seen.statuses) >= 15, "some kinds of traffic never came"
    check_gallery(tmp_path / "gallery", seen.seen)


@pytest.mark.load
def test_after_five_minutes_of_mixed_traffic_nothing_has_grown(model: Path, tmp_path: Path) -> None:
    with running_server(model, tmp_path / "gallery", tmp_path / "log") as server:
        seen = soak(server, warm_up_s=60, seconds=300)

    print_table("Five minutes of mixed traffic, after one to warm up", seen.targets())
    assert missed(seen.targets()) == []
    check_gallery(tmp_path / "gallery", seen.seen)


@pytest.mark.load
def test_the_soak_would_show_a_server_that_leaks(tmp_path: Path) -> None:
    with unsafe_server(tmp_path / "log", "--leak") as server:
        seen = soak(server, warm_up_s=1, seconds=6)

    assert seen.threads > THREADS
    assert seen.descriptors > DESCRIPTORS
    assert seen.mb_a_minute > MB_A_MINUTE
    assert seen.seen.unexpected != []
