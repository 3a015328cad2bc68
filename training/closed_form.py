"""Features of labelled images in, heads out, without a single step of learning: closed forms.

*Linear discriminants* (Fisher 1936; Hastie, Tibshirani & Friedman 2009, section 4.3) with shrunk
covariance (Friedman 1989): classes are told apart as if all had the same spread about their means,
of which a share, the shrinkage, is taken to be the same in all directions. What a fit needs of the
images are sums over them (``Moments``), so that all but one fold of the images are the difference
of two sums, and a fit costs the same for a hundred images as for a million.

Shape suffixes: N images, F features, R dimensions that they are worked with in, L labels, S labels
that have images, D numbers of a head.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, NamedTuple, Self

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from training.images import UNLABELLED

CHUNK: Final = 4096  # images at a time
MOST_DIMENSIONS: Final = 2048  # that features are worked with in
SAMPLED: Final = 4096  # images that the dimensions are taken from
NEVER_WINS: Final = 1e3  # what a class without images has less than the least score
LEAST_SPREAD: Final = 1e-6  # of a feature, beside the widest one: below it, it tells nothing
LEAST_STRENGTH: Final = 1e-9  # of a direction, beside the strongest one: rounding has as much


class Linear(NamedTuple):
    """A linear layer: ``features @ weight.T + bias``."""

    weight_DF: NDArray[np.float32]
    bias_D: NDArray[np.float32]

    def of(self, features_NF: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return what the layer makes of features: (N, D)."""
        rows_ND: NDArray[np.float32] = features_NF @ self.weight_DF.T + self.bias_D
        return rows_ND


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Space:
    """Where features are worked with: each with mean 0 and deviation 1, turned to few dimensions.

    N images lie in a space of N - 1 dimensions, and nothing in closed form leaves it. Of features
    that many images have, the strongest principal components are kept.
    """

    mean_F: NDArray[np.float64]
    factor_F: NDArray[np.float64]  # 0 where a feature is the same for all images
    basis_FR: NDArray[np.float32] | None  # None: all features, as they are

    @classmethod
    def of(
        cls, features_NF: NDArray[np.float32], weights_F: NDArray[np.float64] | None = None
    ) -> Self:
        """Return the space of these features, their deviations ``weights_F`` if given."""
        count, features = features_NF.shape
        straight = cls.straight(features_NF)
        if weights_F is not None:
            straight = replace(straight, factor_F=straight.factor_F * weights_F)
        if features <= min(count, MOST_DIMENSIONS):
            return straight
        rows = np.unique(np.linspace(0, count - 1, SAMPLED).round().astype(np.int64))
        basis_FR = components(straight.reduced(features_NF[rows]), MOST_DIMENSIONS)
        return cls(mean_F=straight.mean_F, factor_F=straight.factor_F, basis_FR=basis_FR)

    @classmethod
    def straight(cls, features_NF: NDArray[np.float32]) -> Self:
        """Return likewise, of all features."""
        mean_F = features_NF.mean(axis=0, dtype=np.float64)
        squares_F = np.zeros_like(mean_F)
        for start in range(0, len(features_NF), CHUNK):
            squares_F += ((features_NF[start : start + CHUNK] - mean_F) ** 2).sum(axis=0)
        spread_F = np.sqrt(squares_F / len(features_NF))
        real_F = spread_F > LEAST_SPREAD * spread_F.max(initial=0)
        factor_F = np.zeros_like(spread_F)
        factor_F[real_F] = 1 / spread_F[real_F]
        return cls(mean_F=mean_F, factor_F=factor_F, basis_FR=None)

    @classmethod
    def evenly(cls, features_NF: NDArray[np.float32]) -> Self:
        """Return the space of numbers that count as much as they spread: one factor for all."""
        mean_F = features_NF.mean(axis=0, dtype=np.float64)
        squares = np.einsum("nf,nf->", features_NF, features_NF, dtype=np.float64)
        spread = np.sqrt(max(squares / len(features_NF) - mean_F @ mean_F, 0) / len(mean_F))
        factor_F = np.full_like(mean_F, 1 / max(spread, LEAST_SPREAD))
        space = cls(mean_F=mean_F, factor_F=factor_F, basis_FR=None)
        if len(mean_F) <= MOST_DIMENSIONS:
            return space
        rows = np.unique(np.linspace(0, len(features_NF) - 1, SAMPLED).round().astype(np.int64))
        return replace(
            space, basis_FR=components(space.reduced(features_NF[rows]), MOST_DIMENSIONS)
        )

    @property
    def features(self) -> int:
        """How many features there are."""
        return len(self.mean_F)

    def reduced(self, features_NF: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return features as they are worked with: (N, R)."""
        parts: list[NDArray[np.float32]] = []
        for start in range(0, len(features_NF), CHUNK):
            scaled_NF = (features_NF[start : start + CHUNK] - self.mean_F) * self.factor_F
            part_NF = scaled_NF.astype(np.float32)
            parts.append(part_NF if self.basis_FR is None else part_NF @ self.basis_FR)
        return np.concatenate(parts)

    def folded(self, layer: Linear) -> Linear:
        """Return the layer of features as they come that is ``layer`` of reduced ones."""
        weight_DF = layer.weight_DF.astype(np.float64)
        if self.basis_FR is not None:
            weight_DF = weight_DF @ self.basis_FR.T
        weight_DF = weight_DF * self.factor_F
        bias_D = layer.bias_D - weight_DF @ self.mean_F
        return Linear(weight_DF.astype(np.float32), bias_D.astype(np.float32))


def components(scaled_NF: NDArray[np.float32], most: int) -> NDArray[np.float32]:
    """Return the directions (F, R) in which images lie farthest apart, the farthest first."""
    count, features = scaled_NF.shape
    by_images = count <= features
    products = scaled_NF @ scaled_NF.T if by_images else scaled_NF.T @ scaled_NF
    size = len(products)
    width = min(most, size)
    values_R, directions = scipy.linalg.eigh(
        products.astype(np.float64), subset_by_index=(size - width, size - 1), check_finite=False
    )
    real_R = values_R > values_R[-1] * size * np.finfo(np.float32).eps
    if not real_R.any():
        real_R[-1] = True
    directions = directions[:, real_R][:, ::-1]
    if by_images:
        lengths_R = np.sqrt(np.maximum(values_R[real_R][::-1], np.finfo(np.float64).tiny))
        directions = scaled_NF.T @ (directions / lengths_R).astype(np.float32)
    largest_R = directions[np.abs(directions).argmax(axis=0), np.arange(directions.shape[1])]
    return np.ascontiguousarray(directions * np.where(largest_R < 0, -1, 1), np.float32)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Moments:
    """Sums over labelled images: how many, of their reduced features, of the products of these."""

    counts_L: NDArray[np.int64]
    sums_LR: NDArray[np.float64]
    products_RR: NDArray[np.float64]

    @classmethod
    def of(
        cls, reduced_NR: NDArray[np.float32], labels_N: NDArray[np.int64], *, num_labels: int
    ) -> Self:
        """Return the sums over those of the images that have a label."""
        dimensions = reduced_NR.shape[1]
        labelled = np.flatnonzero(labels_N != UNLABELLED)
        sums_LR = np.zeros((num_labels, dimensions))
        products_RR = np.zeros((dimensions, dimensions))
        for start in range(0, len(labelled), CHUNK):
            rows = labelled[start : start + CHUNK]
            some_NR = reduced_NR[rows].astype(np.float64)
            products_RR += some_NR.T @ some_NR
            np.add.at(sums_LR, labels_N[rows], some_NR)
        counts_L = np.bincount(labels_N[labelled], minlength=num_labels)
        return cls(counts_L=counts_L, sums_LR=sums_LR, products_RR=products_RR)

    @classmethod
    def sum(cls, moments: Sequence[Self]) -> Self:
        """Return the sums over all of the images."""
        return cls(
            counts_L=np.sum([one.counts_L for one in moments], axis=0),
            sums_LR=np.sum([one.sums_LR for one in moments], axis=0),
            products_RR=np.sum([one.products_RR for one in moments], axis=0),
        )

    def without(self, other: Self) -> Self:
        """Return the sums over the images that are not among the others."""
        return type(self)(
            counts_L=self.counts_L - other.counts_L,
            sums_LR=self.sums_LR - other.sums_LR,
            products_RR=self.products_RR - other.products_RR,
        )


class Discriminants(NamedTuple):
    """What tells classes apart."""

    scores: Linear  # a number for each label: logarithms of chances, up to a common term
    kind: Linear  # a row in which images of one class lie about one point, equally far in each way


class ClassSpread:
    """Classes by their means, and how images spread about these: what discriminants are made of."""

    def __init__(self, moments: Moments, *, features: int) -> None:
        """Take the sums over images of at least one class, that have so many features."""
        self._features = features
        self._num_labels = len(moments.counts_L)
        self.counts_L = moments.counts_L
        self._seen = np.flatnonzero(moments.counts_L)
        counts_S = moments.counts_L[self._seen]
        count = counts_S.sum()
        self._shares_S = counts_S / count
        self._means_SR = moments.sums_LR[self._seen] / counts_S[:, None]
        about_RR = (self._means_SR.T * counts_S) @ self._means_SR
        self._within_RR = (moments.products_RR - about_RR) / count
        self._free_share = max(count - len(counts_S), 1) / count

    @property
    def classes(self) -> int:
        """How many classes have images."""
        return len(self._seen)

    def fit(self, shrinkage: float, *, most: int) -> Discriminants:
        """Return the linear discriminants; classes without images never win.

        Args:
            shrinkage: share of the spread that is taken to be the same in all directions, (0, 1].
            most: numbers of a kind; as many as the classes less one if that is less.
        """
        weight_RS = self._weights(shrinkage)
        return Discriminants(scores=self._scores(weight_RS), kind=self._kind(weight_RS, most))

    def scores(self, shrinkage: float) -> Linear:
        """Return the scores alone, which cost less where there are many classes.

        Where many classes have one image, which lies at its class's mean, the spread of the others
        is not taken for smaller: it is a mean over the images less the classes (Hastie et al.).
        """
        return self._scores(self._weights(shrinkage) * self._free_share)

    def _weights(self, shrinkage: float) -> NDArray[np.float64]:
        """Return the means, each direction divided by the shrunk spread in it: (R, S)."""
        level = np.trace(self._within_RR) / self._features
        shrunk_RR = (1 - shrinkage) * self._within_RR
        shrunk_RR[np.diag_indices(len(shrunk_RR))] += max(shrinkage * level, LEAST_SPREAD)
        factor = scipy.linalg.cho_factor(shrunk_RR, overwrite_a=True, check_finite=False)
        weight_RS: NDArray[np.float64] = scipy.linalg.cho_solve(
            factor, self._means_SR.T, check_finite=False
        )
        return weight_RS

    def _scores(self, weight_RS: NDArray[np.float64]) -> Linear:
        """Return those of scikit-learn's ``LinearDiscriminantAnalysis(shrinkage=…)``."""
        bias_S = np.log(self._shares_S) - (self._means_SR * weight_RS.T).sum(axis=1) / 2
        weight_LR = np.zeros((self._num_labels, len(weight_RS)))
        bias_L = np.full(self._num_labels, bias_S.min() - NEVER_WINS)
        weight_LR[self._seen], bias_L[self._seen] = weight_RS.T, bias_S
        return Linear(weight_LR.astype(np.float32), bias_L.astype(np.float32))

    def _kind(self, weight_RS: NDArray[np.float64], most: int) -> Linear:
        """Return the directions in which the means lie farthest apart, for the spread in them."""
        shares_S, roots_S = self._shares_S, np.sqrt(self._shares_S)
        middle_R = shares_S @ self._means_SR
        apart_SR = (self._means_SR - middle_R) * roots_S[:, None]
        weight_RS = (weight_RS - (weight_RS @ shares_S)[:, None]) * roots_S
        strengths_S, turns_SS = np.linalg.eigh(apart_SR @ weight_RS)
        width = min(most, self.classes - 1)
        strengths_D, turns_SD = strengths_S[::-1][:width], turns_SS[:, ::-1][:, :width]
        counts_D = strengths_D > LEAST_STRENGTH * max(strengths_S[-1], LEAST_STRENGTH)
        inverse_D = np.where(counts_D, 1 / np.sqrt(np.where(counts_D, strengths_D, 1)), 0)
        kind_DR = (weight_RS @ turns_SD).T * inverse_D[:, None]
        largest_D = kind_DR[np.arange(width), np.abs(kind_DR).argmax(axis=1)]
        kind_DR *= np.where(largest_D < 0, -1, 1)[:, None]  # the same signs on every machine
        return Linear(kind_DR.astype(np.float32), (-kind_DR @ middle_R).astype(np.float32))


def two_part(
    item_ND: NDArray[np.float32], kind_ND: NDArray[np.float32], kind_share: float
) -> NDArray[np.float32]:
    """Return unit vectors of two unit vectors, side by side, each with the root of its share."""
    lengths = np.sqrt([1 - kind_share, kind_share]).astype(np.float32)
    return np.concatenate([lengths[0] * item_ND, lengths[1] * kind_ND], axis=1)


def unit(rows_ND: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return rows of unit length; a row of zeros stays one."""
    lengths_N = np.maximum(np.linalg.norm(rows_ND, axis=1, keepdims=True), 1e-12)
    scaled_ND: NDArray[np.float32] = (rows_ND / lengths_N).astype(np.float32)
    return scaled_ND
