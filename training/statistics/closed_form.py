"""Features of images in, spaces to work with them and linear layers on them out: closed forms.

Shape suffixes: N images, Q changes, F features, R dimensions that they are worked with in, D
numbers of a head.
"""

from dataclasses import dataclass, replace
from typing import Final, NamedTuple, Self

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

CHUNK: Final = 4096  # images at a time
MOST_DIMENSIONS: Final = 2048  # that features are worked with in
SAMPLED: Final = 4096  # images that the dimensions are taken from
LEAST_SPREAD: Final = 1e-6  # of a feature, beside the widest one: below it, it tells nothing


class Linear(NamedTuple):
    """A linear layer: ``features @ weight.T + bias``."""

    weight_DF: NDArray[np.float32]
    bias_D: NDArray[np.float32]

    def of(self, features_NF: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return what the layer makes of features: (N, D)."""
        rows_ND: NDArray[np.float32] = features_NF @ self.weight_DF.T + self.bias_D
        return rows_ND


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FeatureSpace:
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
        space = cls.standardized(features_NF)
        if weights_F is not None:
            space = replace(space, factor_F=space.factor_F * weights_F)
        many = space.features > min(len(features_NF), MOST_DIMENSIONS)
        return space._of_components(features_NF) if many else space

    @classmethod
    def standardized(cls, features_NF: NDArray[np.float32]) -> Self:
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
    def uniformly_scaled(cls, features_NF: NDArray[np.float32]) -> Self:
        """Return the space of numbers that count as much as they spread: one factor for all."""
        mean_F = features_NF.mean(axis=0, dtype=np.float64)
        squares = np.einsum("nf,nf->", features_NF, features_NF, dtype=np.float64)
        spread = np.sqrt(max(squares / len(features_NF) - mean_F @ mean_F, 0) / len(mean_F))
        factor_F = np.full_like(mean_F, 1 / max(spread, LEAST_SPREAD))
        space = cls(mean_F=mean_F, factor_F=factor_F, basis_FR=None)
        many = space.features > MOST_DIMENSIONS
        return space._of_components(features_NF) if many else space

    def _of_components(self, features_NF: NDArray[np.float32]) -> Self:
        """Return the space of the strongest principal components of some of the images."""
        rows = np.unique(np.linspace(0, len(features_NF) - 1, SAMPLED).round().astype(np.int64))
        basis_FR = components(self.transform(features_NF[rows]), MOST_DIMENSIONS)
        return replace(self, basis_FR=basis_FR)

    @property
    def features(self) -> int:
        """How many features there are."""
        return len(self.mean_F)

    def transform(self, features_NF: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return features as they are worked with: (N, R)."""
        parts: list[NDArray[np.float32]] = []
        for start in range(0, len(features_NF), CHUNK):
            scaled_NF = (features_NF[start : start + CHUNK] - self.mean_F) * self.factor_F
            part_NF = scaled_NF.astype(np.float32)
            parts.append(part_NF if self.basis_FR is None else part_NF @ self.basis_FR)
        return np.concatenate(parts)

    def fold(self, layer: Linear) -> Linear:
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
