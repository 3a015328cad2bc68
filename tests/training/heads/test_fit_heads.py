"""Heads on features: which strength is chosen, and how much the network's last layer counts."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from training.heads.cross_validation import (
    CrossValidationData,
    ExtractedFeatures,
    ValidationFigures,
)
from training.heads.fit_heads import fit_heads
from training.heads.model_choice import Candidate, explain_choice, is_clearly_better
from training.recipes.auto_recipe import AutoRecipe, assign_folds, auto_recipe
from training.statistics.calibration import fitted_loss

CLASSES = 4
LAST = slice(6, 14)  # the features that tell the classes apart
NOISE = 300  # features that do not, after these


def features(each: int, *, seed: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return features of classes that the last layer tells apart, among many that do not."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(CLASSES), each)
    rows = rng.normal(size=(len(labels), LAST.stop + NOISE))
    rows[:, LAST] += 1.2 * np.random.default_rng(0).normal(size=(CLASSES, 8))[labels]
    return rows.astype(np.float32), labels


def seen_of(features_NF: NDArray[np.float32], last: slice = LAST) -> ExtractedFeatures:
    columns = LAST.stop
    rng = np.random.default_rng(7)
    viewed = np.arange(0, len(features_NF), 5)
    changed = 0.05 * rng.normal(size=(2, len(viewed), features_NF.shape[1]))
    views = (features_NF[viewed] + changed).astype(np.float32)
    return ExtractedFeatures(
        features_NF=features_NF,
        item_columns=columns,
        last_columns=last,
        changes_QI=(views - features_NF[viewed])[..., :columns].reshape(-1, columns),
        viewed_N=viewed,
        views_VNF=views,
    )


def material_of(labels: NDArray[np.int64]) -> CrossValidationData:
    group_keys = np.arange(len(labels)).astype(np.uint64)
    return CrossValidationData(
        labels_N=labels,
        photos_N=group_keys,
        item_ids_N=np.full(len(labels), -1),
        contents_N=group_keys,
        folds_N=np.array(assign_folds(labels.tolist(), group_keys.tolist(), 5)),
        num_labels=CLASSES,
    )


def accuracy(
    recipe: AutoRecipe, each: int, *, seed: int, last: slice = LAST
) -> tuple[float, float]:
    """Return the share of new images that is right, and how much the last layer counted."""
    rows, labels = features(each, seed=seed)
    fitted = fit_heads(seen_of(rows, last), material_of(labels), recipe)
    new, truth = features(200, seed=100 + seed)
    assert fitted.heads.scores is not None
    given = fitted.heads.scores.of(new).argmax(axis=1)
    return float((given == truth).mean()), fitted.emphasis


def test_of_few_photos_the_last_layer_counts_for_more_where_it_tells_more() -> None:
    recipe = auto_recipe()
    evenly = replace(recipe, emphases=(1.0,))
    pairs = [(accuracy(recipe, 10, seed=n), accuracy(evenly, 10, seed=n)) for n in range(3)]
    assert {emphasis for (_, emphasis), _ in pairs} == {10**0.5}
    assert np.mean([with_it - even for (with_it, _), (even, _) in pairs]) > 0.05


@pytest.mark.parametrize(
    ("each", "last"),
    [(60, LAST), (10, slice(0, 0)), (10, slice(0, LAST.stop + NOISE))],
    ids=["many photos", "no last layer", "nothing but the last layer"],
)
def test_else_all_layers_count_alike(each: int, last: slice) -> None:
    recipe = replace(auto_recipe(), shrinkages=(0.5,))
    assert accuracy(recipe, each, seed=0, last=last)[1] == 1


def test_the_chosen_strength_gives_images_held_out_the_best_chances() -> None:
    rows, labels = features(10, seed=1)
    recipe = replace(auto_recipe(), emphases=(1.0,))
    seen, cv_data = seen_of(rows), material_of(labels)
    chosen = fit_heads(seen, cv_data, recipe)
    losses = {}
    for strength in recipe.shrinkages:
        alone = fit_heads(seen, cv_data, replace(recipe, shrinkages=(strength,)))
        losses[strength] = fitted_loss(alone.logits_NL, alone.labels_N)
    assert chosen.shrinkage == min(losses, key=lambda strength: losses[strength])
    assert len(set(losses.values())) == len(losses)


def test_the_last_photo_of_a_class_says_nothing_about_strengths() -> None:
    rows, labels = features(10, seed=2)
    rows, labels = rows[9:], labels[9:]  # of the first class, one photo is left
    fitted = fit_heads(seen_of(rows), material_of(labels), auto_recipe())
    assert fitted.figures.images == len(labels), "it counts as wrong"
    assert sorted(fitted.labels_N) == sorted(labels[1:])
    assert fitted.logits_NL[np.arange(len(labels) - 1), fitted.labels_N].min() > -500


def test_one_more_network_is_taken_where_the_difference_is_not_chance() -> None:
    def figures(images: int, accuracy: float) -> ValidationFigures:
        return ValidationFigures(images, accuracy, accuracy, 0.99)

    assert not is_clearly_better(figures(300, 0.82), figures(300, 0.81)), "error .023"
    assert is_clearly_better(figures(300, 0.84), figures(300, 0.81))
    assert is_clearly_better(figures(30_000, 0.82), figures(30_000, 0.81))
    assert not is_clearly_better(figures(30_000, 0.80), figures(30_000, 0.81))
    assert is_clearly_better(
        ValidationFigures(30, None, None, 0.98), ValidationFigures(30, None, None, 0.97)
    )
    one, other = (
        Candidate.with_figures(name, figures(300, share), seconds=1.0, head="")
        for name, share in (("one", 0.81), ("other", 0.82))
    )
    assert (
        "other had more, but by less than one standard error"
        in explain_choice([one, other], "one").why
    )
    assert "other has the best mean" in explain_choice([one, other], "other").why
