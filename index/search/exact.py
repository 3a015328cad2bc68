"""Exact search: looks at every row. Rows and queries in, the nearest keys and their scores out.

The reference that every faster ANN index is measured against.

Shape suffixes: N rows, Q queries, F fetched candidates, S rows of a subset, D vector width.
"""

from typing import Final, Protocol

import faiss
import numpy as np
from numpy.typing import NDArray

from index.search.hits import NO_HITS, Hits, merged

# Candidates beyond k: FAISS and our own sum round differently (about 1e-6 at width 4,096), so the
# candidates must reach this far below the k-th score before they are known to hold the best k.
ROUNDING: Final = 4e-6
SPARE: Final = 16
BLOCK_NUMBERS: Final = 2**21  # of rows that are gathered or compared at a time: 8 MiB
GATHER_QUERIES: Final = 8  # from so many on, gathering rows for the matrix product pays


class Rows(Protocol):
    """Unit vectors under distinct keys, some of them tombstoned, at one moment."""

    @property
    def vectors_ND(self) -> NDArray[np.float32]:
        """All rows, tombstoned ones included, C-contiguous."""
        ...

    @property
    def keys_N(self) -> NDArray[np.int64]:
        """The key of each row."""
        ...

    @property
    def tombstones(self) -> int:
        """How many rows no search may return."""
        ...

    def live_among(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return those of ``rows`` that a search may return, in their order."""
        ...

    def live_rows(self) -> NDArray[np.int64]:
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
        k: at least 1; fewer come back only when fewer rows are live (and ``among`` the wanted).
        among: only these rows, live and distinct; ``None`` scans all.
    """
    if among is None and rows.tombstones > SPARE + k:  # not worth fetching so many of them
        among = rows.live_rows()
    scanned = len(rows.keys_N) if among is None else len(among)
    tombstones = rows.tombstones if among is None else 0
    k = min(k, scanned - tombstones)
    if not k:
        return [NO_HITS] * len(queries_QD)
    fetch = min(k + tombstones + SPARE, scanned)
    scores_QF, rows_QF = _fetch(rows.vectors_ND, queries_QD, fetch, among)
    return [
        _settled(rows, query_D, k, (scores_F, rows_F), among)
        for query_D, scores_F, rows_F in zip(queries_QD, scores_QF, rows_QF, strict=True)
    ]


def _settled(
    rows: Rows,
    query_D: NDArray[np.float32],
    k: int,
    fetched: tuple[NDArray[np.float32], NDArray[np.int64]],
    among: NDArray[np.int64] | None,
) -> Hits:
    """Return the best ``k`` of the candidates, or of all rows where others may be as good."""
    scores_F, rows_F = fetched
    keys, scores = ranked(rows, query_D, rows_F)
    scanned = len(rows.keys_N) if among is None else len(among)
    if len(rows_F) == scanned or scores_F.min() <= scores[k - 1] - ROUNDING:
        return keys[:k], scores[:k]
    # Duplicates can tie beyond the last candidate.
    hits, _ = range_search(rows, query_D, min_score=float(scores[k - 1]), limit=k, among=among)
    return hits


def range_search(
    rows: Rows,
    query_D: NDArray[np.float32],
    *,
    min_score: float,
    limit: int | None = None,
    among: NDArray[np.int64] | None = None,
) -> tuple[Hits, int]:
    """Return the rows that score at least ``min_score``, and how many there are.

    The best ``limit`` of them, or all; best first, ties by the smaller key. The memory that it
    takes follows what is returned, not the rows.
    """
    if among is None and rows.tombstones:
        among = rows.live_rows()
    best, total, least = NO_HITS, 0, np.float32(min_score)
    scanned = len(rows.keys_N) if among is None else len(among)
    step = _block_rows(query_D)
    for start in range(0, scanned, step):
        stop = min(start + step, scanned)
        block = np.arange(start, stop) if among is None else among[start:stop]
        vectors_SD = rows.vectors_ND[start:stop] if among is None else rows.vectors_ND[block]
        products_S = vectors_SD @ query_D
        # What a product rounds to decides nothing: those close to a border are summed again.
        close = np.flatnonzero(np.abs(products_S - least) < ROUNDING)
        total += int(np.count_nonzero(products_S >= least + ROUNDING))
        total += int(np.count_nonzero(_scores(rows, query_D, block[close]) >= least))
        border = least
        if limit is not None and len(best[0]) == limit:
            border = max(border, best[1][-1])
        if limit is not None and limit < len(products_S):
            border = max(border, np.partition(products_S, -limit)[-limit] - np.float32(ROUNDING))
        keys, scores = ranked(rows, query_D, block[products_S >= border - ROUNDING])
        enough = int(np.searchsorted(-scores, -least, side="right"))
        best = merged((keys[:enough], scores[:enough]), best, k=limit)
    return best, total


def _block_rows(query_D: NDArray[np.float32]) -> int:
    return max(1, BLOCK_NUMBERS // len(query_D))


def ranked(rows: Rows, query_D: NDArray[np.float32], candidates_F: NDArray[np.int64]) -> Hits:
    """Return keys and scores of the live ones of ``candidates_F``, best first, ties by key."""
    if rows.tombstones:
        candidates_F = rows.live_among(candidates_F)
    scores_F = _scores(rows, query_D, candidates_F)
    keys_F = rows.keys_N[candidates_F]
    order = np.lexsort((keys_F, -scores_F))
    return keys_F[order], scores_F[order]


def _scores(
    rows: Rows, query_D: NDArray[np.float32], some_F: NDArray[np.int64]
) -> NDArray[np.float32]:
    """Return the scores of some rows: (F,).

    Summed one row at a time and in double precision: FAISS's sums depend on the position of the row
    and on the size of the batch, which would make ties and repeated calls differ.
    """
    step = _block_rows(query_D)
    scores_F = np.empty(len(some_F), np.float32)
    for start in range(0, len(some_F), step):
        vectors_SD = rows.vectors_ND[some_F[start : start + step]].astype(np.float64)
        np.multiply(vectors_SD, query_D, out=vectors_SD)
        scores_F[start : start + step] = np.clip(vectors_SD.sum(axis=1), -1, 1)
    return scores_F


def products(
    rows: Rows, query_D: NDArray[np.float32], some_S: NDArray[np.int64]
) -> NDArray[np.float32]:
    """Return what the scores of some rows are but for rounding: (S,). Reads each row once."""
    step = _block_rows(query_D)
    is_all = len(some_S) == len(rows.keys_N)  # they are distinct, and sorted
    blocks = (slice(start, start + step) for start in range(0, len(some_S), step))
    products_S = [rows.vectors_ND[b if is_all else some_S[b]] @ query_D for b in blocks]
    return np.concatenate(products_S)


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
    scores_QF = np.empty((len(queries_QD), 0), np.float32)
    rows_QF = np.empty((len(queries_QD), 0), np.int64)
    step = _block_rows(queries_QD[0])
    for start in range(0, len(among), step):
        block = among[start : start + step]
        more_QF, places_QF = _knn(queries_QD, vectors_ND[block], min(fetch, len(block)))
        scores_QF = np.concatenate([scores_QF, more_QF], axis=1)
        rows_QF = np.concatenate([rows_QF, block[places_QF]], axis=1)
        best_QF = np.argsort(-scores_QF, axis=1)[:, :fetch]
        scores_QF = np.take_along_axis(scores_QF, best_QF, 1)
        rows_QF = np.take_along_axis(rows_QF, best_QF, 1)
    return scores_QF, rows_QF


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
