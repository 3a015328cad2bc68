"""The head that tells one thing from another: by made views, and by groups where these help."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.support.galleries.labelled_gallery import labelled
from training.heads.cross_validation import CrossValidationData, ExtractedFeatures
from training.heads.item_head import fit_item_head, same_item
from training.recipes.auto_recipe import AutoRecipe, assign_folds, auto_recipe
from training.statistics.closed_form import unit
from training.statistics.same_item import Searched, find_others

FEATURES = 16
ANGLE = slice(8, 16)  # features that change from photo to photo of one thing, in no made view
EACH = 3  # photos of a thing
RECIPE = auto_recipe()


def photos_of(things: int, *, seed: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return features of some photos of each thing, and which thing each is of."""
    rng = np.random.default_rng(seed)
    of = np.repeat(np.arange(things), EACH)
    rows = rng.normal(size=(things, FEATURES))[of]
    rows += 0.15 * rng.normal(size=rows.shape)
    rows[:, ANGLE] += 2.5 * rng.normal(size=(len(rows), 8))
    return rows.astype(np.float32), of


def seen_of(features_NF: NDArray[np.float32]) -> ExtractedFeatures:
    rng = np.random.default_rng(9)
    changed = 0.1 * rng.normal(size=(2, 100, FEATURES))
    viewed = np.arange(20)
    return ExtractedFeatures(
        features_NF=features_NF,
        item_columns=FEATURES,
        last_columns=slice(0, 0),
        changes_QI=changed.reshape(-1, FEATURES).astype(np.float32),
        viewed_N=viewed,
        views_VNF=(features_NF[viewed] + changed[:, :20]).astype(np.float32),
    )


def material_of(
    item_ids_N: NDArray[np.int64], group_keys_N: NDArray[np.int64]
) -> CrossValidationData:
    count = len(item_ids_N)
    numbers = np.arange(count).astype(np.uint64)
    return CrossValidationData(
        labels_N=np.zeros(count, np.int64),
        photos_N=numbers,
        item_ids_N=item_ids_N,
        contents_N=numbers,
        folds_N=np.array(assign_folds([0] * count, group_keys_N.tolist(), 5)),
        num_labels=0,
    )


def found_among_new(
    seen: ExtractedFeatures, cv_data: CrossValidationData, recipe: AutoRecipe = RECIPE
) -> float:
    """Return how often photos of new things find another photo of theirs."""
    item = fit_item_head(seen, cv_data, recipe).item
    rows, things = photos_of(60, seed=77)
    vectors, numbers = unit(item.of(rows)), np.arange(len(rows))
    found = find_others(vectors, things, numbers, Searched(vectors, numbers, things))
    assert found is not None
    return found.r_at_1


def test_groups_teach_what_changes_from_photo_to_photo_of_one_thing() -> None:
    rows, things = photos_of(80, seed=1)
    without = material_of(np.full(len(rows), -1), things)
    with_groups = material_of(things, things)
    gained = found_among_new(seen_of(rows), with_groups) - found_among_new(seen_of(rows), without)
    assert gained > 0.2


def test_groups_that_say_nothing_are_not_learnt_from() -> None:
    rows, things = photos_of(80, seed=2)
    rng = np.random.default_rng(5)
    rows[:, ANGLE] = rng.normal(size=(len(rows), 8)).astype(np.float32)
    rows[:, :8] += 3 * things[:, None] % 7  # what whitening would take away
    drawn = rng.permutation(things)
    seen = seen_of(rows)
    by_views = fit_item_head(seen, material_of(np.full(len(rows), -1), drawn), RECIPE)
    by_groups = fit_item_head(seen, material_of(drawn, drawn), RECIPE)
    found = same_item(
        by_groups.all_ND, by_groups.views_QD, seen.viewed_N, material_of(drawn, drawn)
    )
    before = same_item(by_views.all_ND, by_views.views_QD, seen.viewed_N, material_of(drawn, drawn))
    assert found >= before


def test_where_there_are_groups_other_photos_are_to_be_found_else_made_views() -> None:
    rows, things = photos_of(30, seed=3)
    seen, cv_data = seen_of(rows), material_of(things, things)
    perfect = unit(np.eye(30, dtype=np.float32)[things])
    views = perfect[np.tile(seen.viewed_N, 2)][::-1]  # none finds the photo that it is of
    assert same_item(perfect, views, seen.viewed_N, cv_data) == 1
    alone = material_of(np.full(len(rows), -1), things)
    assert same_item(perfect, views, seen.viewed_N, alone) < 0.5


@pytest.mark.parametrize("group_of", ["first fold", "other folds"])
def test_groups_in_one_fold_alone_change_nothing(group_of: str) -> None:
    rows, things = photos_of(40, seed=4)
    folds = material_of(things, things).folds_N
    kept = folds == 0 if group_of == "first fold" else folds != 0
    cv_data = material_of(np.where(kept, things, -1), things)
    alone = material_of(np.full(len(rows), -1), things)
    fits = [fit_item_head(seen_of(rows), one, RECIPE).item for one in (cv_data, alone)]
    np.testing.assert_array_equal(fits[0].weight_DF, fits[1].weight_DF)


def test_the_groups_of_the_parts_are_known() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (6, 3, 2, 2)).astype(np.uint8)
    labels = np.array([0, 0, 1, 1, 0, 1])
    train, more = (
        replace(labelled(pixels[rows], labels[rows], ("a", "b")), item_ids_N=np.array(things))
        for rows, things in ((slice(0, 4), [5, 5, -1, 7]), (slice(4, 6), [9, 9]))
    )
    assert CrossValidationData.of(train, None, more, folds=2).item_ids_N.tolist() == [
        5,
        5,
        -1,
        7,
        9,
        9,
    ]
