"""How long a body may be on its way: reckoned by a clock of the test's own."""

import pytest

from service.errors import MalformedRequestError
from service.server.deadlines import (
    HEAD_START_S,
    LEAST_PIECE,
    LEAST_RATE,
    MANY_PIECES,
    STEADY_RATE,
    Arrival,
)

PAUSE_S = 10.0
MOST = 20 * 2**20  # bytes


def seconds(rate: float, size: int, *, piece: int = 1400, head_start_s: float = 120.0) -> float:
    """Return when a body that comes at a steady rate, bytes a second, is there; or is given up."""
    arrival = Arrival(PAUSE_S, head_start_s)
    arrival.begin(1000.0)
    now, deadline = 1000.0, 1000.0 + PAUSE_S
    sent = 0
    while sent < size:
        now += piece / rate
        if now > deadline:
            return deadline - 1000
        sent += piece
        deadline = arrival.deadline(now, piece)
    return now - 1000


@pytest.mark.parametrize("rate", [8_500, 10_000, 78_000, 10_000_000])
@pytest.mark.parametrize("size", [300_000, 3_000_000, MOST])
def test_a_steady_body_is_never_given_up_however_long_it_takes(rate: float, size: int) -> None:
    assert seconds(rate, size) == pytest.approx(size / rate, rel=0.01, abs=1)


@pytest.mark.parametrize("rate", [2_000, 5_000])
def test_a_small_body_may_come_more_slowly(rate: float) -> None:
    assert seconds(rate, 200_000) == pytest.approx(200_000 / rate, abs=1)


@pytest.mark.parametrize("rate", [100, 900, 1_100, 4_000, 8_000])
def test_a_large_body_is_there_or_given_up_within_a_bound(rate: float) -> None:
    taken = seconds(rate, MOST, piece=100)

    assert taken < HEAD_START_S + MOST / STEADY_RATE
    if rate < LEAST_RATE:
        assert taken < HEAD_START_S


def test_the_bound_is_reached_with_small_numbers() -> None:
    assert seconds(4_096, 10**9, head_start_s=10) == pytest.approx(20, abs=1)
    assert seconds(1_024, 10**9, head_start_s=14) == pytest.approx(16, abs=1)


def test_a_body_that_stalls_is_given_up_after_the_pause() -> None:
    arrival = Arrival(PAUSE_S)
    arrival.begin(0)

    assert arrival.deadline(5, 1_000_000) == 5 + PAUSE_S
    assert arrival.deadline(6, 10) == 6 + PAUSE_S
    assert "8192" in str(arrival.error())


def test_what_one_body_took_is_not_held_against_the_next() -> None:
    arrival = Arrival(PAUSE_S)
    arrival.begin(0)
    arrival.deadline(100, 10)
    arrival.begin(1_000)

    assert arrival.deadline(1_001, 2_000) == 1_001 + PAUSE_S


def test_a_body_of_very_many_very_small_pieces_is_refused() -> None:
    arrival = Arrival(PAUSE_S)
    arrival.begin(0.0)
    for _ in range(MANY_PIECES):
        arrival.deadline(0.0, 1)

    with pytest.raises(MalformedRequestError, match="larger chunks"):
        arrival.deadline(0.0, 1)
    arrival.begin(0.0)
    for _ in range(10 * MANY_PIECES):
        arrival.deadline(0.0, LEAST_PIECE)
