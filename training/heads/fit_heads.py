"""Features of a training's images in, what heads on them are worth out: in closed form.

Every image is held out once: what is said of it comes from heads that were fitted to the others.

Shape suffixes: N images, V views of each, Q views in all, F features, C of them, R dimensions that
they are worked with in, L labels, D vector width.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from training.data.images.labelled_images import UNLABELLED
from training.heads.cross_validation import (
    NEVER_HELD_OUT,
    CrossValidationData,
    ExtractedFeatures,
    FittedHeads,
    LinearHeads,
    ValidationFigures,
)
from training.heads.item_head import fit_item_head, same_item
from training.recipes.auto_recipe import AutoRecipe
from training.statistics.calibration import fitted_loss
from training.statistics.closed_form import FeatureSpace, two_part, unit
from training.statistics.discriminants import ClassScatter, Discriminants, Moments

FEWEST_CLASSES: Final = 2
FEW_OF_A_CLASS: Final = 60  # photos
FEW_DIMENSIONS: Final = 600  # below it, several threads wait longer for each other than they work
SEARCHED_BYTES: Final = 64 * 2**20  # of scores at a time


def fit_heads(
    extracted: ExtractedFeatures,
    cv_data: CrossValidationData,
    recipe: AutoRecipe,
    *,
    folds: Sequence[int] | None = None,
) -> FittedHeads:
    """Return the best heads on these features: their strength is chosen on images held out.

    Args:
        seen: the features.
        cv_data: labels, and when images are held out.
        recipe: what is tried.
        folds: those that are held out, one after another; None: all.

    Raises:
        DataError: the photos cannot be told apart.
    """
    item_head = fit_item_head(extracted, cv_data, recipe)
    if not cv_data.num_labels:
        found = same_item(item_head.all_ND, item_head.views_QD, extracted.viewed_N, cv_data)
        nothing = np.empty((0, 0), np.float32), np.empty(0, np.int64)
        figures = ValidationFigures(len(extracted.features_NF), None, None, found)
        return FittedHeads(LinearHeads(item_head.item, None, None), None, 1.0, figures, *nothing)
    chosen = cv_data.folds if folds is None else list(folds)
    best = min(
        (
            trial
            for emphasis in _emphases(extracted, cv_data, recipe)
            for trial in _Folded(extracted, emphasis, item_head.all_ND, cv_data, recipe).trials(
                chosen
            )
        ),
        key=lambda trial: trial.loss,
    )
    space = best.folded.space
    kind_ND, kind_QD = (
        unit(best.first.kind.of(space.transform(features)))
        for features in (
            extracted.features_NF,
            extracted.views_VNF.reshape(-1, extracted.views_VNF.shape[-1]),
        )
    )
    found = same_item(
        two_part(item_head.all_ND, kind_ND, recipe.kind_share),
        two_part(item_head.views_QD, kind_QD, recipe.kind_share),
        extracted.viewed_N,
        cv_data,
    )
    final = best.folded.fit(best.shrinkage)
    return FittedHeads(
        LinearHeads(item_head.item, space.fold(final.kind), space.fold(final.scores)),
        best.shrinkage,
        best.folded.emphasis,
        best.figures._replace(same_item=found),
        best.logits_NL,
        best.labels_N,
    )


def _emphases(
    extracted: ExtractedFeatures, cv_data: CrossValidationData, recipe: AutoRecipe
) -> tuple[float, ...]:
    """Return how much to let the last layer count, to tell kinds apart with.

    The fewer photos a class has, the more is to be taken from what the network was trained for.
    """
    labelled = np.count_nonzero(cv_data.labels_N != UNLABELLED)
    few = labelled < FEW_OF_A_CLASS * cv_data.num_labels
    last = len(range(*extracted.last_columns.indices(extracted.features_NF.shape[1])))
    return recipe.emphases if few and 0 < last < extracted.features_NF.shape[1] else (1.0,)


class _Trial(NamedTuple):
    """What one strength is worth."""

    folded: "_Folded"
    shrinkage: float
    loss: float  # mean negative log-likelihood, nats; of few images it says more than shares do
    figures: ValidationFigures
    first: Discriminants  # fitted without the first of the folds
    logits_NL: NDArray[np.float32]  # of the images held out, but for the last ones of a class
    labels_N: NDArray[np.int64]


class _Folded:
    """Sums over the images of each fold, so that it costs little to leave one out."""

    def __init__(
        self,
        extracted: ExtractedFeatures,
        emphasis: float,
        item_ND: NDArray[np.float32],
        cv_data: CrossValidationData,
        recipe: AutoRecipe,
    ) -> None:
        weights_F = np.ones(extracted.features_NF.shape[1])
        weights_F[extracted.last_columns] = emphasis
        self.emphasis = emphasis
        self.space = FeatureSpace.of(extracted.features_NF, weights_F)
        reduced_NR = self.space.transform(extracted.features_NF)
        self._reduced_NR, self._item_ND = reduced_NR, item_ND
        self._cv_data, self._recipe = cv_data, recipe
        self._of_fold = {
            fold: Moments.of(
                reduced_NR[cv_data.folds_N == fold],
                cv_data.labels_N[cv_data.folds_N == fold],
                num_labels=cv_data.num_labels,
            )
            for fold in (*cv_data.folds, NEVER_HELD_OUT)
        }
        self._whole = Moments.sum(list(self._of_fold.values()))
        self._spreads: dict[int, ClassScatter] = {}

    def fit(self, shrinkage: float) -> Discriminants:
        """Return the discriminants of all images."""
        scatter = ClassScatter(self._whole, features=self.space.features)
        return scatter.fit(shrinkage, most=self._recipe.most_kinds)

    def trials(self, folds: Sequence[int]) -> list[_Trial]:
        """Return what each strength is worth on images of these folds, held out in turn."""
        few = len(self._cv_data.labels_N) < FEW_DIMENSIONS
        with threadpool_limits(1 if few else None):
            return [self._hold_out(folds, shrinkage) for shrinkage in self._recipe.shrinkages]

    def _hold_out(self, folds: Sequence[int], shrinkage: float) -> _Trial:
        logits: list[NDArray[np.float32]] = []
        labels: list[NDArray[np.int64]] = []
        known: list[NDArray[np.bool_]] = []
        found: list[NDArray[np.bool_]] = []
        first: Discriminants | None = None
        # Of some classes all photos may lie in one fold: two must be left to tell apart.
        usable = [fold for fold in folds if self._without(fold).classes >= FEWEST_CLASSES]
        if not usable:
            nothing = np.empty((0, self._cv_data.num_labels), np.float32), np.empty(0, np.int64)
            return _Trial(
                self,
                shrinkage,
                0.0,
                ValidationFigures(0, 0.0, 0.0, None),
                self.fit(shrinkage),
                *nothing,
            )
        for fold in usable:
            rows = np.flatnonzero(self._cv_data.folds_N == fold)
            scatter = self._without(fold)
            fit = scatter.fit(shrinkage, most=self._recipe.most_kinds)
            first = first or fit
            logits.append(fit.scores.of(self._reduced_NR[rows]))
            labels.append(self._cv_data.labels_N[rows])
            known.append(scatter.counts_L[labels[-1]] > 0)
            found.append(self._find_class(fit, rows))
        assert first is not None
        logits_NL, labels_N = np.concatenate(logits), np.concatenate(labels)
        known_N, found_N = np.concatenate(known), np.concatenate(found)
        right_N = logits_NL.argmax(axis=1) == labels_N
        figures = ValidationFigures(
            len(labels_N), float(right_N.mean()), float(found_N.mean()), None
        )
        logits_NL, labels_N = logits_NL[known_N], labels_N[known_N]
        loss = fitted_loss(logits_NL, labels_N) if len(labels_N) else 0.0
        return _Trial(self, shrinkage, loss, figures, first, logits_NL, labels_N)

    def _without(self, fold: int) -> ClassScatter:
        if fold not in self._spreads:
            others = self._whole.without(self._of_fold[fold])
            self._spreads[fold] = ClassScatter(others, features=self.space.features)
        return self._spreads[fold]

    def _find_class(self, fit: Discriminants, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return for each of the rows whether the nearest image of another fold is of its class."""
        labels_N, folds_N = self._cv_data.labels_N, self._cv_data.folds_N
        others = np.flatnonzero((folds_N != folds_N[rows[0]]) & (labels_N != UNLABELLED))
        kind_ND = unit(fit.kind.of(self._reduced_NR))
        vectors_ND = two_part(self._item_ND, kind_ND, self._recipe.kind_share)
        found_N = np.empty(len(rows), np.bool_)
        step = max(1, SEARCHED_BYTES // (4 * len(others)))
        for start in range(0, len(rows), step):
            some = rows[start : start + step]
            nearest = others[(vectors_ND[some] @ vectors_ND[others].T).argmax(axis=1)]
            found_N[start : start + step] = labels_N[nearest] == labels_N[some]
        return found_N
