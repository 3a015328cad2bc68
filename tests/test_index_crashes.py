import sys
from pathlib import Path

import pytest

from tests.crashes import Figures, cut_power, kill_crews

SHORT, LONG = 16, 240  # kills
SHORT_CUTS, LONG_CUTS = 3, 60


def cycles(short: int, long: int) -> list[object]:
    return [short, pytest.param(long, marks=pytest.mark.durability)]


def check(figures: Figures) -> None:
    sys.stdout.write(f"{figures}\n")  # `pytest -rA` shows it
    assert figures.wrong == []
    assert (figures.lost, figures.phantom, figures.torn) == (0, 0, 0), figures
    assert figures.acknowledged > 5 * figures.cycles
    assert figures.in_flight > figures.cycles, "the crews were not at work when they were killed"
    assert figures.generations > figures.cycles // 3, "no crew ever finished a generation"


@pytest.mark.parametrize("cycles", cycles(SHORT, LONG))
def test_whoever_is_killed_at_work_nothing_acknowledged_is_lost_and_no_answer_is_wrong(
    tmp_path: Path, cycles: int
) -> None:
    figures = kill_crews(tmp_path / "g", cycles=cycles, longest_s=0.4)

    check(figures)
    assert figures.unfinished > 0 or cycles == SHORT, "no crew was killed amid a generation"


def test_the_kills_would_show_a_crew_that_acknowledges_before_it_writes(tmp_path: Path) -> None:
    figures = kill_crews(tmp_path / "g", cycles=3, longest_s=0.1, mode="acknowledges first")

    assert figures.lost > 0


@pytest.mark.parametrize("cycles", cycles(SHORT_CUTS, LONG_CUTS))
def test_whenever_the_power_is_cut_nothing_acknowledged_is_lost_and_no_answer_is_wrong(
    tmp_path: Path, cycles: int
) -> None:
    check(cut_power(tmp_path, cycles=cycles, longest_s=0.6))


def test_the_power_cuts_would_show_a_crew_that_does_not_wait_for_the_disk(tmp_path: Path) -> None:
    figures = cut_power(
        tmp_path, cycles=3, longest_s=0.4, mode="syncs now and then", background=True
    )

    assert figures.lost > 0
