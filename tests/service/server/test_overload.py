"""Ten times more requests than the network can take: what is accepted, refused, and how quickly."""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest

from tests.support.images.pngs import encoded, picture
from tests.support.models import write_model
from tests.support.server.generator_process import LATE_MS, TRIES, apart, lateness_ms, punctual
from tests.support.server.hostile.unsafe_server import unsafe_server
from tests.support.server.load_generator import (
    Client,
    Reply,
    answered_rate,
    at_rate,
    in_lanes,
    latencies_ms,
    percentile,
    request_bytes,
    run,
)
from tests.support.server.servers import Server, running_server
from tests.support.server.targets_table import Target, missed, print_table

PHOTO = encoded(picture(7, (400, 300)), "JPEG")
CLASSIFY = request_bytes("POST", "/v1/classify", PHOTO, Content_Type="image/jpeg")
LIVEZ = request_bytes("GET", "/livez")
FACTOR = 10
LIVEZ_RATE = 20.0  # a second
LANES = (1, 2, 4, 8, 16, 32)  # at once, to find out what the server can take
CALM_REPLIES = 10  # in a row, and the server has recovered
CALM_S = 8.0  # how long it is watched after the overload


@dataclass(frozen=True)
class Overload:
    """Replies before, during and after an overload."""

    unloaded: list[Reply]
    capacity: float  # requests a second that it can answer
    overloaded: list[Reply]
    probes: list[Reply]  # of /livez, meanwhile
    after: list[Reply]
    ended: float  # when the overload did, on the clock of the replies

    @property
    def planned(self) -> list[Reply]:
        return [*self.overloaded, *self.probes, *self.after]

    @property
    def accepted(self) -> list[Reply]:
        return [reply for reply in self.overloaded if reply.status == 200]

    @property
    def refused(self) -> list[Reply]:
        return [reply for reply in self.overloaded if reply.refused]

    @property
    def failed(self) -> list[Reply]:
        """All that were neither answered nor turned away properly."""
        replies = [*self.overloaded, *self.after]
        failed = [reply for reply in replies if reply.status != 200 and not reply.refused]
        return failed + [reply for reply in self.probes if reply.status != 200]

    @property
    def recovered_s(self) -> float:
        """From the end until enough in a row were answered as if nothing had been."""
        limit_ms = 2 * percentile(latencies_ms(self.unloaded), 0.99)
        good = 0
        for reply in self.after:
            good = good + 1 if reply.status == 200 and reply.latency_ms <= limit_ms else 0
            if good == CALM_REPLIES:
                first = self.after[self.after.index(reply) - CALM_REPLIES + 1]
                return max(0.0, first.meant - self.ended)
        return float("inf")

    def targets(self) -> list[Target]:
        unloaded_ms = latencies_ms(self.unloaded)
        accepted_ms, refused_ms = latencies_ms(self.accepted), latencies_ms(self.refused)
        usual = percentile(unloaded_ms, 0.99)
        accepted = percentile(accepted_ms, 0.99)
        goodput = answered_rate(self.overloaded) / self.capacity
        offered = len(self.overloaded) / (self.ended - self.overloaded[0].meant)
        return [
            Target("capacity", "requests/s", self.capacity),
            Target("offered", "requests/s", offered, at_least=0.98 * FACTOR * self.capacity),
            Target("sent late by, p99", "ms", lateness_ms(self), at_most=LATE_MS),
            Target("unloaded, p50", "ms", percentile(unloaded_ms, 0.5)),
            Target("unloaded, p99", "ms", usual),
            Target("accepted, p50", "ms", percentile(accepted_ms, 0.5)),
            Target("accepted, p99", "ms", accepted, at_most=1000),
            Target("accepted, p99 over unloaded p99", "x", accepted / usual, at_most=3),
            Target("refused, p50", "ms", percentile(refused_ms, 0.5)),
            Target("refused, p99", "ms", percentile(refused_ms, 0.99), at_most=50),
            Target("goodput over capacity", "x", goodput, at_least=0.9),
            Target("/livez, p99", "ms", percentile(latencies_ms(self.probes), 0.99), at_most=100),
            Target("neither answered nor refused", "replies", len(self.failed), at_most=0),
            Target("recovered after", "s", self.recovered_s, at_most=2),
        ]


def overload(url: str, *, seconds: float, patience_s: float = 40.0) -> Overload:
    """Find out what the server at ``url`` can take, then offer it ten times as much."""

    async def measure() -> Overload:
        async with Client(url, patience_s=patience_s) as client, Client(url) as prober:
            await in_lanes(client, CLASSIFY, lanes=4, seconds=1)  # warm-up
            unloaded = await in_lanes(client, CLASSIFY, lanes=1, seconds=max(2, seconds / 2))
            rates = [
                answered_rate(await in_lanes(client, CLASSIFY, lanes=n, seconds=seconds / 5))
                for n in LANES
            ]
            capacity = max(rates)
            await client.connect(64)

            async def afterwards() -> list[Reply]:
                await asyncio.sleep(seconds)
                return await at_rate(client, CLASSIFY, rate=0.3 * capacity, seconds=CALM_S)

            offered, probes, after = await asyncio.gather(
                at_rate(client, CLASSIFY, rate=FACTOR * capacity, seconds=seconds),
                at_rate(prober, LIVEZ, rate=LIVEZ_RATE, seconds=seconds),
                afterwards(),
            )
            return Overload(unloaded, capacity, offered, probes, after, offered[-1].meant)

    return run(measure())


@pytest.fixture(scope="module")
def slow_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server whose network takes 25 ms and more for an image, and no less in a batch.

    The queue is made as short as that: by default it may take half a second, whatever the network.
    """
    folder = tmp_path_factory.mktemp("slow")
    write_model(folder / "model", network="cnn", width=128, size=320)
    options = ("--max-wait-s", "0.03")
    with running_server(folder / "model", folder / "gallery", folder / "log", *options) as running:
        yield running


def test_in_an_overload_every_request_is_answered_or_told_when_to_come_again(
    slow_server: Server,
) -> None:
    seen = apart(overload, slow_server.url, seconds=4)

    assert seen.failed == []
    assert len(seen.refused) > len(seen.accepted) > 0
    assert seen.recovered_s < CALM_S


@pytest.mark.load
def test_in_an_overload_answers_refusals_and_probes_stay_quick(slow_server: Server) -> None:
    title = f"Overload: {FACTOR} x what the server can take, for 20 s"
    run = partial(apart, overload, slow_server.url, seconds=20)
    targets = punctual(run, title=title).targets()

    print_table(title, targets)
    assert missed(targets) == []


@pytest.mark.load
def test_the_overload_would_show_a_server_that_takes_everything(tmp_path: Path) -> None:
    with unsafe_server(tmp_path / "log") as server:
        seen = overload(server.url, seconds=2, patience_s=3)

    assert seen.refused == []
    assert seen.failed != []
    assert len(missed(seen.targets())) > 2


@dataclass
class Late:
    """Runs of a generator that is late by so much, one after the other."""

    lates_s: list[float]
    planned: list[Reply] = field(default_factory=list)

    def measure(self) -> "Late":
        self.planned = [Reply(meant=1.0, begun=1.0 + self.lates_s.pop(0), sent=9.0)]
        return self


def test_a_run_counts_only_if_the_load_was_sent_on_time() -> None:
    """What a request waits for a connection is the server's affair."""
    runs = Late([0.26, 0.02, 0.001, 0.001])

    assert lateness_ms(punctual(runs.measure, title="x")) == pytest.approx(1)
    assert len(runs.lates_s) == 1


def test_a_load_that_is_always_late_finds_out_nothing_and_says_so(
    capsys: pytest.CaptureFixture[str],
) -> None:
    runs = Late([0.26] * (TRIES + 1))

    with pytest.raises(pytest.skip.Exception, match=r"260, 260, 260 ms late .* NOTHING was found"):
        punctual(runs.measure, title="Overload")

    assert len(runs.lates_s) == 1
    assert "Overload: INCONCLUSIVE" in capsys.readouterr().out
