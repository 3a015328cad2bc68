"""Exact nearest-neighbour search by cosine: the reference every faster index is measured against.

Vectors and integer keys in, the nearest keys and their scores out. The only module that knows
FAISS.

Shape suffixes: N rows, Q queries, F fetched candidates, D vector width.
"""

from dataclasses import dataclass, replace
from typing import Final

import faiss
import numpy as np
from numpy.typing import NDArray

from index.errors import BadVectorsError
from index.vectors import check_vectors

MIN_CAPACITY: Final = 1024  # rows
GROWTH: Final = 1.5  # a full array is copied into one this many times as large
MIN_DEAD: Final = 128  # dead rows that are never worth a compaction
DEAD_SHARE: Final = 64  # compact when more than one row in this many is dead
# Candidates beyond k: FAISS and our own sum round differently (about 1e-6 at width 4,096), so the
# candidates must reach this far below the k-th score before they are known to hold the best k.
ROUNDING: Final = 4e-6
SPARE: Final = 16
BLOCK_ROWS: Final = 16_384  # rows gathered at a time for a filtered search: 32 MiB at width 512


@dataclass(frozen=True, slots=True)
class View:
    """What the index held at one moment; readers keep it as long as they like."""

    vectors_ND: NDArray[np.float32]  # dead rows included
    keys_N: NDArray[np.int64]  # strictly increasing
    dead_rows: NDArray[np.int64]  # sorted

    @property
    def alive(self) -> int:
        """Rows that a search may return."""
        return len(self.keys_N) - len(self.dead_rows)

    def alive_rows(self) -> NDArray[np.int64]:
        """Return the numbers of all rows that a search may return, sorted: int64 (alive,)."""
        rows = np.arange(len(self.keys_N))
        return np.delete(rows, self.dead_rows) if self.dead_rows.size else rows

    def rows_of(self, keys: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the alive rows that hold ``keys``, sorted, each once, without unknown keys."""
        keys = np.unique(keys)
        rows = np.searchsorted(self.keys_N, keys)
        known = rows < len(self.keys_N)
        known[known] = self.keys_N[rows[known]] == keys[known]
        rows = rows[known]
        return rows[~np.isin(rows, self.dead_rows)] if self.dead_rows.size else rows


class ExactIndex:
    """Unit vectors under integer keys; scans all of them for the nearest, O(N * D) per query.

    Think of a growing table with one writer and any number of readers. The writer fills rows that
    no reader can see yet and then publishes a new ``View`` by swapping one reference; a reader
    takes the current view and never locks. FAISS index objects crash when searched while they grow,
    so there is none: FAISS scans the view's array. ``apply`` must not be called by two threads at
    once.

    >>> index = ExactIndex(width=2)
    >>> index.apply(keys_N=np.int64([7, 9]), vectors_ND=np.eye(2, dtype=np.float32))
    >>> keys, scores = index.search(np.float32([[1, 0]]), k=1)[0]
    >>> keys.tolist(), scores.tolist()
    ([7], [1.0])
    """

    def __init__(self, width: int, *, capacity: int = MIN_CAPACITY) -> None:
        self.width = width
        self._vectors_CD = np.empty((max(capacity, MIN_CAPACITY), width), np.float32)
        self._keys_C = np.empty(len(self._vectors_CD), np.int64)
        self._view = View(self._vectors_CD[:0], self._keys_C[:0], np.empty(0, np.int64))

    def __len__(self) -> int:
        return self._view.alive

    @property
    def view(self) -> View:
        """The current, immutable content."""
        return self._view

    def apply(
        self,
        *,
        keys_N: NDArray[np.int64],
        vectors_ND: NDArray[np.float32],
        removed: NDArray[np.int64] | None = None,
    ) -> None:
        """Add rows and remove keys in one step: a reader sees all of it or nothing.

        Args:
            keys_N: new keys, strictly increasing and above every key ever added.
            vectors_ND: their vectors; trusted to be finite and of unit length.
            removed: keys to remove, new ones included; unknown ones are ignored.

        Raises:
            BadVectorsError: the shape is not (len(keys_N), width), or the keys do not increase.
                The index is as it was.
        """
        view = self._view
        if vectors_ND.shape != (len(keys_N), self.width):
            raise BadVectorsError(
                f"expected shape {(len(keys_N), self.width)}, got {vectors_ND.shape}"
            )
        last = view.keys_N[-1:] if len(view.keys_N) else np.zeros(1, np.int64)
        if np.any(np.diff(np.concatenate([last, keys_N])) <= 0):
            raise BadVectorsError("keys must increase, and none may be added twice")

        if len(keys_N):
            view = self._appended(view, keys_N, vectors_ND)
        if removed is not None and removed.size:
            dead_rows = np.union1d(view.dead_rows, view.rows_of(removed))
            view = replace(view, dead_rows=dead_rows)
            if len(dead_rows) > max(MIN_DEAD, len(view.keys_N) // DEAD_SHARE):
                view = self._compacted(view)
        self._view = view

    def search(
        self, queries_QD: NDArray[np.float32], *, k: int, allowed: NDArray[np.int64] | None = None
    ) -> list[tuple[NDArray[np.int64], NDArray[np.float32]]]:
        """Return the nearest keys of each query and their scores, best first, ties by smaller key.

        A score depends on the query and the stored vector only: not on the row, the batch or ``k``.

        Args:
            queries_QD: finite unit vectors.
            k: hits per query, at least 1; fewer come back only when fewer are stored (and allowed).
            allowed: only these keys are scanned; unknown ones are ignored. ``None`` scans all.

        Raises:
            BadVectorsError: not of shape (Q, width), not finite, or not of unit length.
            ValueError: ``k`` is less than 1.
        """
        if k < 1:
            raise ValueError(f"k must be at least 1, got {k}")
        check_vectors(queries_QD, width=self.width)
        view = self._view
        rows = None if allowed is None else view.rows_of(allowed)
        findable = view.alive if rows is None else len(rows)
        if not len(queries_QD) or not findable:
            return [_NOTHING for _ in queries_QD]
        return _nearest(view, queries_QD, min(k, findable), rows)

    def _appended(
        self, view: View, keys_N: NDArray[np.int64], vectors_ND: NDArray[np.float32]
    ) -> View:
        start, stop = len(view.keys_N), len(view.keys_N) + len(keys_N)
        if stop > len(self._keys_C):
            self._move(view.vectors_ND, view.keys_N, capacity=int(stop * GROWTH))
        self._vectors_CD[start:stop] = vectors_ND  # beyond every published view
        self._keys_C[start:stop] = keys_N
        return View(self._vectors_CD[:stop], self._keys_C[:stop], view.dead_rows)

    def _compacted(self, view: View) -> View:
        rows = view.alive_rows()
        self._move(view.vectors_ND[rows], view.keys_N[rows], capacity=len(self._keys_C))
        count = len(rows)
        return View(self._vectors_CD[:count], self._keys_C[:count], np.empty(0, np.int64))

    def _move(
        self, vectors_ND: NDArray[np.float32], keys_N: NDArray[np.int64], *, capacity: int
    ) -> None:
        vectors_CD = np.empty((capacity, self.width), np.float32)
        keys_C = np.empty(capacity, np.int64)
        vectors_CD[: len(keys_N)] = vectors_ND
        keys_C[: len(keys_N)] = keys_N
        self._vectors_CD, self._keys_C = vectors_CD, keys_C


_NOTHING: Final = (np.empty(0, np.int64), np.empty(0, np.float32))


def _nearest(
    view: View, queries_QD: NDArray[np.float32], k: int, rows: NDArray[np.int64] | None
) -> list[tuple[NDArray[np.int64], NDArray[np.float32]]]:
    """Return the best ``k`` of each query; ``rows`` are alive, or ``None`` for the whole view."""
    scanned = len(view.keys_N) if rows is None else len(rows)
    dead = len(view.dead_rows) if rows is None else 0
    answers: list[tuple[NDArray[np.int64], NDArray[np.float32]]] = [_NOTHING] * len(queries_QD)
    unsettled = np.arange(len(queries_QD))
    fetch = min(k + dead + SPARE, scanned)
    while len(unsettled):
        scores_QF, rows_QF = _scan(view, queries_QD[unsettled], fetch, rows)
        left = []
        for query, scores_F, rows_F in zip(unsettled, scores_QF, rows_QF, strict=True):
            keys, scores = _ranked(view, queries_QD[query], rows_F)
            # Duplicates can tie beyond the last candidate; then look at more of them.
            if fetch < scanned and scores_F.min() > scores[k - 1] - ROUNDING:
                left.append(query)
            else:
                answers[query] = keys[:k], scores[:k]
        unsettled = np.array(left, np.int64)
        fetch = min(4 * fetch, scanned)
    return answers


def _scan(
    view: View, queries_QD: NDArray[np.float32], fetch: int, rows: NDArray[np.int64] | None
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return scores and rows (Q, fetch) of the candidates FAISS finds, in no promised order."""
    if rows is None:
        return _knn(queries_QD, view.vectors_ND, fetch)
    found = []
    for start in range(0, len(rows), BLOCK_ROWS):
        block = rows[start : start + BLOCK_ROWS]
        scores_QF, places_QF = _knn(queries_QD, view.vectors_ND[block], min(fetch, len(block)))
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


def _ranked(
    view: View, query_D: NDArray[np.float32], rows_F: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return keys and scores of the alive candidates, best first, ties by smaller key."""
    if view.dead_rows.size:
        rows_F = rows_F[~np.isin(rows_F, view.dead_rows)]
    # Summed here, one row at a time and in double precision: FAISS's sums depend on the position of
    # the row and on the size of the batch, which would make ties and repeated calls differ.
    products_FD = view.vectors_ND[rows_F].astype(np.float64) * query_D
    scores_F = np.clip(products_FD.sum(axis=1), -1, 1).astype(np.float32)
    keys_F = view.keys_N[rows_F]
    order = np.lexsort((keys_F, -scores_F))
    return keys_F[order], scores_F[order]
