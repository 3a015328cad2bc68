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
from training.heads.item_head import fit_things, same_item
from training.heads.material import NEVER, Figures, Fitted, Heads, Material, Seen
from training.recipes.auto_recipe import AutoRecipe
from training.statistics.calibration import fitted_loss
from training.statistics.closed_form import Space, two_part, unit
from training.statistics.discriminants import ClassSpread, Discriminants, Moments

FEWEST_CLASSES: Final = 2
FEW_OF_A_CLASS: Final = 60  # photos
FEW_DIMENSIONS: Final = 600  # below it, several threads wait longer for each other than they work
SEARCHED_BYTES: Final = 64 * 2**20  # of scores at a time


def fit_heads(
    seen: Seen, material: Material, recipe: AutoRecipe, *, folds: Sequence[int] | None = None
) -> Fitted:
    """Return the best heads on these features: their strength is chosen on images held out.

    Args:
        seen: the features.
        material: labels, and when images are held out.
        recipe: what is tried.
        folds: those that are held out, one after another; None: all.

    Raises:
        DataError: the photos cannot be told apart.
    """
    things = fit_things(seen, material, recipe)
    if not material.num_labels:
        found = same_item(things.all_ND, things.views_QD, seen.viewed_N, material)
        nothing = np.empty((0, 0), np.float32), np.empty(0, np.int64)
        figures = Figures(len(seen.features_NF), None, None, found)
        return Fitted(Heads(things.item, None, None), None, 1.0, figures, *nothing)
    chosen = material.folds if folds is None else list(folds)
    best = min(
        (
            trial
            for emphasis in _emphases(seen, material, recipe)
            for trial in _Folded(seen, emphasis, things.all_ND, material, recipe).trials(chosen)
        ),
        key=lambda trial: trial.loss,
    )
    space = best.folded.space
    kind_ND, kind_QD = (
        unit(best.first.kind.of(space.reduced(features)))
        for features in (seen.features_NF, seen.views_VNF.reshape(-1, seen.views_VNF.shape[-1]))
    )
    found = same_item(
        two_part(things.all_ND, kind_ND, recipe.kind_share),
        two_part(things.views_QD, kind_QD, recipe.kind_share),
        seen.viewed_N,
        material,
    )
    final = best.folded.fit(best.shrinkage)
    return Fitted(
        Heads(things.item, space.folded(final.kind), space.folded(final.scores)),
        best.shrinkage,
        best.folded.emphasis,
        best.figures._replace(same_item=found),
        best.logits_NL,
        best.labels_N,
    )


def _emphases(seen: Seen, material: Material, recipe: AutoRecipe) -> tuple[float, ...]:
    """Return how much to let the last layer count, to tell kinds apart with.

    The fewer photos a class has, the more is to be taken from what the network was trained for.
    """
    labelled = np.count_nonzero(material.labels_N != UNLABELLED)
    few = labelled < FEW_OF_A_CLASS * material.num_labels
    last = len(range(*seen.last_columns.indices(seen.features_NF.shape[1])))
    return recipe.emphases if few and 0 < last < seen.features_NF.shape[1] else (1.0,)


class _Trial(NamedTuple):
    """What one strength is worth."""

    folded: "_Folded"
    shrinkage: float
    loss: float  # mean negative log-likelihood, nats; of few images it says more than shares do
    figures: Figures
    first: Discriminants  # fitted without the first of the folds
    logits_NL: NDArray[np.float32]  # of the images held out, but for the last ones of a class
    labels_N: NDArray[np.int64]


class _Folded:
    """Sums over the images of each fold, so that it costs little to leave one out."""

    def __init__(
        self,
        seen: Seen,
        emphasis: float,
        item_ND: NDArray[np.float32],
        material: Material,
        recipe: AutoRecipe,
    ) -> None:
        weights_F = np.ones(seen.features_NF.shape[1])
        weights_F[seen.last_columns] = emphasis
        self.emphasis = emphasis
        self.space = Space.of(seen.features_NF, weights_F)
        reduced_NR = self.space.reduced(seen.features_NF)
        self._reduced_NR, self._item_ND = reduced_NR, item_ND
        self._material, self._recipe = material, recipe
        self._of_fold = {
            fold: Moments.of(
                reduced_NR[material.folds_N == fold],
                material.labels_N[material.folds_N == fold],
                num_labels=material.num_labels,
            )
            for fold in (*material.folds, NEVER)
        }
        self._whole = Moments.sum(list(self._of_fold.values()))
        self._spreads: dict[int, ClassSpread] = {}

    def fit(self, shrinkage: float) -> Discriminants:
        """Return the discriminants of all images."""
        spread = ClassSpread(self._whole, features=self.space.features)
        return spread.fit(shrinkage, most=self._recipe.most_kinds)

    def trials(self, folds: Sequence[int]) -> list[_Trial]:
        """Return what each strength is worth on images of these folds, held out in turn."""
        few = len(self._material.labels_N) < FEW_DIMENSIONS
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
            nothing = np.empty((0, self._material.num_labels), np.float32), np.empty(0, np.int64)
            return _Trial(
                self, shrinkage, 0.0, Figures(0, 0.0, 0.0, None), self.fit(shrinkage), *nothing
            )
        for fold in usable:
            rows = np.flatnonzero(self._material.folds_N == fold)
            spread = self._without(fold)
            fit = spread.fit(shrinkage, most=self._recipe.most_kinds)
            first = first or fit
            logits.append(fit.scores.of(self._reduced_NR[rows]))
            labels.append(self._material.labels_N[rows])
            known.append(spread.counts_L[labels[-1]] > 0)
            found.append(self._find_class(fit, rows))
        assert first is not None
        logits_NL, labels_N = np.concatenate(logits), np.concatenate(labels)
        known_N, found_N = np.concatenate(known), np.concatenate(found)
        right_N = logits_NL.argmax(axis=1) == labels_N
        figures = Figures(len(labels_N), float(right_N.mean()), float(found_N.mean()), None)
        logits_NL, labels_N = logits_NL[known_N], labels_N[known_N]
        loss = fitted_loss(logits_NL, labels_N) if len(labels_N) else 0.0
        return _Trial(self, shrinkage, loss, figures, first, logits_NL, labels_N)

    def _without(self, fold: int) -> ClassSpread:
        if fold not in self._spreads:
            others = self._whole.without(self._of_fold[fold])
            self._spreads[fold] = ClassSpread(others, features=self.space.features)
        return self._spreads[fold]

    def _find_class(self, fit: Discriminants, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return for each of the rows whether the nearest image of another fold is of its class."""
        labels_N, folds_N = self._material.labels_N, self._material.folds_N
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
