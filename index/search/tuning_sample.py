"""What ANN indexes are measured with: queries and their true neighbours, from a gallery's own rows.

Some rows are held out: they are queries, and the ANN indexes that are measured do not hold them.
The same rows moved a little stand for pictures that were cut or saved anew. Queries from outside
(noise, blends of rows) lie where no rows do. The truth is an exact scan.

Shape suffixes: N rows, Q queries, K hits, D vector width.
"""

from dataclasses import dataclass
from math import ceil, sqrt
from typing import Final

import numpy as np
from numpy.typing import NDArray

from index.search.ann_index import MEASURED_K
from index.search.index_spec import RECALL
from index.search.vector_matrix import Matrix

LEAST_QUERIES: Final = 1_000  # held out, and
MOST_QUERIES: Final = 20_000
SHOWING: Final = 5  # queries for each one that may miss everything: so many show a recall
TRUTH: Final = 2e12  # rows x width x queries of an exact scan at most: about a minute on two cores
MAX_SHARE: Final = 0.1  # of the rows, held out at most
MOVED: Final = 0.25  # of the squared distance to its neighbours, by which a row is moved a little,
MOST_MOVED: Final = 0.95  # but at most to this cosine
MUCH_MOVED: Final = 0.65  # the same, of rows that are hardly to be known again
OUTSIDERS: Final = 200  # of each kind
USUAL: Final = 0.995  # share of the queries from inside that lie no farther from their neighbours


@dataclass(frozen=True, slots=True)
class Queries:
    """Queries of one kind, and how far their nearest rows are."""

    queries_QD: NDArray[np.float32]
    truth_QK: NDArray[np.float32]  # squared distances of the K nearest of the rows that are built


@dataclass(frozen=True, slots=True)
class Sample:
    """All rows: the ones that are measured, then the ones held out; queries, and the truth."""

    matrix: Matrix
    built: int  # so many of the first rows are in the ANN indexes that are measured
    inside: tuple[Queries, Queries]  # the rows that were held out, as they are and moved a little
    outside: tuple[Queries, ...]  # one kind after another
    floors: tuple[
        float, ...
    ]  # scores of the 1st, 2nd, ... hit that queries from inside mostly reach


def queries_for(target: float) -> int:
    """Return how many queries show that a recall of ``target`` is reached.

    >>> queries_for(0.9), queries_for(0.99), queries_for(0.999), queries_for(1.0)
    (1000, 1000, 5000, 20000)
    """
    missed = max(1 - target, SHOWING / MOST_QUERIES)
    return min(MOST_QUERIES, max(LEAST_QUERIES, ceil(round(SHOWING / missed, 6))))


def hold_out(
    keys_N: NDArray[np.int64],
    vectors_ND: NDArray[np.float32],
    *,
    target: float = RECALL,
    seed: int = 0,
) -> tuple[NDArray[np.int64], Sample]:
    """Return the keys in a new order, some random ones last, and the rows in that order.

    Args:
        keys_N: of the rows.
        vectors_ND: at least two.
        target: recall that is to be shown; the more, the more rows are held out.
        seed: of the choice.
    """
    rng = np.random.default_rng(seed)
    quick = int(TRUTH / vectors_ND.size)
    queries = max(1, min(queries_for(target), quick, int(MAX_SHARE * len(keys_N))))
    held = np.zeros(len(keys_N), np.bool_)
    held[rng.permutation(len(keys_N))[:queries]] = True
    order = np.concatenate([np.flatnonzero(~held), np.flatnonzero(held)])
    matrix = Matrix.of(vectors_ND, order=order)
    built = len(order) - queries
    held_QD = matrix.rows_ND[built:]
    held_as_is = _asked(matrix, built, held_QD)
    near = float(np.median(held_as_is.truth_QK[:, -1])) * MOVED / 2
    inside = held_as_is, _asked(matrix, built, _moved(held_QD, max(MOST_MOVED, 1 - near), rng))
    outsiders = _outsiders(matrix.rows_ND[:built], rng)
    outside = tuple(_asked(matrix, built, queries_QD) for queries_QD in outsiders)
    return keys_N[order], Sample(matrix, built, inside, outside, _floors(inside))


def _asked(matrix: Matrix, built: int, queries_QD: NDArray[np.float32]) -> Queries:
    truth_QK, _ = matrix.flat_of(built).search(queries_QD, min(MEASURED_K, built))
    return Queries(queries_QD, truth_QK)


def _floors(inside: tuple[Queries, Queries]) -> tuple[float, ...]:
    usual_K = np.maximum(*(np.quantile(asked.truth_QK, USUAL, axis=0) for asked in inside))
    return tuple(np.round(1 - usual_K.astype(np.float64) / 2, 6).tolist())


def _outsiders(rows_ND: NDArray[np.float32], rng: np.random.Generator) -> list[NDArray[np.float32]]:
    """Return queries from where no rows need lie: in much noise, only noise, or blends."""
    count, width = OUTSIDERS, rows_ND.shape[1]

    def some() -> NDArray[np.float32]:
        return rows_ND[rng.integers(0, len(rows_ND), count)]

    spread = sum((rng.normal(size=(count, 1)) * (some() - some()) for _ in range(4)), 2 * some())
    noise = rng.normal(size=(count, width))
    return [_moved(some(), MUCH_MOVED, rng), _unit(noise), _unit(spread)]


def _moved(
    rows_QD: NDArray[np.float32], cosine: float, rng: np.random.Generator
) -> NDArray[np.float32]:
    """Return the rows turned, each in a direction of its own, to about this cosine."""
    noise_QD = _unit(rng.normal(size=rows_QD.shape))
    return _unit(cosine * rows_QD + sqrt(1 - cosine**2) * noise_QD)


def _unit(numbers_QD: NDArray[np.floating]) -> NDArray[np.float32]:
    norms_Q1 = np.linalg.norm(numbers_QD, axis=1, keepdims=True)
    return np.ascontiguousarray(numbers_QD / np.maximum(norms_Q1, 1e-9), np.float32)
