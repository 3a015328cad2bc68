"""Features in, the head that tells one thing from another out, and how often that finds it.

Shape suffixes: N images, V views of each, Q views in all or changes, F features, I of them that
tell items apart, D vector width.
"""

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from training.auto_recipe import AutoRecipe
from training.closed_form import Linear, fit_item, padded, unit
from training.errors import DataError
from training.material import Material, Seen
from training.same_item import Searched, find_others, find_views

MOST_CHANGES: Final = 4096  # within groups: enough for as many features


class Things(NamedTuple):
    """The head, and unit vectors that it makes."""

    item: Linear  # on all features
    all_ND: NDArray[np.float32]
    views_QD: NDArray[np.float32]


def fit_things(seen: Seen, material: Material, recipe: AutoRecipe) -> Things:
    """Return what tells one thing from another, whatever the light and the angle.

    How features change from photo to photo of one thing is learnt from made views, and also from
    the groups of the data where photos of other groups are found more often then.

    Raises:
        DataError: the photos cannot be told apart.
    """
    features_NI = seen.features_NF[:, : seen.item_columns]
    if (features_NI == features_NI[0]).all():
        raise DataError("the photos cannot be told apart: all of them look the same")
    by_views = _fitted(seen, seen.changes_QI, material, recipe)
    by_groups = _found_others(by_views.all_ND, material)
    changes_QI = _changes_within_groups(features_NI, material)
    if by_groups is None or not len(changes_QI):
        return by_views
    both = _fitted(seen, np.concatenate([seen.changes_QI, changes_QI]), material, recipe)
    return both if (_found_others(both.all_ND, material) or 0) > by_groups else by_views


def same_item(
    all_ND: NDArray[np.float32],
    views_QD: NDArray[np.float32],
    seen: Seen,
    material: Material,
) -> float:
    """Return how often unit vectors find the very thing, of photos of the first fold.

    Where these have groups, each is to find another photo of its group; else made views of some
    are to find the photo that they are of.
    """
    found = _found_others(all_ND, material)
    if found is not None:
        return found
    views_VND = views_QD.reshape(-1, len(seen.viewed_N), views_QD.shape[1])
    searched = _searched(all_ND, material)
    return find_views(views_VND, material.photos_N[seen.viewed_N], searched).r_at_1


def _fitted(
    seen: Seen, changes_QI: NDArray[np.float32], material: Material, recipe: AutoRecipe
) -> Things:
    features_NI = seen.features_NF[:, : seen.item_columns]
    item = padded(
        fit_item(
            features_NI,
            changes_QI,
            shrinkage=recipe.view_shrinkage if material.num_labels else recipe.lone_view_shrinkage,
            width=min(recipe.item_width, len(features_NI) - 1),
        ),
        seen.features_NF.shape[1],
    )
    views_QF = seen.views_VNF.reshape(-1, seen.views_VNF.shape[-1])
    return Things(item, unit(item.of(seen.features_NF)), unit(item.of(views_QF)))


def _changes_within_groups(
    features_NI: NDArray[np.float32], material: Material
) -> NDArray[np.float32]:
    """Return how features change from each photo to the next one of its group.

    Groups of the first fold are left out: they are what the head is judged by.
    """
    usable = np.flatnonzero((material.things_N >= 0) & (material.folds_N != material.folds[0]))
    order = usable[np.argsort(material.things_N[usable], kind="stable")]
    follows = material.things_N[order[1:]] == material.things_N[order[:-1]]
    pairs = np.flatnonzero(follows)
    if len(pairs) > MOST_CHANGES:
        pairs = pairs[np.linspace(0, len(pairs) - 1, MOST_CHANGES).round().astype(np.int64)]
    changes_QI: NDArray[np.float32] = features_NI[order[pairs + 1]] - features_NI[order[pairs]]
    return changes_QI


def _found_others(all_ND: NDArray[np.float32], material: Material) -> float | None:
    """Return how often photos of the first fold find others of their group; None: none can."""
    asked = np.flatnonzero((material.folds_N == material.folds[0]) & (material.things_N >= 0))
    if not len(asked):
        return None
    found = find_others(
        all_ND[asked],
        material.things_N[asked],
        material.photos_N[asked],
        _searched(all_ND, material),
    )
    return None if found is None else found.r_at_1


def _searched(all_ND: NDArray[np.float32], material: Material) -> Searched:
    return Searched(vectors_KD=all_ND, photos_K=material.photos_N, things_K=material.things_N)
