"""Ranges that say nothing beside others: left out, a filter lets through what it did."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from index.items.filter import Condition, Match, holds, parse_filter
from index.snapshot.filter_ranges import narrowest, widest

VALUES = st.integers(0, 4) | st.sampled_from([0.5, 2.0, 2**53, 2**53 + 1, -0.0])
TEXTS = st.sampled_from(["", "a", "b", "aa", "\u00df"])
BOUNDS = st.sampled_from(["gte", "gt", "lte", "lt"])
RANGES = st.one_of(
    *(st.dictionaries(BOUNDS, values, min_size=1, max_size=4) for values in (VALUES, TEXTS))
)
MEMBERS = st.dictionaries(
    st.sampled_from("ab"), st.one_of(VALUES, TEXTS, st.lists(VALUES | TEXTS, max_size=3))
)


def parsed(ranges: list[tuple[str, dict[str, Any]]]) -> tuple[Condition, ...]:
    return parse_filter({"must": [{"key": key, "range": one} for key, one in ranges]}).must


@given(
    ranges=st.lists(st.tuples(st.sampled_from("ab"), RANGES), min_size=1, max_size=8),
    members=MEMBERS,
)
def test_what_is_left_lets_through_the_same(
    ranges: list[tuple[str, dict[str, Any]]], members: dict[str, Any]
) -> None:
    conditions = parsed(ranges)
    metadata = json.dumps(members)

    def found(some: list[Condition] | tuple[Condition, ...]) -> list[bool]:
        return [holds(one, item_id="i", label=None, metadata=metadata) for one in some]

    assert all(found(narrowest(conditions))) == all(found(conditions))
    assert any(found(widest(conditions))) == any(found(conditions))


@pytest.mark.parametrize(
    ("ranges", "narrow", "wide"),
    [
        ([{"gte": 1}, {"gt": 1}, {"gte": 0}], [1], [2]),
        ([{"gte": 1, "lt": 5}, {"gte": 2, "lte": 4}], [1], [0]),
        ([{"gte": 1, "lt": 5}, {"gte": 2, "lte": 6}], [0, 1], [0, 1]),
        ([{"lt": 5}, {"lte": 5}, {"lt": 5}], [0], [1]),
        ([{"gte": 1}, {"gte": "1"}], [0, 1], [0, 1]),
        ([{"gte": 2**53}, {"gte": 2**53 + 1}], [1], [0]),
    ],
)
def test_a_range_in_another_is_enough(
    ranges: list[dict[str, Any]], narrow: list[int], wide: list[int]
) -> None:
    conditions = parsed([("n", one) for one in ranges])

    assert narrowest(conditions) == [conditions[place] for place in narrow]
    assert widest(conditions) == [conditions[place] for place in wide]


def test_other_conditions_and_other_keys_stay() -> None:
    conditions = (
        *parsed([("a", {"gte": 1}), ("b", {"gte": 2}), ("id", {"gt": "a"})]),
        *parse_filter({"must": [{"key": "a", "match": 1}, {"key": "a", "exists": True}]}).must,
    )

    for kept in (narrowest(conditions), widest(conditions)):
        assert len(kept) == len(conditions)
        assert set(kept) == set(conditions)
        assert isinstance(kept[0], Match)
