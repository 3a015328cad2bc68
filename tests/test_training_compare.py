"""Paired tests, and `lookalike compare` on tiny networks with random weights."""

import json
from itertools import product
from math import comb
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.stats
import typer
from click.testing import Result
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from cli.compare import compare as compare_command
from tests.test_training_evaluate import squares_dataset, write_squares, write_tiny_model
from training.compare import TESTED, Comparison, compare, measure_contender
from training.data import Dataset
from training.errors import DataError
from training.significance import (
    PairedDifference,
    compare_means,
    compare_shares,
    mean_interval,
    share_interval,
)

seeds = st.integers(0, 2**31)


# Intervals


@given(images=st.integers(1, 5000), share=st.floats(0, 1))
def test_the_interval_of_a_share_is_wilsons(images: int, share: float) -> None:
    right = round(share * images)
    expected = scipy.stats.binomtest(right, images).proportion_ci(method="wilson")
    assert share_interval(right, images) == pytest.approx((expected.low, expected.high))
    low, high = share_interval(right, images)
    assert 0 <= low <= right / images <= high <= 1


@settings(deadline=None)
@given(seed=seeds, count=st.integers(2, 50))
def test_the_interval_of_a_mean_is_students(seed: int, count: int) -> None:
    values_N = np.random.default_rng(seed).normal(size=count)
    expected = scipy.stats.ttest_1samp(values_N, 0).confidence_interval()
    assert mean_interval(values_N, low=-9, high=9) == pytest.approx(
        (max(expected.low, -9), min(expected.high, 9))
    )


def test_one_value_says_nothing_and_equal_ones_leave_no_doubt() -> None:
    assert mean_interval(np.array([0.5]), low=0, high=1) == (0, 1)
    assert mean_interval(np.full(9, 0.5), low=0, high=1) == (0.5, 0.5)


# Paired tests


@settings(deadline=None)
@given(seed=seeds, images=st.integers(1, 40))
def test_shares_are_compared_by_their_discordant_pairs(seed: int, images: int) -> None:
    rng = np.random.default_rng(seed)
    base_N, new_N = rng.random(images) < 0.7, rng.random(images) < 0.5
    lost, won = int((base_N & ~new_N).sum()), int((~base_N & new_N).sum())
    pairs = lost + won
    found = compare_shares(base_N, new_N)
    chances = [comb(pairs, number) / 2**pairs for number in range(pairs + 1)]
    assert found.difference == pytest.approx(float(new_N.mean()) - float(base_N.mean()))
    assert found.p_worse == pytest.approx(sum(chances[lost:]))
    assert found.p_two_sided == pytest.approx(min(1, 2 * sum(chances[max(lost, won) :])))


@settings(max_examples=25, deadline=None)
@given(seed=seeds, images=st.integers(1, 9))
def test_means_are_compared_as_if_all_signs_were_tried(seed: int, images: int) -> None:
    rng = np.random.default_rng(seed)
    base_N, new_N = rng.integers(0, 5, (2, images)) / 4
    change_N = new_N - base_N
    sums = [float(change_N @ signs) for signs in product((-1, 1), repeat=images)]
    found = compare_means(base_N, new_N)
    assert found.difference == pytest.approx(change_N.mean())
    assert found.p_worse == pytest.approx(np.mean(np.array(sums) <= change_N.sum()), abs=0.025)
    assert found.p_two_sided == pytest.approx(
        np.mean(np.abs(sums) >= abs(change_N.sum())), abs=0.025
    )


@settings(max_examples=25, deadline=None)
@given(seed=seeds, images=st.integers(15, 60))
def test_turning_the_models_round_turns_the_difference_round(seed: int, images: int) -> None:
    base_N, new_N = np.random.default_rng(seed).random((2, images))
    there, back = compare_means(base_N, new_N), compare_means(new_N, base_N)
    assert back.difference == -there.difference
    assert back.interval == pytest.approx((-there.interval[1], -there.interval[0]))
    assert back.p_two_sided == pytest.approx(there.p_two_sided)
    assert there.p_worse + back.p_worse == pytest.approx(1, abs=0.03)


def test_the_size_of_a_chunk_of_flips_changes_little(monkeypatch: pytest.MonkeyPatch) -> None:
    base_N, new_N = np.random.default_rng(0).random((2, 50))
    whole = compare_means(base_N, new_N)
    monkeypatch.setattr("training.significance.FLIPPED_BYTES", 8 * 50 * 7)
    assert compare_means(base_N, new_N).p_worse == pytest.approx(whole.p_worse, abs=0.02)


def test_a_clear_loss_is_sure_and_no_p_is_zero() -> None:
    rng = np.random.default_rng(0)
    base_N = rng.random(400)
    found = compare_means(base_N, base_N - 0.1 * rng.random(400))
    assert found.p_worse == found.p_two_sided == 1 / 10_001
    assert found.interval[1] < 0
    sure = compare_shares(np.ones(50, np.bool_), np.arange(50) % 2 == 0)
    assert sure.p_worse == pytest.approx(0.5**25)


def test_the_same_outcome_is_no_difference() -> None:
    values_N = np.random.default_rng(0).random(30)
    for same in (compare_means(values_N, values_N), compare_shares(values_N > 0.5, values_N > 0.5)):
        assert (same.difference, same.p_worse, same.p_two_sided) == (0, 1, 1)
        assert same.interval == (0, 0)


@pytest.mark.parametrize("compare_outcomes", ["means", "shares"])
def test_of_models_that_are_as_good_one_in_twenty_seems_worse(compare_outcomes: str) -> None:
    rng = np.random.default_rng(0)
    false_alarms = 0
    for _ in range(200):
        values_2N = rng.random((2, 60))
        found = (
            compare_means(*values_2N)
            if compare_outcomes == "means"
            else compare_shares(*(values_2N > 0.3))
        )
        false_alarms += found.p_worse <= 0.05
    assert false_alarms <= 20  # 10 expected; more than 20 has a chance of 0.1 %


# Comparison


def paired(difference: float, p_worse: float) -> PairedDifference:
    return PairedDifference(
        difference=difference, interval=(-1, 1), p_worse=p_worse, p_two_sided=1.0
    )


def test_a_figure_is_lost_when_it_is_lower_and_surely_so() -> None:
    comparison = Comparison(
        new="new",
        base="base",
        differences={
            "accuracy": paired(-0.01, 0.04),
            "r_at_1": paired(-0.01, 0.2),
            "map": paired(0.01, 0.97),
            "map_at_r": paired(0, 1),
        },
    )
    everything = tuple(comparison.differences)
    assert comparison.lost(everything, alpha=0.05) == ("accuracy",)
    assert comparison.lost(everything, alpha=1) == ("accuracy", "r_at_1")
    assert comparison.lost(("map", "r_at_1"), alpha=0.05) == ()


def test_models_measured_on_other_images_are_not_compared(tmp_path: Path) -> None:
    write_tiny_model(tmp_path / "m")
    whole = squares_dataset()
    part = Dataset(name="part", train=whole.train, test=whole.test.only(np.arange(25)))
    contenders = [measure_contender(tmp_path / "m", data, device="cpu") for data in (whole, part)]
    with pytest.raises(DataError, match="not measured on the same images: 30 and 25 of them"):
        compare(*contenders)


# The command

app = typer.Typer()
app.command()(compare_command)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of model folders: two networks, one for larger images, two of other classes."""
    folder = tmp_path_factory.mktemp("models")
    write_tiny_model(folder / "first", seed=0)
    write_tiny_model(folder / "second", seed=1)
    write_tiny_model(folder / "larger", seed=2, size=20)
    write_tiny_model(folder / "other", labels=("large", "middle", "tiny"))
    write_tiny_model(folder / "withheld", data={"held_out_classes": ["huge"]})
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_squares(tmp_path_factory.mktemp("squares"))


def run(models: Path, data: Path, *names_and_options: str) -> Result:
    asked = [str(models / name) if (models / name).is_dir() else name for name in names_and_options]
    return CliRunner().invoke(app, [*asked, "--data", str(data), "--device", "cpu"])


def lower_figure(differences: dict[str, Any]) -> str:
    return next(name for name in TESTED if differences[name]["difference"] < 0)


def test_every_new_model_is_compared_with_the_first(models: Path, data: Path) -> None:
    result = run(models, data, "first", "second", "larger", "--json")
    assert result.exit_code == 0, result.output
    printed = json.loads(result.stdout)
    assert [Path(model["folder"]).name for model in printed["models"]] == [
        *("first", "second", "larger")
    ]
    base, *others = (model["figures"] for model in printed["models"])
    assert list(base) == [*TESTED, "calibration_error", "parameters", "ms_one_image"]
    assert printed["images"] == 30
    for figures, comparison in zip(others, printed["comparisons"], strict=True):
        assert list(comparison["differences"]) == list(TESTED)
        for name, difference in comparison["differences"].items():
            assert difference["difference"] == pytest.approx(figures[name] - base[name])
            low, high = difference["interval"]
            assert low <= difference["difference"] <= high
    assert printed["lost"] == {}


def test_a_lost_figure_ends_with_exit_code_1_after_the_results(models: Path, data: Path) -> None:
    printed = json.loads(run(models, data, "first", "second", "--json").stdout)
    figure = lower_figure(printed["comparisons"][0]["differences"])
    guard = ["--must-not-lose", f" {figure}, map", "--alpha", "1"]
    lost = run(models, data, "first", "second", *guard)
    assert lost.exit_code == 1
    assert f"worse than {models / 'first'} at alpha 1: {models / 'second'}: {figure}" in lost.stderr
    for name in (*TESTED, "calibration_error", "parameters", "ms_one_image"):
        assert f"\n {name} " in lost.stdout
    assert "…" not in lost.stdout  # it fits 80 columns
    as_json = run(models, data, "first", "second", *guard, "--json")
    assert as_json.exit_code == 1
    assert figure in json.loads(as_json.stdout)["lost"][str(models / "second")]

    sure = run(models, data, "first", "second", "--must-not-lose", figure, "--alpha", "0")
    assert sure.exit_code == 0


def test_a_model_loses_nothing_to_itself(models: Path, data: Path) -> None:
    guard = ["--must-not-lose", ",".join(TESTED), "--alpha", "1"]
    assert run(models, data, "first", "first", *guard).exit_code == 0


@pytest.mark.parametrize(
    ("other", "sentence"),
    [
        ("other", r"know different classes \(only one has small, tiny\)"),
        ("withheld", r"held out different classes \(only one has huge\)"),
    ],
)
def test_models_of_other_classes_are_not_compared(
    models: Path, data: Path, other: str, sentence: str
) -> None:
    result = run(models, data, "first", other)
    assert isinstance(result.exception, DataError)
    with pytest.raises(DataError, match=sentence):
        raise result.exception


@pytest.mark.parametrize(
    "wrong",
    [
        ["first"],
        ["first", "second", "--must-not-lose", "accuracy,speed"],
        ["first", "second", "--alpha", "1.5"],
    ],
)
def test_wrong_use_ends_with_exit_code_2(models: Path, data: Path, wrong: list[str]) -> None:
    result = run(models, data, *wrong)
    assert result.exit_code == 2
    assert result.stdout == ""
