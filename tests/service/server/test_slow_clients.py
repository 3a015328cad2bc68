"""Clients that never finish their requests: they are shut out in time, and nobody else notices."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from tests.support.images.pngs import encoded, picture
from tests.support.server.generator_process import LATE_MS, lateness_ms, punctual
from tests.support.server.hostile.unsafe_server import unsafe_server
from tests.support.server.load_generator import (
    Client,
    Reply,
    at_rate,
    latencies_ms,
    percentile,
    request_bytes,
    run,
)
from tests.support.server.servers import Server
from tests.support.server.slow_clients import (
    BODY_TRICKLE,
    HALF_OPEN,
    HEADER_TRICKLE,
    SILENT,
    Habit,
    SlowClient,
    slow_clients,
)
from tests.support.server.targets_table import Target, missed, print_table

CLASSIFY = request_bytes(
    "POST", "/v1/classify", encoded(picture(7, (400, 300)), "JPEG"), Content_Type="image/jpeg"
)
CLOSED_S = 15.0
CROWD = {SILENT: 50, HALF_OPEN: 100, HEADER_TRICKLE: 50, BODY_TRICKLE: 50}
RATE = 40.0  # ordinary requests a second


@dataclass(frozen=True)
class Crowd:
    """Slow clients, and what ordinary ones got without and beside them."""

    slow: list[SlowClient]
    alone: list[Reply]
    beside: list[Reply]

    @property
    def planned(self) -> list[Reply]:
        return [*self.alone, *self.beside]

    @property
    def still_open(self) -> Counter[str]:
        """How many of each habit were not closed in time."""
        return Counter(client.habit.name for client in self.slow if not client.open_s <= CLOSED_S)

    @property
    def failed(self) -> list[Reply]:
        """Ordinary requests that were not answered with 200."""
        return [reply for reply in (*self.alone, *self.beside) if reply.status != 200]

    def targets(self) -> list[Target]:
        alone, beside = latencies_ms(self.alone), latencies_ms(self.beside)
        usual, crowded = percentile(alone, 0.99), percentile(beside, 0.99)
        return [
            Target("sent late by, p99", "ms", lateness_ms(self), at_most=LATE_MS),
            Target("ordinary alone, p50", "ms", percentile(alone, 0.5)),
            Target("ordinary alone, p99", "ms", usual),
            Target("ordinary beside slow clients, p50", "ms", percentile(beside, 0.5)),
            Target("ordinary beside slow clients, p99", "ms", crowded),
            Target("ordinary p99, beside over alone", "x", crowded / usual, at_most=2),
            Target("ordinary requests failed", "replies", len(self.failed), at_most=0),
            *(
                Target(
                    f"{count} clients: {habit.name}; the last closed after",
                    "s",
                    max(one.open_s for one in self.slow if one.habit == habit),
                    at_most=CLOSED_S,
                )
                for habit, count in CROWD.items()
            ),
        ]


def crowd(url: str, *, watched_s: float, alone_s: float) -> Crowd:
    """Send ordinary requests alone, and then beside the slow clients for ``watched_s``."""

    async def measure() -> Crowd:
        async with Client(url) as client:
            await at_rate(client, CLASSIFY, rate=RATE, seconds=1)  # warm-up
            alone = await at_rate(client, CLASSIFY, rate=RATE, seconds=alone_s)
            slow = await gather_crowd(url, CROWD)
            dawdling = [  # not all at the same moment
                asyncio.create_task(one.dawdle(after_s=number / len(slow)))
                for number, one in enumerate(slow)
            ]
            beside = await at_rate(client, CLASSIFY, rate=RATE, seconds=watched_s)
            for task, one in zip(dawdling, slow, strict=True):
                task.cancel()
                one.leave()
            await asyncio.gather(*dawdling, return_exceptions=True)
        return Crowd(slow, alone, beside)

    return run(measure())


async def gather_crowd(url: str, counts: dict[Habit, int]) -> Sequence[SlowClient]:
    """Return connected clients of several habits."""
    crowds = [await slow_clients(url, habit, count) for habit, count in counts.items()]
    return [client for one in crowds for client in one]


def test_clients_that_never_finish_a_request_are_shut_out_and_others_are_served(
    server: Server,
) -> None:
    seen = crowd(server.url, watched_s=CLOSED_S + 1, alone_s=1)

    assert not seen.still_open
    assert [reply for reply in seen.failed if not reply.refused] == []  # a busy machine refuses
    assert len(seen.failed) < len(seen.beside) / 2
    told = [client.status for client in seen.slow if client.habit == BODY_TRICKLE]
    assert set(told) == {408}


@pytest.mark.load
def test_beside_clients_that_never_finish_ordinary_answers_stay_quick(server: Server) -> None:
    title = "200 half-open and 50 trickling clients"
    run = partial(crowd, server.url, watched_s=CLOSED_S + 1, alone_s=CLOSED_S + 1)
    targets = punctual(run, title=title).targets()

    print_table(title, targets)
    assert missed(targets) == []


@pytest.mark.load
def test_slow_clients_would_show_a_server_that_waits_for_them(tmp_path: Path) -> None:
    with unsafe_server(tmp_path / "log") as server:
        seen = crowd(server.url, watched_s=CLOSED_S + 1, alone_s=1)

    assert seen.still_open == Counter({habit.name: count for habit, count in CROWD.items()})
