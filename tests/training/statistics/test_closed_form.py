"""Heads in closed form, against scikit-learn and against the definition."""

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.preprocessing import StandardScaler

from training.data.images.labelled_images import UNLABELLED
from training.heads.item_head import fit_item_layer
from training.statistics.closed_form import FeatureSpace
from training.statistics.discriminants import ClassScatter, Moments

FEATURES = 12


def features(count: int, *, seed: int = 0) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return features of three classes that overlap, on scales and about means of their own."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, count)
    mixed = rng.normal(size=(count, FEATURES)) @ rng.normal(size=(FEATURES, FEATURES))
    rows = (mixed + 2 * labels[:, None]) * rng.uniform(0.1, 10, FEATURES) + 5
    return rows.astype(np.float32), labels.astype(np.int64)


@pytest.mark.parametrize("count", [9, 200], ids=["fewer images than features", "many"])
@pytest.mark.parametrize("shrinkage", [0.1, 0.7])
def test_scores_are_those_of_scikit_learns_discriminants(count: int, shrinkage: float) -> None:
    rows, labels = features(count)
    space = FeatureSpace.of(rows)
    moments = Moments.of(space.transform(rows), labels, num_labels=3)
    fit = ClassScatter(moments, features=FEATURES).fit(shrinkage, most=2)
    new, _ = features(50, seed=1)

    scaler = StandardScaler().fit(rows.astype(np.float64))
    twin = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=shrinkage)
    twin.fit(scaler.transform(rows.astype(np.float64)), labels)
    expected = twin.decision_function(scaler.transform(new.astype(np.float64)))
    given = space.fold(fit.scores).of(new)
    if count > FEATURES:  # else what lies outside of the images' space says nothing to either
        np.testing.assert_allclose(
            given - given[:, :1], expected - expected[:, :1], rtol=2e-3, atol=2e-3
        )
    np.testing.assert_array_equal(
        space.fold(fit.scores).of(rows).argmax(axis=1),
        twin.predict(scaler.transform(rows.astype(np.float64))),
    )


def test_in_the_numbers_of_a_kind_every_class_spreads_alike() -> None:
    rows, labels = features(5000)
    space = FeatureSpace.of(rows)
    moments = Moments.of(space.transform(rows), labels, num_labels=3)
    fit = ClassScatter(moments, features=FEATURES).fit(1e-6, most=2)
    kind = space.fold(fit.kind).of(rows)
    about = kind - np.stack([kind[labels == one].mean(axis=0) for one in range(3)])[labels]
    np.testing.assert_allclose(about.T @ about / len(rows), np.eye(2), atol=0.01)
    np.testing.assert_allclose(kind.mean(axis=0), 0, atol=0.01)


def test_classes_that_lie_in_one_place_make_no_numbers_out_of_rounding() -> None:
    rows_NF = np.random.default_rng(5).normal(size=(40, 6)).astype(np.float32)
    rows_NF[20:] += 9
    twice_NF = np.concatenate([rows_NF, rows_NF[:20]])
    labels_N = np.repeat([0, 1, 2], 20)  # the first and the last are the same images
    moments = Moments.of(twice_NF, labels_N, num_labels=3)

    kind = ClassScatter(moments, features=6).fit(0.1, most=8).kind

    kinds_ND = kind.of(twice_NF)
    assert np.isfinite(kinds_ND).all()
    assert np.abs(kinds_ND[:, 1]).max() == 0, "three classes, of which two are one"
    assert np.abs(kinds_ND[:, 0]).min() > 0.1


def test_sums_without_a_fold_are_the_sums_of_the_others() -> None:
    rows, labels = features(60)
    labels[:5] = UNLABELLED
    folds = np.arange(60) % 4
    parts = [Moments.of(rows[folds == f], labels[folds == f], num_labels=3) for f in range(4)]
    others = Moments.sum(parts).without(parts[1])
    alone = Moments.of(rows[folds != 1], labels[folds != 1], num_labels=3)
    np.testing.assert_array_equal(others.counts_L, alone.counts_L)
    np.testing.assert_allclose(others.sums_LR, alone.sums_LR, rtol=1e-6)
    np.testing.assert_allclose(others.products_RR, alone.products_RR, rtol=1e-6)


def test_a_class_without_images_never_wins() -> None:
    rows, labels = features(60)
    labels[labels == 1] = 0
    moments = Moments.of(rows, labels, num_labels=3)
    fit = ClassScatter(moments, features=FEATURES).fit(0.5, most=9)
    assert set(fit.scores.of(rows).argmax(axis=1)) == {0, 2}
    assert len(fit.kind.bias_D) == 1


def test_a_feature_that_is_the_same_for_all_says_nothing() -> None:
    rows, labels = features(60)
    rows[:, 3] = 7.0
    space = FeatureSpace.of(rows)
    moments = Moments.of(space.transform(rows), labels, num_labels=3)
    scores = space.fold(ClassScatter(moments, features=FEATURES).fit(0.5, most=2).scores)
    assert (scores.weight_DF[:, 3] == 0).all()
    assert np.isfinite(scores.weight_DF).all()


def test_what_changes_from_view_to_view_does_not_tell_things_apart() -> None:
    rng = np.random.default_rng(0)
    things = rng.normal(size=(300, FEATURES)).astype(np.float32)
    light = np.zeros(FEATURES, np.float32)
    light[:2] = 3
    changes = (rng.normal(size=(200, FEATURES)) * (light + 0.05)).astype(np.float32)
    item = fit_item_layer(things, changes, shrinkage=0.01, width=FEATURES)
    by_light = np.linalg.norm(item.weight_DF[:, :2], axis=0).max()
    by_thing = np.linalg.norm(item.weight_DF[:, 2:], axis=0).min()
    assert by_light < by_thing / 10
    np.testing.assert_allclose(item.of(things).mean(axis=0), 0, atol=1e-4)
