"""Features of a training's images in, what heads on them are worth out: in closed form.

Every image is held out once: what is said of it comes from heads that were fitted to the others.

Shape suffixes: N images, V views of each, Q views in all, F features, I of them that tell items
apart, R dimensions that they are worked with in, L labels, D vector width.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from training.auto_recipe import AutoRecipe, deal_folds
from training.closed_form import (
    ClassSpread,
    Discriminants,
    Linear,
    Moments,
    Space,
    fit_item,
    two_part,
    unit,
)
from training.errors import DataError
from training.images import UNLABELLED, LabelledImages
from training.same_item import Searched, find_views

FEWEST_CLASSES: Final = 2
NEVER: Final = -1  # the fold of images that are never held out
FEW_DIMENSIONS: Final = 600  # below it, several threads wait longer for each other than they work
SEARCHED_BYTES: Final = 64 * 2**20  # of scores at a time


class Heads(NamedTuple):
    """Linear layers on features. Without classes there is only the first."""

    item: Linear  # tells one thing from another
    kind: Linear | None  # tells kinds apart
    scores: Linear | None  # of classes

    def vectors(self, features_NF: NDArray[np.float32], kind_share: float) -> NDArray[np.float32]:
        """Return unit vectors (N, D) as the network makes them of features."""
        item_ND, kind = unit(self.item.of(features_NF)), self.kind
        return (
            item_ND if kind is None else two_part(item_ND, unit(kind.of(features_NF)), kind_share)
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Material:
    """What is learnt from, beside the pixels: in the order of the features."""

    labels_N: NDArray[np.int64]
    photos_N: NDArray[np.uint64]  # equal for copies
    contents_N: NDArray[np.uint64]  # of the files
    folds_N: NDArray[np.int64]  # in which each image is held out, or NEVER
    num_labels: int

    @classmethod
    def of(
        cls,
        train: LabelledImages,
        validation: LabelledImages | None,
        unlabelled: LabelledImages | None,
        *,
        folds: int,
    ) -> "Material":
        """Return what these parts are; a validation part is the only fold."""
        parts = [part for part in (train, validation, unlabelled) if part is not None]
        dealt = deal_folds(train.labels_N.tolist(), train.lots_N.tolist(), folds)
        of_train_N = np.array(dealt, np.int64) if validation is None else np.full(len(train), NEVER)
        return cls(
            labels_N=np.concatenate([part.labels_N for part in parts]),
            photos_N=np.concatenate([part.lots_N for part in parts]),
            contents_N=np.concatenate([part.contents_N for part in parts]),
            folds_N=np.concatenate(
                [
                    of_train_N,
                    *([] if validation is None else [np.zeros(len(validation), np.int64)]),
                    *([] if unlabelled is None else [np.full(len(unlabelled), NEVER)]),
                ]
            ),
            num_labels=len(train.label_names),
        )

    def taught(self) -> NDArray[np.int64]:
        """Return the positions of labelled images that the first fold does not hold out."""
        held_in_N = self.folds_N != self.folds[0]
        return np.flatnonzero(held_in_N & (self.labels_N != UNLABELLED))

    @property
    def folds(self) -> list[int]:
        """The folds that hold an image out."""
        return [int(fold) for fold in np.unique(self.folds_N) if fold != NEVER]


class Figures(NamedTuple):
    """What heads are worth on images held out; shares in [0, 1]."""

    images: int
    accuracy: float | None  # None without classes
    r_at_1: float | None  # nearest of all others is of the same class
    same_item: float | None  # made views find the photo they are of; None: not measured

    @property
    def of_classes(self) -> float:
        """The mean of both figures of classes; 0 without classes."""
        return ((self.accuracy or 0.0) + (self.r_at_1 or 0.0)) / 2


class Fitted(NamedTuple):
    """The best heads in closed form on some features, and what they are worth."""

    heads: Heads  # fitted to all images
    shrinkage: float | None
    figures: Figures
    logits_NL: NDArray[np.float32]  # of images held out, to fit a temperature with
    labels_N: NDArray[np.int64]  # theirs


class Seen(NamedTuple):
    """What one network sees of the images, and of views of some of them."""

    features_NF: NDArray[np.float32]  # of all images of the material
    item_columns: int  # so many features, the first ones, tell one thing from another
    changes_QI: NDArray[np.float32]  # of those, from photos to views of them
    viewed_N: NDArray[np.int64]  # positions of other photos, held out in the first fold
    views_VNF: NDArray[np.float32]  # features of views of these


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
    item = _fit_item(seen, recipe, with_classes=material.num_labels > 0)
    things = _Things(
        unit(item.of(seen.features_NF)),
        unit(item.of(seen.views_VNF.reshape(-1, seen.views_VNF.shape[-1]))),
    )
    if not material.num_labels:
        found = _same_item(things.all_ND, things.views_QD, material, seen.viewed_N)
        nothing = np.empty((0, 0), np.float32), np.empty(0, np.int64)
        figures = Figures(len(seen.features_NF), None, None, found)
        return Fitted(Heads(item, None, None), None, figures, *nothing)
    space = Space.of(seen.features_NF)
    reduced_NR = space.reduced(seen.features_NF)
    folded = _Folded(reduced_NR, things.all_ND, material, recipe, space.features)
    chosen = material.folds if folds is None else list(folds)
    with threadpool_limits(1 if reduced_NR.shape[1] < FEW_DIMENSIONS else None):
        trials = [folded.hold_out(chosen, shrinkage) for shrinkage in recipe.shrinkages]
    best = max(range(len(trials)), key=lambda place: trials[place].figures.of_classes)
    shrinkage, trial = recipe.shrinkages[best], trials[best]
    reduced_QR = space.reduced(seen.views_VNF.reshape(-1, seen.views_VNF.shape[-1]))
    vectors_ND, vectors_QD = (
        two_part(item_ND, unit(trial.first.kind.of(rows)), recipe.kind_share)
        for item_ND, rows in ((things.all_ND, reduced_NR), (things.views_QD, reduced_QR))
    )
    found = _same_item(vectors_ND, vectors_QD, material, seen.viewed_N)
    final = folded.fit(shrinkage)
    return Fitted(
        Heads(item, space.folded(final.kind), space.folded(final.scores)),
        shrinkage,
        trial.figures._replace(same_item=found),
        trial.logits_NL,
        trial.labels_N,
    )


class _Things(NamedTuple):
    """Unit vectors that tell one thing from another."""

    all_ND: NDArray[np.float32]
    views_QD: NDArray[np.float32]


class _Trial(NamedTuple):
    """What one strength is worth."""

    figures: Figures
    first: Discriminants  # fitted without the first of the folds
    logits_NL: NDArray[np.float32]  # of the images held out
    labels_N: NDArray[np.int64]


class _Folded:
    """Sums over the images of each fold, so that it costs little to leave one out."""

    def __init__(
        self,
        reduced_NR: NDArray[np.float32],
        item_ND: NDArray[np.float32],
        material: Material,
        recipe: AutoRecipe,
        features: int,
    ) -> None:
        self._reduced_NR, self._item_ND = reduced_NR, item_ND
        self._material, self._recipe, self._features = material, recipe, features
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
        spread = ClassSpread(self._whole, features=self._features)
        return spread.fit(shrinkage, most=self._recipe.most_kinds)

    def hold_out(self, folds: Sequence[int], shrinkage: float) -> _Trial:
        """Return what a strength is worth on images of these folds, held out in turn."""
        logits: list[NDArray[np.float32]] = []
        labels: list[NDArray[np.int64]] = []
        found: list[NDArray[np.bool_]] = []
        first: Discriminants | None = None
        # Of some classes all photos may lie in one fold: two must be left to tell apart.
        usable = [fold for fold in folds if self._without(fold).classes >= FEWEST_CLASSES]
        if not usable:
            nothing = np.empty((0, self._material.num_labels), np.float32), np.empty(0, np.int64)
            return _Trial(Figures(0, 0.0, 0.0, None), self.fit(shrinkage), *nothing)
        for fold in usable:
            rows = np.flatnonzero(self._material.folds_N == fold)
            fit = self._without(fold).fit(shrinkage, most=self._recipe.most_kinds)
            first = first or fit
            logits.append(fit.scores.of(self._reduced_NR[rows]))
            labels.append(self._material.labels_N[rows])
            found.append(self._find_class(fit, rows))
        assert first is not None
        logits_NL, labels_N = np.concatenate(logits), np.concatenate(labels)
        right_N, found_N = logits_NL.argmax(axis=1) == labels_N, np.concatenate(found)
        figures = Figures(len(labels_N), float(right_N.mean()), float(found_N.mean()), None)
        return _Trial(figures, first, logits_NL, labels_N)

    def _without(self, fold: int) -> ClassSpread:
        if fold not in self._spreads:
            others = self._whole.without(self._of_fold[fold])
            self._spreads[fold] = ClassSpread(others, features=self._features)
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


def _fit_item(seen: Seen, recipe: AutoRecipe, *, with_classes: bool) -> Linear:
    """Return the head that tells one thing from another, on all features."""
    features_NI = seen.features_NF[:, : seen.item_columns]
    if (features_NI == features_NI[0]).all():
        raise DataError("the photos cannot be told apart: all of them look the same")
    item = fit_item(
        features_NI,
        seen.changes_QI,
        shrinkage=recipe.view_shrinkage if with_classes else recipe.lone_view_shrinkage,
        width=min(recipe.item_width, len(features_NI) - 1),
    )
    weight_DF = np.zeros((len(item.bias_D), seen.features_NF.shape[1]), np.float32)
    weight_DF[:, : seen.item_columns] = item.weight_DF
    return Linear(weight_DF, item.bias_D)


def _same_item(
    vectors_ND: NDArray[np.float32],
    vectors_QD: NDArray[np.float32],
    material: Material,
    viewed_N: NDArray[np.int64],
) -> float:
    """Return the share of made views that find the photo they are of among all."""
    searched = Searched(
        vectors_KD=vectors_ND,
        photos_K=material.photos_N,
        things_K=np.full(len(vectors_ND), -1),
    )
    views_VND = vectors_QD.reshape(-1, len(viewed_N), vectors_QD.shape[1])
    return find_views(views_VND, material.photos_N[viewed_N], searched).r_at_1
