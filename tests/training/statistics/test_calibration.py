"""Temperatures and calibration errors, against torchmetrics and made-up truths."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.special import log_softmax, softmax
from torchmetrics.functional.classification import multiclass_calibration_error

from training.evaluation.confidence_statements import calibration_statement
from training.statistics.calibration import (
    CalibrationFigures,
    calibration_error,
    choose_temperature,
    fit_temperature,
    measure_calibration,
    reliability,
    uncalibrated,
)

seeds = st.integers(0, 2**31)


def honest_logits(
    rng: np.random.Generator, images: int, labels: int
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return logits, and labels drawn with the very probabilities that the logits state."""
    logits_NL = 2 * rng.normal(size=(images, labels))
    chances_NL = softmax(logits_NL, axis=1)
    drawn_N = (chances_NL.cumsum(axis=1) > rng.random((images, 1))).argmax(axis=1)
    return logits_NL, drawn_N


def loss(logits_NL: NDArray[np.floating], labels_N: NDArray[np.int64], temperature: float) -> float:
    chances_NL = log_softmax(logits_NL.astype(np.float64) / temperature, axis=1)
    return float(-chances_NL[np.arange(len(labels_N)), labels_N].mean())


@pytest.mark.parametrize("temperature", [0.4, 1.0, 2.5, 8.0])
def test_the_temperature_that_spoiled_honest_logits_is_found(temperature: float) -> None:
    logits_NL, labels_N = honest_logits(np.random.default_rng(0), 20_000, 5)
    assert fit_temperature(logits_NL * temperature, labels_N) == pytest.approx(
        temperature, rel=0.03
    )


@settings(max_examples=40, deadline=None)
@given(seed=seeds, images=st.integers(1, 30), labels=st.integers(2, 6))
def test_no_other_temperature_has_a_lower_loss(seed: int, images: int, labels: int) -> None:
    rng = np.random.default_rng(seed)
    logits_NL = (5 * rng.normal(size=(images, labels))).astype(np.float32)
    labels_N = rng.integers(0, labels, images)
    temperature = fit_temperature(logits_NL, labels_N)
    assert 0.05 <= temperature <= 20
    if (logits_NL.argmax(axis=1) == labels_N).all():
        assert temperature == 1
    else:
        tried = (loss(logits_NL, labels_N, other) for other in np.geomspace(0.05, 20, 60))
        assert loss(logits_NL, labels_N, temperature) <= min(tried) + 1e-6


def test_where_the_data_say_nothing_the_temperature_stays_one() -> None:
    right = np.array([[3.0, 0.0], [0.0, 50.0]])
    assert fit_temperature(right, np.array([0, 1])) == 1  # the surer, the better: no minimum
    assert fit_temperature(right[:1], np.array([0])) == 1
    assert fit_temperature(np.zeros((4, 3)), np.array([0, 1, 2, 0])) == 1  # all the same


def test_one_wrong_image_gives_a_temperature_in_range() -> None:
    assert fit_temperature(np.array([[1e4, 0.0]]), np.array([1])) == pytest.approx(20, rel=1e-3)


@settings(max_examples=40, deadline=None)
@given(seed=seeds, temperature=st.floats(0.3, 4))
def test_calibration_is_undone_up_to_rounding(seed: int, temperature: float) -> None:
    logits_NL = 4 * np.random.default_rng(seed).normal(size=(10, 4))
    calibrated_NL = softmax(logits_NL / temperature, axis=1).astype(np.float32)
    raw_NL = uncalibrated(calibrated_NL, temperature)
    np.testing.assert_allclose(raw_NL, softmax(logits_NL, axis=1), rtol=1e-5, atol=1e-9)


def test_what_vanished_in_float32_does_no_harm() -> None:
    raw_NL = uncalibrated(np.array([[1, 0, 0]], np.float32), 1.5)
    assert raw_NL[0] == pytest.approx([1, 0, 0])
    assert np.isfinite(raw_NL).all()


@settings(max_examples=40, deadline=None)
@given(seed=seeds, images=st.integers(1, 400))
def test_the_calibration_error_is_that_of_torchmetrics(seed: int, images: int) -> None:
    rng = np.random.default_rng(seed)
    probabilities_NL = rng.dirichlet(np.full(5, 0.4), images).astype(np.float32)
    labels_N = rng.integers(0, 5, images)
    expected = multiclass_calibration_error(
        torch.from_numpy(probabilities_NL), torch.from_numpy(labels_N), num_classes=5, n_bins=15
    )
    assert calibration_error(probabilities_NL, labels_N) == pytest.approx(expected.item(), abs=1e-5)


@settings(max_examples=40, deadline=None)
@given(seed=seeds, images=st.integers(1, 100))
def test_every_image_lies_in_the_bin_of_its_confidence(seed: int, images: int) -> None:
    rng = np.random.default_rng(seed)
    probabilities_NL = rng.dirichlet(np.full(3, 0.3), images).astype(np.float32)
    labels_N = rng.integers(0, 3, images)
    bins = reliability(probabilities_NL, labels_N)
    assert len(bins) == 15
    assert sum(bin_.images for bin_ in bins) == images
    right = 0.0
    for bin_ in bins:
        if bin_.images:
            assert bin_.confidence is not None
            assert bin_.accuracy is not None
            assert bin_.low - 1e-6 <= bin_.confidence <= bin_.high + 1e-6
            right += bin_.accuracy * bin_.images
        else:
            assert (bin_.confidence, bin_.accuracy) == (None, None)
    assert right == pytest.approx((probabilities_NL.argmax(axis=1) == labels_N).sum())


def test_certain_and_right_has_no_calibration_error_certain_and_wrong_has_all() -> None:
    certain = np.eye(3, dtype=np.float32)
    assert calibration_error(certain, np.arange(3)) == 0
    assert calibration_error(certain, (np.arange(3) + 1) % 3) == 1


def test_a_fitted_temperature_mends_the_calibration_error() -> None:
    logits_NL, labels_N = honest_logits(np.random.default_rng(1), 4000, 5)
    bold_NL = 3 * logits_NL
    temperature = fit_temperature(bold_NL[:2000], labels_N[:2000])
    before = calibration_error(softmax(bold_NL[2000:], axis=1), labels_N[2000:])
    after = calibration_error(softmax(bold_NL[2000:] / temperature, axis=1), labels_N[2000:])
    assert before > 0.1
    assert after < 0.03


# With few images


def believable_logits(
    rng: np.random.Generator, images: int
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return logits of ten classes, one of them likely, and labels drawn as the logits state."""
    logits_NL = 2 * rng.normal(size=(images, 10))
    logits_NL[np.arange(images), rng.integers(0, 10, images)] += 4
    chances_NL = softmax(logits_NL, axis=1)
    return logits_NL, (chances_NL.cumsum(axis=1) > rng.random((images, 1))).argmax(axis=1)


def measured(images: int, *, seed: int, boldness: float = 1.0) -> CalibrationFigures:
    logits_NL, labels_N = believable_logits(np.random.default_rng(seed), images)
    return measure_calibration(softmax(boldness * logits_NL, axis=1), labels_N)


@pytest.mark.parametrize(("images", "most"), [(20, 0.06), (73, 0.045), (341, 0.02)])
def test_honest_probabilities_read_hardly_any_error_beyond_chance(images: int, most: float) -> None:
    found = [measured(images, seed=seed) for seed in range(40)]
    assert np.mean([one.beyond_chance for one in found]) < most
    assert np.mean([one.error for one in found]) == pytest.approx(
        np.mean([one.honest for one in found]), rel=0.15
    )
    assert sum(one.shown for one in found) <= 6  # 2 are expected


@pytest.mark.parametrize("images", [341, 1000])
def test_the_error_of_bold_probabilities_is_beyond_chance_and_near_the_true_one(
    images: int,
) -> None:
    logits_NL, labels_N = believable_logits(np.random.default_rng(99), 50_000)
    true = calibration_error(softmax(3 * logits_NL, axis=1), labels_N)
    found = [measured(images, seed=seed, boldness=3) for seed in range(20)]
    assert np.mean([one.beyond_chance for one in found]) == pytest.approx(true, rel=0.1)
    assert all(one.shown for one in found)
    assert sum(one.interval[0] <= true <= one.interval[1] for one in found) >= 17


@settings(max_examples=40, deadline=None)
@given(seed=seeds, images=st.integers(1, 60))
def test_the_figures_of_calibration_are_in_order(seed: int, images: int) -> None:
    rng = np.random.default_rng(seed)
    probabilities_NL = rng.dirichlet(np.full(3, 0.3), images).astype(np.float32)
    labels_N = rng.integers(0, 3, images)
    found = measure_calibration(probabilities_NL, labels_N)
    assert found.error == calibration_error(probabilities_NL, labels_N)
    low, high = found.interval
    assert 0 <= low <= found.beyond_chance <= high <= 1
    assert found.beyond_chance <= found.error + 1e-12
    assert 0 <= found.honest <= 1
    assert found == measure_calibration(probabilities_NL, labels_N)


def test_where_all_images_are_wrong_the_interval_still_has_a_width() -> None:
    probabilities_NL = np.tile([0.4, 0.3, 0.3], (24, 1))
    low, high = measure_calibration(probabilities_NL, np.full(24, 1)).interval
    assert high - low > 0.1


def test_words_say_whether_an_error_is_more_than_luck() -> None:
    honest, bold = measured(73, seed=0), measured(341, seed=0, boldness=3)
    assert "shows nothing: on this many images even honest" in calibration_statement(honest)
    assert "beyond chance" in calibration_statement(bold)


@pytest.mark.parametrize("images", [3, 12, 19])
def test_a_temperature_is_not_fitted_to_a_handful_of_images(images: int) -> None:
    logits_NL, labels_N = believable_logits(np.random.default_rng(0), images)
    assert choose_temperature(3 * logits_NL, labels_N) == 1


@pytest.mark.parametrize("images", [20, 60, 200])
def test_honest_logits_keep_the_temperature_of_one(images: int) -> None:
    chosen = [
        choose_temperature(*believable_logits(np.random.default_rng(seed), images))
        for seed in range(30)
    ]
    assert sum(temperature != 1 for temperature in chosen) <= 3


@pytest.mark.parametrize("boldness", [0.4, 3.0])
def test_a_temperature_that_helps_is_kept_as_it_was_fitted(boldness: float) -> None:
    logits_NL, labels_N = believable_logits(np.random.default_rng(1), 400)
    chosen = choose_temperature(boldness * logits_NL, labels_N)
    assert chosen == fit_temperature(boldness * logits_NL, labels_N) != 1


def test_a_chosen_temperature_makes_hardly_anything_worse_out_of_sample() -> None:
    changes = []
    for seed in range(30):
        rng = np.random.default_rng(seed)
        logits_NL, labels_N = believable_logits(rng, 30)
        others_NL, other_labels_N = believable_logits(rng, 2000)
        temperature = choose_temperature(1.2 * logits_NL, labels_N)
        changes.append(
            loss(1.2 * others_NL, other_labels_N, temperature)
            - loss(1.2 * others_NL, other_labels_N, 1)
        )
    assert np.mean(changes) < 0.003
    assert sum(change > 0.001 for change in changes) <= 2
