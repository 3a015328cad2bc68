"""Labelled unit vectors in, a classifier of vectors out, with what it is worth: in closed form.

Linear discriminants, whose strength is chosen on items held out
(``training.statistics.closed_form``). What is said of an item, to measure, to calibrate and to
tell other things, comes from a fit without it.

Shape suffixes: N items, M of them that are measured, F folds, D vector width, R dimensions that
vectors are worked with in, L labels.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from training.data.gallery_labels import LabelledItems
from training.errors import DataError
from training.evaluation.novelty import (
    choose_references,
    nearness_of,
    reference_vectors,
    with_limits,
    without_limits,
)
from training.formatting import plural
from training.heads.fit_heads import FEW_DIMENSIONS
from training.recipes.auto_recipe import FOLDS, assign_folds
from training.statistics.calibration import FEWEST_FOR_TEMPERATURE, HOTTEST, choose_temperature
from training.statistics.closed_form import FeatureSpace, Linear
from training.statistics.discriminants import ClassScatter, Moments
from training.statistics.significance import Interval, share_interval
from vision.model.manifest import Architecture
from vision.model.open_set import OpenSetDetector
from vision.model.vector_classifier import VectorClassifier

FEWEST: Final = 2  # classes, and items of each of two of them
FEWEST_NEW: Final = 100  # items that the network has not learnt from, to be measured alone
SHRINKAGES: Final = (0.01, 0.1, 0.3, 0.5, 0.7, 0.85, 0.95)  # of covariance, tried
MOST_MEASURED: Final = 20_000  # items
MOST_LOGITS: Final = 2**22  # of the items measured: a temperature takes 0.1 s a million
MOST_NEARNESS: Final = 2_000  # items that limits are fitted with, some 0.2 ms each


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FittedClassifier:
    """A classifier of vectors, and what it is worth on items held out."""

    classes: VectorClassifier
    temperature: float
    references: OpenSetDetector
    shrinkage: float
    accuracy: float  # in [0, 1]
    interval: Interval  # 95 %
    measured: int  # items held out, one fold after another
    all_new: bool  # the network had learnt from none of them
    alone: int  # classes of one photo or thing: learnt, and not measured


def fit_classes(
    items: LabelledItems, learnt_N: NDArray[np.bool_], architecture: Architecture
) -> FittedClassifier:
    """Return the classifier of the items' labels. Costs seconds for 100,000 items.

    Args:
        items: with labels.
        learnt_N: those from whose labels the network itself has learnt: of them, its vectors say
            too much, so the others are measured where there are enough.
        architecture: of the network that the vectors are of.

    Raises:
        DataError: there are too few labels, or the items cannot be told apart.
    """
    _check(items)
    folds_N = np.array(assign_folds(items.labels_N.tolist(), items.groups_N.tolist(), FOLDS))
    known_N, alone = _known_elsewhere(items, folds_N)
    new_N = known_N & ~learnt_N
    counted_M = np.flatnonzero(new_N if new_N.sum() >= FEWEST_NEW else known_N)
    most = min(MOST_MEASURED, max(1, MOST_LOGITS // len(items.names)))
    rows_M = counted_M[_spread(len(counted_M), most)]
    with threadpool_limits(1 if items.facts.width < FEW_DIMENSIONS else None):
        folded = _Folded(items, folds_N, rows_M)
        right_of = folded.count_right()
        shrinkage = max(SHRINKAGES, key=lambda one: (right_of[one], one))
        logits_ML, layer = folded.logits(shrinkage), folded.fit(shrinkage)
    return FittedClassifier(
        classes=VectorClassifier(layer.weight_DF, layer.bias_D),
        temperature=_temperature(logits_ML, items.labels_N[rows_M]),
        references=_references(
            replace(items, vectors_ND=reference_vectors(items.vectors_ND, architecture)),
            folds_N,
            rows_M,
            logits_ML.argmax(axis=1),
        ),
        shrinkage=shrinkage,
        accuracy=right_of[shrinkage] / len(rows_M),
        interval=share_interval(right_of[shrinkage], len(rows_M)),
        measured=len(rows_M),
        all_new=not learnt_N[rows_M].any(),
        alone=alone,
    )


def _temperature(logits_ML: NDArray[np.float32], labels_M: NDArray[np.int64]) -> float:
    """Return the temperature; of too few items to fit one, the most careful.

    Of so few, the spread is hardly known and the scores are far too bold: photos of clothes, two
    to six of a class, got .99 where .83 were right, and at the hottest .84.
    """
    if len(labels_M) < FEWEST_FOR_TEMPERATURE:
        return HOTTEST
    return choose_temperature(logits_ML, labels_M)


def _check(items: LabelledItems) -> None:
    """Accept labels that something can be learnt from, and measured."""
    if not len(items):
        raise DataError(
            f"none of the {plural(items.facts.count, 'item')} has a label"
            if items.facts.count
            else "the gallery is empty: there is nothing to learn classes from"
        )
    if len(items.names) < FEWEST:
        raise DataError(
            f"all {plural(len(items), 'labelled item')} have the label {items.names[0]!r}: at "
            "least two labels are needed to tell apart"
        )
    of_lot = np.unique(np.stack([items.labels_N, items.groups_N]), axis=1)[0]
    lots_L = np.bincount(of_lot, minlength=len(items.names))
    if (lots_L >= FEWEST).sum() < FEWEST:
        raise DataError(
            f"{plural(len(items), 'labelled item')} of {len(items.names):,} labels are too few: at "
            "least two labels need two items each, of different photos and groups"
        )
    if (items.vectors_ND == items.vectors_ND[0]).all():
        raise DataError("the labelled items cannot be told apart: all have the same vector")


def _known_elsewhere(
    items: LabelledItems, folds_N: NDArray[np.int64]
) -> tuple[NDArray[np.bool_], int]:
    """Return which items' classes have items in other folds too, and how many classes have not."""
    labels = len(items.names)
    counts_FL = np.bincount(
        folds_N * labels + items.labels_N, minlength=(folds_N.max() + 1) * labels
    ).reshape(-1, labels)
    in_folds_L = (counts_FL > 0).sum(axis=0)
    return (in_folds_L > 1)[items.labels_N], int((in_folds_L == 1).sum())


def _spread(total: int, most: int) -> NDArray[np.int64]:
    return np.linspace(0, total - 1, min(total, most)).astype(np.int64)


class _Folded:
    """Fits to all but one fold of the items: of all items' sums, those of the fold are taken away.

    One fold is looked at at a time: sums over many labels take room.
    """

    def __init__(
        self, items: LabelledItems, folds_N: NDArray[np.int64], rows_M: NDArray[np.int64]
    ) -> None:
        self._items, self._folds_N, self._rows_M = items, folds_N, rows_M
        # Not each number with the same spread, as features are: a vector's strong ones tell most.
        # With ten photos a class that is .74 right, and not .49 (docs/decisions/0026).
        self._space = FeatureSpace.uniformly_scaled(items.vectors_ND)
        self._reduced_NR = self._space.transform(items.vectors_ND)
        self._whole = self._sums(slice(None))

    def fit(self, shrinkage: float) -> Linear:
        """Return the scores of vectors, fitted to all items."""
        return self._space.fold(self._spread(self._whole).scores(shrinkage))

    def count_right(self) -> dict[float, int]:
        """Return how many of the items measured are given their label, by strength."""
        right_of = dict.fromkeys(SHRINKAGES, 0)
        for places, scatter in self._held_out():
            rows = self._rows_M[places]
            for shrinkage in SHRINKAGES:
                given = scatter.scores(shrinkage).of(self._reduced_NR[rows]).argmax(axis=1)
                right_of[shrinkage] += int((given == self._items.labels_N[rows]).sum())
        return right_of

    def logits(self, shrinkage: float) -> NDArray[np.float32]:
        """Return what is said (M, L) of the items measured."""
        logits_ML = np.empty((len(self._rows_M), len(self._items.names)), np.float32)
        for places, scatter in self._held_out():
            reduced = self._reduced_NR[self._rows_M[places]]
            logits_ML[places] = scatter.scores(shrinkage).of(reduced)
        return logits_ML

    def _held_out(self) -> Iterator[tuple[NDArray[np.int64], ClassScatter]]:
        """Give the places in M of the items of each fold, and the classes without that fold."""
        folds_M = self._folds_N[self._rows_M]
        for fold in np.unique(folds_M):
            of_fold = self._sums(np.flatnonzero(self._folds_N == fold))
            yield np.flatnonzero(folds_M == fold), self._spread(self._whole.without(of_fold))

    def _sums(self, rows: NDArray[np.int64] | slice) -> Moments:
        items = self._items
        return Moments.of(self._reduced_NR[rows], items.labels_N[rows], num_labels=len(items.names))

    def _spread(self, moments: Moments) -> ClassScatter:
        return ClassScatter(moments, features=self._space.features)


def _references(
    items: LabelledItems,
    folds_N: NDArray[np.int64],
    rows_M: NDArray[np.int64],
    predicted_M: NDArray[np.int64],
) -> OpenSetDetector:
    """Return items to compare new pictures with; the limits are of items among other folds'."""
    few = _spread(len(rows_M), MOST_NEARNESS)
    rows, given = rows_M[few], predicted_M[few]
    distances: list[NDArray[np.float64]] = []
    agreements: list[NDArray[np.float64]] = []
    for fold in np.unique(folds_N[rows]):
        held = folds_N[rows] == fold
        others = _chosen(items, np.flatnonzero(folds_N != fold))
        near = nearness_of(others, items.vectors_ND[rows[held]], given[held])
        distances.append(near[0])
        agreements.append(near[1])
    chosen = _chosen(items, np.arange(len(items)))
    return with_limits(chosen, np.concatenate(distances), np.concatenate(agreements))


def _chosen(items: LabelledItems, rows: NDArray[np.int64]) -> OpenSetDetector:
    of_rows = choose_references(items.labels_N[rows], items.contents_N[rows])
    chosen = rows[of_rows]
    return without_limits(items.vectors_ND[chosen], items.labels_N[chosen])
