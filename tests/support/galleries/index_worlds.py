"""Galleries of every kind that one can think of, as unit vectors: what searches must cope with.

Shape suffixes: N rows, D vector width.
"""

from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.typing import NDArray

from tests.support.fakes import unit

Rows = NDArray[np.float64]


def homogeneous(rng: np.random.Generator, count: int, width: int) -> Rows:
    """All much alike, but for three that look like nothing else, on odd rows."""
    rows_ND = _one(rng, width) + 0.02 / width**0.5 * rng.normal(size=(count, width))
    rows_ND[[1, count // 2 | 1, count - 1 - (count % 2)]] = rng.normal(size=(3, width))
    return rows_ND


def mixture(rng: np.random.Generator, count: int, width: int) -> Rows:
    """Two tight worlds, and a few rows of noise."""
    rows_ND = _one(rng, width) + 0.05 * rng.normal(size=(count, width))
    rows_ND[: count // 3] = _one(rng, width) + 0.001 * rng.normal(size=(count // 3, width))
    rows_ND[:: max(2, count // 20)] = rng.normal(size=rows_ND[:: max(2, count // 20)].shape)
    return rows_ND


def twins(rng: np.random.Generator, count: int, width: int) -> Rows:
    """A third is one vector again and again."""
    rows_ND = rng.normal(size=(count, width))
    rows_ND[rng.permutation(count)[: count // 3]] = rows_ND[0]
    return rows_ND


def near_twins(rng: np.random.Generator, count: int, width: int) -> Rows:
    """A third is nearly one vector: they become the same bytes."""
    rows_ND = rng.normal(size=(count, width))
    some = rng.permutation(count)[: count // 3]
    rows_ND[some] = rows_ND[0] + 1e-5 * rng.normal(size=(len(some), width))
    return rows_ND


def constant(rng: np.random.Generator, count: int, width: int) -> Rows:
    """One vector, and nothing else."""
    return np.repeat(_one(rng, width)[np.newaxis], count, axis=0)


def one_hot(rng: np.random.Generator, count: int, width: int) -> Rows:
    """Ones on the axes."""
    return np.eye(width)[rng.integers(0, width, count)]


def sparse(rng: np.random.Generator, count: int, width: int) -> Rows:
    """Mostly zeros."""
    rows_ND = rng.random((count, width)) * (rng.random((count, width)) < 0.05)
    rows_ND[:, 0] += 1e-3
    return rows_ND


def heavy_tails(rng: np.random.Generator, count: int, width: int) -> Rows:
    """Numbers without a variance: in any row one of them may be all that counts."""
    return 1e-9 + rng.standard_cauchy(size=(count, width))


def noise(rng: np.random.Generator, count: int, width: int) -> Rows:
    """No two of them near one another."""
    return rng.normal(size=(count, width))


def on_a_line(rng: np.random.Generator, count: int, width: int) -> Rows:
    """Along one arc, in a width that they do not need."""
    place_N1 = np.sort(rng.random(count))[:, np.newaxis]
    return place_N1 * _one(rng, width) + (1 - place_N1) * _one(rng, width)


WORLDS: Final[list[Callable[[np.random.Generator, int, int], Rows]]] = [
    homogeneous,
    mixture,
    twins,
    near_twins,
    constant,
    one_hot,
    sparse,
    heavy_tails,
    noise,
    on_a_line,
]


def vectors_of(
    world: Callable[[np.random.Generator, int, int], Rows], count: int, width: int, *, seed: int
) -> NDArray[np.float32]:
    """Return unit vectors (count, width) of a world."""
    return unit(world(np.random.default_rng(seed), count, width))


def _one(rng: np.random.Generator, width: int) -> Rows:
    return np.asarray(unit(rng.normal(size=width)), np.float64)
