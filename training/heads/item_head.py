"""Features in, the head that tells one thing from another out, and how often that finds it.

Shape suffixes: N images, V views of each, Q views in all or changes, F features, I of them that
tell items apart, D vector width.
"""

from typing import Final, NamedTuple

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from training.errors import DataError
from training.heads.cross_validation import CrossValidationData, ExtractedFeatures
from training.recipes.auto_recipe import AutoRecipe
from training.statistics.closed_form import LEAST_SPREAD, FeatureSpace, Linear, components, unit
from training.statistics.same_item import Searched, find_others, find_views

MOST_CHANGES: Final = 4096  # within groups: enough for as many features


class ItemHead(NamedTuple):
    """The head, and unit vectors that it makes."""

    item: Linear  # on all features
    all_ND: NDArray[np.float32]
    views_QD: NDArray[np.float32]


def fit_item_head(
    extracted: ExtractedFeatures, cv_data: CrossValidationData, recipe: AutoRecipe
) -> ItemHead:
    """Return what tells one thing from another, whatever the light and the angle.

    How features change from photo to photo of one thing is learnt from made views, and also from
    the groups of the data where photos of other groups are found more often then.

    Raises:
        DataError: the photos cannot be told apart.
    """
    features_NI = extracted.features_NF[:, : extracted.item_columns]
    if (features_NI == features_NI[0]).all():
        raise DataError("the photos cannot be told apart: all of them look the same")
    by_views = _fitted(extracted, extracted.changes_QI, cv_data, recipe)
    by_groups = _found_others(by_views.all_ND, cv_data)
    changes_QI = _changes_within_groups(features_NI, cv_data)
    if by_groups is None or not len(changes_QI):
        return by_views
    both = _fitted(extracted, np.concatenate([extracted.changes_QI, changes_QI]), cv_data, recipe)
    return both if (_found_others(both.all_ND, cv_data) or 0) > by_groups else by_views


def fit_item_layer(
    features_NF: NDArray[np.float32],
    changes_QF: NDArray[np.float32],
    *,
    shrinkage: float,
    width: int,
) -> Linear:
    """Return what tells one thing from another, whatever the light and the angle.

    Directions in which features change between views of one photo count the less the more they do
    (within-class covariance normalisation, Hatch et al. 2006, with views as classes); of what is
    left, the strongest principal components are kept.

    Args:
        features_NF: of photos that are not all the same.
        changes_QF: of features, from a photo to a view of it.
        shrinkage: share of the changes that is taken to be the same in all directions, (0, 1].
        width: numbers that are kept, or as many as so many photos have.
    """
    space = FeatureSpace.standardized(features_NF)
    changed_QF = changes_QF * space.factor_F
    features = features_NF.shape[1]
    spread_FF = changed_QF.T @ changed_QF / max(len(changed_QF), 1)
    level = max(np.trace(spread_FF) / features, LEAST_SPREAD)
    spread_FF *= 1 - shrinkage
    spread_FF[np.diag_indices(features)] += shrinkage * level
    root_FF = np.linalg.cholesky(spread_FF)
    even_NF = scipy.linalg.solve_triangular(
        root_FF, space.transform(features_NF).T.astype(np.float64), lower=True, check_finite=False
    ).T
    directions_FD = components(even_NF.astype(np.float32), width)
    weight_DF = scipy.linalg.solve_triangular(
        root_FF, directions_FD.astype(np.float64), lower=True, trans="T", check_finite=False
    ).T
    layer = Linear(weight_DF.astype(np.float32), np.zeros(len(weight_DF), np.float32))
    return space.fold(layer)


def same_item(
    all_ND: NDArray[np.float32],
    views_QD: NDArray[np.float32],
    viewed_N: NDArray[np.int64],
    cv_data: CrossValidationData,
) -> float:
    """Return how often unit vectors find the very thing, of photos of the first fold.

    Where these have groups, each is to find another photo of its group; else made views of those
    at ``viewed_N`` are to find the photo that they are of.
    """
    found = _found_others(all_ND, cv_data)
    if found is not None:
        return found
    views_VND = views_QD.reshape(-1, len(viewed_N), views_QD.shape[1])
    searched = _searched(all_ND, cv_data)
    return find_views(views_VND, cv_data.photos_N[viewed_N], searched).r_at_1


def _fitted(
    extracted: ExtractedFeatures,
    changes_QI: NDArray[np.float32],
    cv_data: CrossValidationData,
    recipe: AutoRecipe,
) -> ItemHead:
    features_NI = extracted.features_NF[:, : extracted.item_columns]
    item = _padded(
        fit_item_layer(
            features_NI,
            changes_QI,
            shrinkage=recipe.view_shrinkage if cv_data.num_labels else recipe.lone_view_shrinkage,
            width=min(recipe.item_width, len(features_NI) - 1),
        ),
        extracted.features_NF.shape[1],
    )
    views_QF = extracted.views_VNF.reshape(-1, extracted.views_VNF.shape[-1])
    return ItemHead(item, unit(item.of(extracted.features_NF)), unit(item.of(views_QF)))


def _changes_within_groups(
    features_NI: NDArray[np.float32], cv_data: CrossValidationData
) -> NDArray[np.float32]:
    """Return how features change from each photo to the next one of its group.

    Groups of the first fold are left out: they are what the head is judged by.
    """
    usable = np.flatnonzero((cv_data.item_ids_N >= 0) & (cv_data.folds_N != cv_data.folds[0]))
    order = usable[np.argsort(cv_data.item_ids_N[usable], kind="stable")]
    follows = cv_data.item_ids_N[order[1:]] == cv_data.item_ids_N[order[:-1]]
    pairs = np.flatnonzero(follows)
    if len(pairs) > MOST_CHANGES:
        pairs = pairs[np.linspace(0, len(pairs) - 1, MOST_CHANGES).round().astype(np.int64)]
    changes_QI: NDArray[np.float32] = features_NI[order[pairs + 1]] - features_NI[order[pairs]]
    return changes_QI


def _found_others(all_ND: NDArray[np.float32], cv_data: CrossValidationData) -> float | None:
    """Return how often photos of the first fold find others of their group; None: none can."""
    asked = np.flatnonzero((cv_data.folds_N == cv_data.folds[0]) & (cv_data.item_ids_N >= 0))
    if not len(asked):
        return None
    found = find_others(
        all_ND[asked],
        cv_data.item_ids_N[asked],
        cv_data.photos_N[asked],
        _searched(all_ND, cv_data),
    )
    return None if found is None else found.r_at_1


def _searched(all_ND: NDArray[np.float32], cv_data: CrossValidationData) -> Searched:
    return Searched(vectors_KD=all_ND, photos_K=cv_data.photos_N, item_ids_K=cv_data.item_ids_N)


def _padded(layer: Linear, features: int) -> Linear:
    """Return a layer of the first features as one of all of them."""
    weight_DF = np.zeros((len(layer.bias_D), features), np.float32)
    weight_DF[:, : layer.weight_DF.shape[1]] = layer.weight_DF
    return Linear(weight_DF, layer.bias_D)
