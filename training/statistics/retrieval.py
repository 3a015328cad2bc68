"""How well nearest vectors are of the same class: exact cosine over a whole gallery.

Shape suffixes: Q queries, K gallery vectors, D vector width, R gallery vectors of one class.
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Final

import numpy as np
from numpy.typing import NDArray

from files.resource_limits import usable_cores

TOP: Final = 10  # hits that precision_at_10 looks at
CHUNK_BYTES: Final = 128 * 2**20  # of scores at a time
BLOCK: Final = 32  # queries that a thread takes at once
NOWHERE: Final = np.zeros(0, np.int64)

GroupKeys = tuple[NDArray[np.uint64], NDArray[np.uint64]]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Retrieval:
    """What each query found, in [0, 1]. Of two equal scores the wrong one counts as nearer.

    A query whose class the gallery does not have found nothing: all 0.
    """

    first_Q: NDArray[np.bool_]  # whether the nearest gallery vector is of the query's class
    precision_Q: NDArray[np.float64]  # right class among the ten nearest (or all, if fewer)
    average_precision_Q: NDArray[np.float64]  # over the whole gallery, not interpolated
    # AP@R: over the R nearest, R of the class there are (Musgrave et al. 2020, section 4)
    average_precision_at_r_Q: NDArray[np.float64]

    @property
    def per_query(self) -> dict[str, NDArray[np.bool_] | NDArray[np.float64]]:
        """A number in [0, 1] for each query, by the name of the figure it is the mean of."""
        return {
            "r_at_1": self.first_Q,
            "precision_at_10": self.precision_Q,
            "map": self.average_precision_Q,
            "map_at_r": self.average_precision_at_r_Q,
        }

    @property
    def means(self) -> dict[str, float]:
        """The figures themselves."""
        return {name: float(numbers_Q.mean()) for name, numbers_Q in self.per_query.items()}


def measure_retrieval(
    queries_QD: NDArray[np.float32],
    query_labels_Q: NDArray[np.int64],
    gallery_KD: NDArray[np.float32],
    gallery_labels_K: NDArray[np.int64],
    *,
    group_keys: GroupKeys | None = None,
) -> Retrieval:
    """Return how well each query's class is found; unit vectors in, time about Q x K log K.

    With ``group_keys``, of the queries and of the gallery, gallery vectors of a query's own group
    (itself and its copies) are as if they were not there.

    Scores are computed for some queries at a time, on all cores; the answer does not depend on how
    many (but for the last bit of a score, which is BLAS's business).
    """
    class_positions = {
        int(label): np.flatnonzero(gallery_labels_K == label) for label in np.unique(query_labels_Q)
    }
    own_positions = _positions_of(*group_keys) if group_keys else [NOWHERE] * len(queries_QD)
    figures_Q4 = np.zeros((len(queries_QD), 4))
    rows = max(1, CHUNK_BYTES // (4 * len(gallery_KD)))
    # numpy sorts and searches without the interpreter's lock, so threads are enough
    with ThreadPoolExecutor(usable_cores()) as pool:
        for start in range(0, len(queries_QD), rows):
            chunk = slice(start, start + rows)
            scores_QK = queries_QD[chunk] @ gallery_KD.T
            measure = partial(
                _measure_block,
                scores_QK,
                [class_positions[int(label)] for label in query_labels_Q[chunk]],
                own_positions[chunk],
                figures_Q4[chunk],
            )
            list(pool.map(measure, range(0, len(scores_QK), BLOCK)))
    return Retrieval(
        first_Q=figures_Q4[:, 0] == 1,
        precision_Q=figures_Q4[:, 1],
        average_precision_Q=figures_Q4[:, 2],
        average_precision_at_r_Q=figures_Q4[:, 3],
    )


def _measure_block(
    scores_QK: NDArray[np.float32],
    right_positions: list[NDArray[np.int64]],
    own_positions: list[NDArray[np.int64]],
    figures_Q4: NDArray[np.float64],
    start: int,
) -> None:
    """Fill the rows of ``figures_Q4`` from ``start`` on; spoils their scores."""
    for row in range(start, min(start + BLOCK, len(scores_QK))):
        right, own = right_positions[row], own_positions[row]
        if len(own):
            right = np.setdiff1d(right, own)
            scores_QK[row, own] = -np.inf  # behind all others
        if len(right):
            figures_Q4[row] = _figures(
                _right_ranks(scores_QK[row], right), scores_QK.shape[1] - len(own)
            )


def _positions_of(
    query_keys_Q: NDArray[np.uint64], gallery_keys_K: NDArray[np.uint64]
) -> list[NDArray[np.int64]]:
    """Return for each query the positions of its own group in the gallery, mostly none."""
    order_K = np.argsort(gallery_keys_K, kind="stable")
    first_Q, last_Q = (
        np.searchsorted(gallery_keys_K[order_K], query_keys_Q, side=side)
        for side in ("left", "right")
    )
    return [order_K[first:last] for first, last in zip(first_Q, last_Q, strict=True)]


def _right_ranks(
    scores_K: NDArray[np.float32], right_positions_R: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Return the ranks (R,) of the right hits, nearest first, 0 the nearest of all.

    Only their ranks matter: a right hit comes after the right ones before it and after the wrong
    ones that score as much or more. ``scores_K`` serves as memory to sort the wrong ones in.
    """
    right_R = scores_K[right_positions_R]
    right_R.sort()
    scores_K[right_positions_R] = -np.inf  # no longer among the wrong ones
    scores_K.sort()
    wrong_before_R = len(scores_K) - np.searchsorted(scores_K, right_R)
    return wrong_before_R[::-1] + np.arange(len(right_R))


def _figures(ranks_R: NDArray[np.int64], gallery: int) -> tuple[float, float, float, float]:
    """Return first, precision, average precision and average precision at R of one query."""
    count, top = len(ranks_R), min(TOP, gallery)
    precision_R = np.arange(1, count + 1) / (ranks_R + 1)  # down to each right hit
    return (
        float(ranks_R[0] == 0),
        float(np.searchsorted(ranks_R, top) / top),
        float(precision_R.mean()),
        float(precision_R[: np.searchsorted(ranks_R, count)].sum() / count),
    )
