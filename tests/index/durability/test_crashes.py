"""Writers that are killed and power that is cut: nothing acknowledged is lost."""

import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.crashes.crash_harness import cut_power, kill_workers
from tests.support.crashes.crash_oracle import CrashCounts, Precondition

SHORT, LONG = 16, 240  # kills
SHORT_CUTS, LONG_CUTS = 3, 60


def cycles(short: int, long: int) -> list[object]:
    return [short, pytest.param(long, marks=pytest.mark.durability)]


def check(counts: CrashCounts) -> None:
    sys.stdout.write(f"{counts}\n")  # `pytest -rA` shows it
    assert counts.wrong == []
    assert (counts.lost, counts.phantom, counts.torn) == (0, 0, 0), counts
    assert counts.acknowledged > 2 * counts.cycles
    assert counts.in_flight > counts.cycles, "the workers were not at work when they were killed"
    if counts.cycles >= SHORT:
        assert counts.generations > 0, "no group ever finished a generation"


@pytest.mark.parametrize("cycles", cycles(SHORT, LONG))
def test_whoever_is_killed_at_work_nothing_acknowledged_is_lost_and_no_answer_is_wrong(
    tmp_path: Path, cycles: int
) -> None:
    counts = kill_workers(tmp_path / "g", cycles=cycles, longest_s=0.4)

    check(counts)
    assert counts.unfinished > 0 or cycles == SHORT, "no group was killed amid a generation"


def test_the_kills_would_show_workers_that_acknowledge_before_they_write(tmp_path: Path) -> None:
    counts = kill_workers(tmp_path / "g", cycles=3, longest_s=0.1, mode="acknowledges first")

    assert counts.lost > 0


@pytest.mark.parametrize("cycles", cycles(SHORT_CUTS, LONG_CUTS))
def test_whenever_the_power_is_cut_nothing_acknowledged_is_lost_and_no_answer_is_wrong(
    tmp_path: Path, cycles: int
) -> None:
    check(cut_power(tmp_path, cycles=cycles, longest_s=0.6))


@pytest.mark.durability
def test_the_power_cuts_would_show_workers_that_do_not_wait_for_the_disk(tmp_path: Path) -> None:
    def lost(folder: Path) -> int:
        folder.mkdir()
        mode = "syncs now and then"  # a cut right after one loses nothing
        return cut_power(folder, cycles=3, longest_s=0.4, mode=mode, background=True).lost

    assert any(lost(tmp_path / str(attempt)) for attempt in range(5))


def heard(*events: list[Any]) -> tuple[Precondition, CrashCounts]:
    """Return what is expected of a gallery of ``a`` 1 and ``b`` 1 after a group said this."""
    expected, counts = Precondition({"a": 1, "b": 1}), CrashCounts()
    expected.hear([(False, event) for event in events], counts)
    return expected, counts


@pytest.mark.parametrize(
    ("stored", "seen"),
    [
        ({"a": 2, "b": 1}, (0, 0, 0)),
        ({"a": 2, "b": 3, "c": 3}, (0, 0, 0)),
        ({"a": 1, "b": 1}, (1, 0, 0)),
        ({"b": 1}, (1, 0, 0)),
        ({"a": 2, "b": 1, "d": 9}, (0, 1, 0)),
        ({"a": 9, "b": 1}, (0, 1, 0)),
        ({"a": 2, "b": 3}, (0, 0, 1)),
        ({"a": 2, "b": 1, "c": 3}, (0, 0, 1)),
    ],
)
def test_what_is_lost_made_up_or_half_done_is_counted(
    stored: dict[str, int], seen: tuple[int, int, int]
) -> None:
    expected, counts = heard(
        ["try", 0, {"a": 2}], ["ack", 0, [7]], ["try", 0, {"b": 3, "c": 3}], ["try", 1, {"x": None}]
    )

    expected.compare(stored, counts)

    assert (counts.lost, counts.phantom, counts.torn) == seen


def test_an_item_that_two_threads_wrote_is_as_the_later_operation_left_it() -> None:
    expected, counts = heard(
        *(["try", 0, {"s0": 5}], ["try", 1, {"s0": 6}], ["ack", 1, [12]], ["ack", 0, [11]])
    )

    expected.compare({"a": 1, "b": 1, "s0": 6}, counts)
    assert counts.lost == 0
    expected.compare({"a": 1, "b": 1, "s0": 5}, counts)
    assert counts.lost == 1
