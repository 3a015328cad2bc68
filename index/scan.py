"""Exact search: looks at every row. Rows and queries in, the nearest keys and their scores out.

The reference that every faster structure is measured against.

Shape suffixes: N rows, Q queries, F fetched candidates, S rows of a subset, D vector width.
"""

from typing import Final, Protocol

import faiss
import numpy as np
from numpy.typing import NDArray

# Candidates beyond k: FAISS and our own sum round differently (about 1e-6 at width 4,096), so the
# candidates must reach this far below the k-th score before they are known to hold the best k.
ROUNDING: Final = 4e-6
SPARE: Final = 16
BLOCK_ROWS: Final = 16_384  # rows gathered at a time for many queries: 32 MiB at width 512
GATHER_QUERIES: Final = 8  # from so many on, gathering rows for the matrix product pays

Hits = tuple[NDArray[np.int64], NDArray[np.float32]]  # keys and scores, best first
NOTHING: Final[Hits] = (np.empty(0, np.int64), np.empty(0, np.float32))


class Rows(Protocol):
    """Unit vectors under distinct keys, some of them dead, at one moment."""

    @property
    def vectors_ND(self) -> NDArray[np.float32]:
        """All rows, dead ones included, C-contiguous."""
        ...

    @property
    def keys_N(self) -> NDArray[np.int64]:
        """The key of each row."""
        ...

    @property
    def dead(self) -> int:
        """How many rows no search may return."""
        ...

    def alive_among(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return those of ``rows`` that a search may return, in their order."""
        ...

    def alive_rows(self) -> NDArray[np.int64]:
        """Return all rows that a search may return, sorted."""
        ...


def nearest(
    rows: Rows, queries_QD: NDArray[np.float32], *, k: int, among: NDArray[np.int64] | None = None
) -> list[Hits]:
    """Return the best ``k`` of each query, best first, ties by the smaller key.

    A score depends on the query and the vector only: not on the row, the batch or ``k``.

    Args:
        rows: what to scan.
        queries_QD: unit vectors, C-contiguous.
        k: at least 1; fewer come back only when fewer rows are alive (and ``among`` the wanted).
        among: only these rows, alive and distinct; ``None`` scans all.
    """
    if among is None and rows.dead > SPARE + k:  # not worth fetching so many dead ones
        among = rows.alive_rows()
    scanned = len(rows.keys_N) if among is None else len(among)
    dead = rows.dead if among is None else 0
    k = min(k, scanned - dead)
    if not k:
        return [NOTHING] * len(queries_QD)
    fetch = min(k + dead + SPARE, scanned)
    if len(queries_QD) == 1:
        return [_nearest_of_one(rows, queries_QD, k, fetch, among)]
    answers = [NOTHING] * len(queries_QD)
    unsettled = np.arange(len(queries_QD))
    while len(unsettled):
        scores_QF, rows_QF = _fetch(rows.vectors_ND, queries_QD[unsettled], fetch, among)
        left = []
        for query, scores_F, rows_F in zip(unsettled, scores_QF, rows_QF, strict=True):
            keys, scores = ranked(rows, queries_QD[query], rows_F)
            # Duplicates can tie beyond the last candidate; then look at more of them.
            if fetch < scanned and scores_F.min() > scores[k - 1] - ROUNDING:
                left.append(query)
            else:
                answers[query] = keys[:k], scores[:k]
        unsettled = np.array(left, np.int64)
        fetch = min(4 * fetch, scanned)
    return answers


def _nearest_of_one(
    rows: Rows,
    query_1D: NDArray[np.float32],
    k: int,
    fetch: int,
    among: NDArray[np.int64] | None,
) -> Hits:
    """As ``nearest`` for one query, without what several cost."""
    scanned = len(rows.keys_N) if among is None else len(among)
    while True:
        scores_1F, rows_1F = _fetch(rows.vectors_ND, query_1D, fetch, among)
        keys, scores = ranked(rows, query_1D[0], rows_1F[0])
        if fetch == scanned or scores_1F.min() <= scores[k - 1] - ROUNDING:
            return keys[:k], scores[:k]
        fetch = min(4 * fetch, scanned)


def above(
    rows: Rows,
    query_D: NDArray[np.float32],
    *,
    min_score: float,
    among: NDArray[np.int64] | None = None,
) -> Hits:
    """Return every row that scores at least ``min_score``, best first, ties by the smaller key."""
    if among is None:
        among = rows.alive_rows() if rows.dead else None
    found = []
    scanned = len(rows.keys_N) if among is None else len(among)
    for start in range(0, scanned, BLOCK_ROWS):
        stop = min(start + BLOCK_ROWS, scanned)
        block = np.arange(start, stop) if among is None else among[start:stop]
        vectors_SD = rows.vectors_ND[start:stop] if among is None else rows.vectors_ND[block]
        found.append(block[vectors_SD @ query_D >= min_score - ROUNDING])
    if not found:
        return NOTHING
    keys, scores = ranked(rows, query_D, np.concatenate(found))
    enough = int(np.searchsorted(-scores, -np.float32(min_score), side="right"))
    return keys[:enough], scores[:enough]


def ranked(rows: Rows, query_D: NDArray[np.float32], candidates_F: NDArray[np.int64]) -> Hits:
    """Return keys and scores of the alive ones of ``candidates_F``, best first, ties by key."""
    if rows.dead:
        candidates_F = rows.alive_among(candidates_F)
    # Summed here, one row at a time and in double precision: FAISS's sums depend on the position of
    # the row and on the size of the batch, which would make ties and repeated calls differ.
    products_FD = rows.vectors_ND[candidates_F].astype(np.float64) * query_D
    scores_F = np.clip(products_FD.sum(axis=1), -1, 1).astype(np.float32)
    keys_F = rows.keys_N[candidates_F]
    order = np.lexsort((keys_F, -scores_F))
    return keys_F[order], scores_F[order]


def _fetch(
    vectors_ND: NDArray[np.float32],
    queries_QD: NDArray[np.float32],
    fetch: int,
    among: NDArray[np.int64] | None,
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return scores and rows (Q, fetch) of the candidates FAISS finds, in no promised order."""
    if among is None:
        return _knn(queries_QD, vectors_ND, fetch)
    if len(queries_QD) < GATHER_QUERIES:
        return _knn_in_place(queries_QD, vectors_ND, among, fetch)
    found = []
    for start in range(0, len(among), BLOCK_ROWS):
        block = among[start : start + BLOCK_ROWS]
        scores_QF, places_QF = _knn(queries_QD, vectors_ND[block], min(fetch, len(block)))
        found.append((scores_QF, block[places_QF]))
    scores_QF = np.concatenate([scores for scores, _ in found], axis=1)
    rows_QF = np.concatenate([block_rows for _, block_rows in found], axis=1)
    best_QF = np.argsort(-scores_QF, axis=1)[:, :fetch]
    return np.take_along_axis(scores_QF, best_QF, 1), np.take_along_axis(rows_QF, best_QF, 1)


def _knn(
    queries_QD: NDArray[np.float32], vectors_ND: NDArray[np.float32], fetch: int
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    scores_QF, rows_QF = faiss.knn(queries_QD, vectors_ND, fetch, metric=faiss.METRIC_INNER_PRODUCT)
    return scores_QF, rows_QF


def _knn_in_place(
    queries_QD: NDArray[np.float32],
    vectors_ND: NDArray[np.float32],
    among_S: NDArray[np.int64],
    fetch: int,
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """As ``_knn`` among some rows, which are read where they lie."""
    count, width = vectors_ND.shape
    scores_QF = np.empty((len(queries_QD), fetch), np.float32)
    rows_QF = np.empty((len(queries_QD), fetch), np.int64)
    among_S = np.ascontiguousarray(among_S, np.int64)
    queries_QD = np.ascontiguousarray(queries_QD)
    for row in range(len(queries_QD)):
        faiss.knn_inner_products_by_idx(
            faiss.swig_ptr(queries_QD[row]),
            faiss.swig_ptr(vectors_ND),
            faiss.swig_ptr(among_S),
            width,
            1,
            count,
            len(among_S),
            fetch,
            faiss.swig_ptr(scores_QF[row]),
            faiss.swig_ptr(rows_QF[row]),
        )
    return scores_QF, rows_QF
