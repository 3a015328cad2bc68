"""Paired tests, and `lookalike compare` on tiny networks with random weights."""

import json
import re
from itertools import product
from math import comb
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.optimize
import scipy.special
import scipy.stats
import typer
from click.testing import Result
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from cli.compare import compare as compare_command
from tests.training.evaluation.test_evaluate import squares_dataset, write_squares, write_tiny_model
from training.data.dataset import Dataset
from training.errors import DataError
from training.evaluation.compare import TESTED, Comparison, compare_models, measure_for_comparison
from training.evaluation.confidence_statements import guard_statement
from training.statistics.significance import (
    PairedDifference,
    compare_means,
    compare_shares,
    mean_interval,
    noticed_drop,
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
def test_the_interval_of_a_mean_is_students_of_the_values_and_two_at_either_bound(
    seed: int, count: int
) -> None:
    values_N = np.random.default_rng(seed).random(count)
    padded = [*values_N, 0, 0, 1, 1]
    expected = scipy.stats.ttest_1samp(padded, 0).confidence_interval()
    mean = float(values_N.mean())
    assert mean_interval(values_N, low=0, high=1) == pytest.approx(
        (max(min(expected.low, mean), 0), min(max(expected.high, mean), 1))
    )


def test_one_value_says_nothing_and_equal_ones_leave_a_doubt() -> None:
    assert mean_interval(np.array([0.5]), low=0, high=1) == (0, 1)
    low, high = mean_interval(np.ones(20), low=0, high=1)
    assert low == pytest.approx(0.80, abs=0.01)
    assert high == 1


@pytest.mark.parametrize("images", [10, 20, 50])
@pytest.mark.parametrize(("wrong", "their_mean"), [(0.03, 0.2), (0.1, 0.5), (0.5, 0.5)])
def test_the_interval_of_a_mean_covers_it_near_the_bounds_too(
    images: int, wrong: float, their_mean: float
) -> None:
    rng = np.random.default_rng(1)
    mean, covered = 1 - wrong + wrong * their_mean, 0
    for _ in range(500):
        low_ones = rng.random(images) * 2 * their_mean
        values_N = np.where(rng.random(images) < wrong, np.minimum(low_ones, 1), 1.0)
        low, high = mean_interval(values_N, low=0, high=1)
        covered += low <= mean <= high
    assert covered / 500 >= 0.93


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
    monkeypatch.setattr("training.statistics.significance.FLIPPED_BYTES", 8 * 50 * 7)
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
        low, high = same.interval
        assert low == pytest.approx(-high)
        assert 0.1 < high < 0.2  # thirty equal answers do not make two models the same


def outcomes(images: int, *, lost: int = 0, won: int = 0) -> tuple[Any, Any]:
    """Return which images two models are right of; all that they do not differ on."""
    base_N, new_N = np.ones((2, images), np.bool_)
    new_N[:lost] = False
    base_N[lost : lost + won] = False
    return base_N, new_N


def score_of(lost: int, won: int, images: int, difference: float) -> float:
    """Return how many standard errors the data lie above ``difference``: the slow twin.

    The error is that of the most likely shares with this difference (Tango 1998), searched for.
    """

    def surprise(lost_share: float) -> float:
        shares = (lost_share, lost_share + difference, 1 - 2 * lost_share - difference)
        counts = (lost, won, images - lost - won)
        return -float(scipy.special.xlogy(counts, np.maximum(shares, 1e-300)).sum())

    least, most = max(0.0, -difference), (1 - difference) / 2
    found = scipy.optimize.minimize_scalar(
        surprise, bounds=(least, most), method="bounded", options={"xatol": 1e-12}
    )
    variance = images * (2 * found.x + difference - difference**2)
    return float((won - lost - images * difference) / np.sqrt(variance))


@pytest.mark.parametrize(
    ("images", "lost", "won"), [(44, 1, 0), (44, 0, 1), (50, 8, 3), (341, 10, 25), (20, 12, 8)]
)
def test_paired_shares_have_the_score_interval_of_tango(images: int, lost: int, won: int) -> None:
    low, high = compare_shares(*outcomes(images, lost=lost, won=won)).interval
    assert score_of(lost, won, images, low) == pytest.approx(1.96, abs=2e-3)
    assert score_of(lost, won, images, high) == pytest.approx(-1.96, abs=2e-3)


def test_the_interval_of_paired_shares_has_a_width_at_the_ends() -> None:
    reach = 1.96**2 / (20 + 1.96**2)
    agreed = compare_shares(*outcomes(20)).interval
    assert agreed == pytest.approx((-reach, reach), abs=1e-4)
    low, high = compare_shares(*outcomes(20, lost=20)).interval
    assert (low, high) == (-1, pytest.approx(2 * reach - 1, abs=1e-4))


@pytest.mark.parametrize("images", [10, 20, 50, 200])
@pytest.mark.parametrize(("loses", "wins"), [(0, 0), (0.01, 0.01), (0.05, 0), (0.3, 0.2)])
def test_the_interval_and_the_bound_of_paired_shares_cover_the_difference(
    images: int, loses: float, wins: float
) -> None:
    rng = np.random.default_rng(2)
    covered = bounded = 0
    for lost, won, _ in rng.multinomial(images, [loses, wins, 1 - loses - wins], size=300):
        found = compare_shares(*outcomes(images, lost=int(lost), won=int(won)))
        covered += found.interval[0] <= wins - loses <= found.interval[1]
        bounded += found.lowest <= wins - loses
    assert covered / 300 >= 0.92
    assert bounded / 300 >= 0.91


@pytest.mark.parametrize(("images", "won"), [(20, 0.0), (100, 0.05), (400, 0.02)])
def test_a_drop_that_would_be_noticed_is_shown_four_times_of_five(images: int, won: float) -> None:
    drop = noticed_drop(images, won=won)
    assert drop is not None
    rng = np.random.default_rng(3)
    draws = rng.multinomial(images, [won + drop, won, 1 - drop - 2 * won], size=400)
    shown = [
        compare_shares(*outcomes(images, lost=int(lost), won=int(wins))).p_worse <= 0.05
        for lost, wins, _ in draws
    ]
    assert np.mean(shown) == pytest.approx(0.8, abs=0.06)


def test_with_few_images_only_large_drops_are_noticed_and_with_four_none() -> None:
    assert noticed_drop(4) is None  # four losses of four have a p of .0625
    drops = [noticed_drop(images) for images in (20, 341, 10_000)]
    assert drops == pytest.approx([0.3133, 0.0196, 0.0007], abs=3e-4)


def test_of_twenty_right_ones_four_lost_are_not_shown_but_not_excluded_either() -> None:
    found = compare_shares(*outcomes(20, lost=4))
    assert found.p_worse == pytest.approx(0.0625)
    assert found.noticed == pytest.approx(0.3133, abs=1e-3)
    assert found.lowest < -0.35
    sentence = guard_statement("accuracy", found, 20, 0.05)
    assert "a drop of less than 31 points would hardly have been noticed" in sentence
    assert "20 points lower here, which does not exclude chance (p = 0.062" in sentence


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
        difference=difference,
        interval=(-1, 1),
        p_worse=p_worse,
        p_two_sided=1.0,
        lowest=difference - 0.02,
        noticed=0.01,
    )


def comparison_at(alpha: float) -> Comparison:
    return Comparison(
        new="new",
        base="base",
        images=100,
        alpha=alpha,
        differences={
            "accuracy": paired(-0.01, 0.04),
            "r_at_1": paired(-0.01, 0.2),
            "map": paired(0.01, 0.97),
            "map_at_r": paired(0, 1),
            "same_item": paired(-0.03, 0.02),
        },
        counts=dict.fromkeys(("accuracy", "r_at_1", "map", "map_at_r"), 100) | {"same_item": 80},
    )


def test_a_figure_is_lost_when_it_is_lower_and_surely_so() -> None:
    everything = ("accuracy", "r_at_1", "map", "map_at_r")
    assert comparison_at(0.05).lost(everything) == ("accuracy",)
    assert comparison_at(1).lost(everything) == ("accuracy", "r_at_1")
    assert comparison_at(0.05).lost(("map", "r_at_1")) == ()
    assert comparison_at(0.05).lost(("same_item",)) == ("same_item",)
    assert comparison_at(0.01).lost(("same_item",)) == ()
    assert comparison_at(0.05).to_json()["differences"]["same_item"]["images"] == 80


def test_with_a_margin_what_may_be_lost_is_lost() -> None:
    everything = ("accuracy", "r_at_1", "map", "map_at_r")
    assert comparison_at(0.05).lost(everything, margin=0.025) == ("accuracy", "r_at_1")
    assert comparison_at(0.05).lost(everything, margin=0.015) == ("accuracy", "r_at_1", "map_at_r")
    assert comparison_at(0.05).lost(everything, margin=0.04) == ()


def test_models_are_paired_by_the_content_of_the_files_not_by_their_places(tmp_path: Path) -> None:
    write_tiny_model(tmp_path / "m")
    whole = squares_dataset()
    turned = np.random.default_rng(0).permutation(30)[:25]
    part = Dataset(name="part", train=whole.train, test=whole.test.take(turned))
    contenders = [
        measure_for_comparison(tmp_path / "m", data, device="cpu") for data in (whole, part)
    ]
    comparison = compare_models(*contenders)
    assert comparison.images == 25
    by_class = [paired for name, paired in comparison.differences.items() if name != "same_item"]
    assert len(by_class) == 5  # the same thing is also searched for among the other test images
    assert all(paired.difference == 0 for paired in by_class)
    assert all(paired.p_two_sided == 1 for paired in by_class)


def test_models_measured_on_no_image_in_common_are_not_compared(tmp_path: Path) -> None:
    write_tiny_model(tmp_path / "m")
    whole = squares_dataset()
    contenders = [
        measure_for_comparison(
            tmp_path / "m",
            Dataset(name="part", train=whole.train, test=whole.test.take(positions)),
            device="cpu",
        )
        for positions in (np.arange(15), np.arange(15, 30))
    ]
    with pytest.raises(DataError, match="were measured on no image in common"):
        compare_models(*contenders)


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
        assert re.search(rf"(?m)^ ?{name} ", lost.stdout)
    assert "…" not in lost.stdout  # it fits 80 columns
    as_json = run(models, data, "first", "second", *guard, "--json")
    assert as_json.exit_code == 1
    assert figure in json.loads(as_json.stdout)["lost"][str(models / "second")]

    sure = run(models, data, "first", "second", "--must-not-lose", figure, "--alpha", "0")
    assert sure.exit_code == 0
    assert f"{figure}: with 30 images, no drop would have been noticed." in sure.stderr


def test_a_gate_says_what_it_could_have_seen_and_a_margin_turns_the_proof_round(
    models: Path, data: Path
) -> None:
    passed = run(models, data, "first", "first", "--must-not-lose", "accuracy")
    assert passed.exit_code == 0
    assert "accuracy: with 30 images, a drop of less than 21 points would hardly" in passed.stderr
    refused = run(models, data, "first", "first", "--must-not-lose", "accuracy", "--margin", "0.05")
    assert refused.exit_code == 1
    assert "a loss of more than 5.0 points against" in refused.stderr
    wide = run(models, data, "first", "first", "--must-not-lose", "accuracy", "--margin", "0.1")
    assert wide.exit_code == 0, wide.output


def test_models_that_count_their_classes_in_another_order_are_compared(
    models: Path, data: Path, tmp_path: Path
) -> None:
    write_tiny_model(tmp_path / "turned", labels=("small", "large", "middle"))
    result = run(models, data, "first", str(tmp_path / "turned"), "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["images"] == 30


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
