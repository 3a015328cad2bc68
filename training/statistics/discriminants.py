"""Features of labelled images in, what tells their classes apart out, without a step of learning.

*Linear discriminants* (Fisher 1936; Hastie, Tibshirani & Friedman 2009, section 4.3) with shrunk
covariance (Friedman 1989): classes are told apart as if all had the same spread about their means,
of which a share, the shrinkage, is taken to be the same in all directions. What a fit needs of the
images are sums over them (``Moments``), so that all but one fold of the images are the difference
of two sums, and a fit costs the same for a hundred images as for a million.

Shape suffixes: N images, R dimensions that features are worked with in, L labels, S labels that
have images, D numbers of a head.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, Self

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from training.data.images.labelled_images import UNLABELLED
from training.statistics.closed_form import CHUNK, LEAST_SPREAD, Linear

NEVER_WINS: Final = 1e3  # what a class without images has less than the least score
LEAST_STRENGTH: Final = 1e-9  # of a direction, beside the strongest one: rounding has as much


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


class ClassScatter:
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
