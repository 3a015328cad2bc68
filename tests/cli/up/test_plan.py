"""What `up` says beforehand about the time that `auto` takes: the arithmetic behind the plan."""

from collections import Counter
from dataclasses import replace

import pytest

from cli.up.plan import BY_OPENVINO, make_plan
from cli.up.survey import Survey
from training.recipes.auto_recipe import auto_recipe

EACH_S = 0.05  # of a photo in a network

PHOTOS = Survey(
    photos=1000,
    classes={"cup": 500, "shoe": 500},
    unlabelled=0,
    bytes=10**8,
    sampled=100,
    broken=0,
    copies=0,
    things=0,
    formats=Counter({"JPEG": 100}),
    size=(400, 300),
    decode_s=0.0,
)


@pytest.fixture(autouse=True)
def every_network_takes_as_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.statistics.latency.forward_s", lambda *_: EACH_S)


def train_s(survey: Survey, *, budget_s: float, gray_side: int | None = None) -> float:
    recipe = auto_recipe(budget_s=budget_s).adapted_to(survey.photos, gray_side)
    return make_plan(recipe, survey, device="cpu").train_s


def test_training_takes_what_all_candidates_take_and_at_most_the_budget() -> None:
    two_networks = 2 * (1000 + 1200) * EACH_S * BY_OPENVINO
    learning_on = 800 * 12 * EACH_S / 2
    assert train_s(PHOTOS, budget_s=1e6) == pytest.approx(two_networks + learning_on)
    assert train_s(PHOTOS, budget_s=120) == 120
    without = replace(PHOTOS, classes={}, unlabelled=1000)
    assert train_s(without, budget_s=1e6) == pytest.approx(two_networks)


def test_the_first_network_is_tried_whatever_the_budget_is() -> None:
    many = replace(PHOTOS, photos=40_000)
    assert train_s(many, budget_s=10) == pytest.approx(41_200 * EACH_S * BY_OPENVINO)


def test_small_gray_pictures_take_a_training_from_scratch_more() -> None:
    more_s = train_s(PHOTOS, budget_s=1e6, gray_side=28) - train_s(PHOTOS, budget_s=1e6)
    assert more_s == pytest.approx(2 * 800 * 100 * 3 * EACH_S)  # twice a hundred epochs
