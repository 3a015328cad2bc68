"""Votes: how hits weigh by nearness, ties, and hits without a label."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from index.items.item import Hit
from index.query.knn_vote import TEMPERATURE, Vote, vote


def hit(score: float, label: str | None) -> Hit:
    return Hit(f"{label}-{score}", score, label, {})


def test_a_nearer_hit_weighs_e_times_as_much_per_temperature() -> None:
    votes = vote([hit(0.9, "coat"), hit(0.9 - TEMPERATURE, "bag")])

    assert [one.label for one in votes] == ["coat", "bag"]
    assert votes[0].share == pytest.approx(math.e * votes[1].share)


def test_one_near_hit_outvotes_two_that_are_far() -> None:
    assert vote([hit(0.95, "coat"), hit(0.7, "bag"), hit(0.7, "bag")])[0].label == "coat"


def test_of_equal_shares_the_one_with_the_nearest_hit_comes_first() -> None:
    # hat and bag have the same scores in another order; 0.3 + 0.1 + 0.2 rounds as its orders do.
    scores = [0.3, 0.3, 0.2, 0.2, 0.1, 0.1]
    labels = ["hat", "bag", "bag", "hat", "hat", "bag"]

    votes = vote([hit(score, label) for score, label in zip(scores, labels, strict=True)])

    assert votes == [Vote("hat", 0.5), Vote("bag", 0.5)]


def test_hits_without_a_label_do_not_vote() -> None:
    assert vote([hit(0.99, None), hit(0.5, "coat"), hit(0.4, None)]) == [Vote("coat", 1.0)]
    assert vote([hit(0.99, None)]) == []
    assert vote([]) == []


@given(
    st.lists(st.tuples(st.floats(-1, 1), st.sampled_from([None, "a", "b", "c"])), max_size=50).map(
        lambda hits: [hit(*one) for one in sorted(hits, key=lambda one: -one[0])]
    )
)
def test_shares_add_up_to_one_and_come_in_order(hits: list[Hit]) -> None:
    votes = vote(hits)

    assert {one.label for one in votes} == {one.label for one in hits} - {None}
    assert [one.share for one in votes] == sorted((one.share for one in votes), reverse=True)
    assert not votes or math.fsum(one.share for one in votes) == pytest.approx(1)
