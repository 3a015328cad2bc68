"""How batches are cut, for whatever was measured."""

from itertools import combinations_with_replacement

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vision.inference.cuda.batch_plan import (
    SIZES,
    BatchPlan,
    most_in_memory,
    most_in_time,
    padded,
    pays,
)

SMALL = (1, 2, 4, 8)


def turns(plan: BatchPlan, count: int) -> list[int]:
    sizes = []
    while count > 0:
        sizes.append(plan.turn(count))
        count -= sizes[-1]
    return sizes


@given(st.fixed_dictionaries({size: st.floats(0.001, 1) for size in SMALL}), st.integers(1, 8))
def test_no_other_turns_would_take_less_time(seconds: dict[int, float], count: int) -> None:
    took_s = sum(seconds[size] for size in turns(BatchPlan(seconds, most=8), count))
    others = (
        sum(seconds[size] for size in sizes)
        for number in range(1, count + 1)
        for sizes in combinations_with_replacement(SMALL, number)
        if sum(sizes) >= count
    )
    assert took_s <= min(others) + 1e-9


@given(st.integers(1, 2000), st.integers(1, 256))
def test_whatever_is_recorded_every_image_has_a_turn(count: int, most: int) -> None:
    for seconds in ({}, {1: 0.1}, {1: 0.1, 32: 0.2, 256: 1.0}):
        sizes = turns(BatchPlan(seconds, most=most), count)
        assert sum(sizes) >= count
        assert max(sizes) <= most


def test_padding_is_the_least_there_is() -> None:
    for count in range(1, SIZES[-1] + 1):
        assert padded(count) == min(size for size in SIZES if size >= count)
    assert padded(10_000) == SIZES[-1]


@pytest.mark.parametrize(("side", "most"), [(28, 256), (224, 256), (384, 128), (2000, 32)])
def test_large_images_are_held_in_smaller_batches(side: int, most: int) -> None:
    assert most_in_memory(3 * side**2) == most


@pytest.mark.parametrize(
    ("seconds", "most", "expected"),
    [
        ({}, 256, 256),
        ({1: 0.001, 32: 0.0056}, 256, 256),
        ({1: 0.001, 32: 0.02}, 256, 64),
        ({32: 0.5}, 256, 32),
        ({32: 0.5}, 16, 16),
    ],
)
def test_batches_end_where_they_would_take_too_long(
    seconds: dict[int, float], most: int, expected: int
) -> None:
    assert most_in_time(seconds, most) == expected


def test_a_size_pays_that_does_more_images_a_second() -> None:
    assert pays({32: 0.32}, 32)
    assert pays({32: 0.32, 64: 0.5}, 64)
    assert not pays({32: 0.32, 64: 0.639}, 64)
