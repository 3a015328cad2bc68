"""Rows that are linked, directly or through others. Pairs of rows in, groups of rows out.

Shape suffixes: N rows, U rows that are compared, B x C of them in a block, P pairs,
S some of these, D vector width.
"""

import time
from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.typing import NDArray

from index.search.exact import ROUNDING

BLOCK_ROWS: Final = 1_024  # a block's products take 16 MiB
BLOCK_COLUMNS: Final = 4_096
PENDING: Final = 2**20  # pairs that are kept before they are worked in
TIMED_BLOCKS: Final = 3
SUMMED_NUMBERS: Final = 2**22  # of vectors that are multiplied in double precision at a time


class ConnectedComponents:
    """Which of ``count`` rows are connected. Memory does not grow with the pairs.

    Working pairs in costs milliseconds per 100,000 rows, however few they are, so they wait until
    there are many.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._group_N: NDArray[np.int32] = np.arange(count, dtype=np.int32)
        self._pending: list[tuple[NDArray[np.int64], NDArray[np.int64]]] = []
        self._pairs = 0

    def add(self, left_P: NDArray[np.int64], right_P: NDArray[np.int64]) -> None:
        """Link pairs of rows."""
        if len(left_P):
            self._pending.append((left_P, right_P))
            self._pairs += len(left_P)
            if self._pairs >= PENDING:
                self.update()

    def update(self) -> None:
        """Work in the pairs that were added, so that ``are_separate`` knows of them."""
        if not self._pairs:
            return
        # A fifth of a second that only looking for duplicates needs, and every server would pay.
        from scipy.sparse import coo_array  # noqa: PLC0415
        from scipy.sparse.csgraph import connected_components  # noqa: PLC0415

        left_P, right_P = (np.concatenate(ends) for ends in zip(*self._pending, strict=True))
        ends = (self._group_N[left_P], self._group_N[right_P])
        shape = (self._count, self._count)
        graph = coo_array((np.ones(len(left_P), np.bool_), ends), shape=shape)
        _, joined_N = connected_components(graph, directed=False)
        self._group_N = joined_N[self._group_N]
        self._pending, self._pairs = [], 0

    def are_separate(
        self, left_P: NDArray[np.int64], right_P: NDArray[np.int64]
    ) -> NDArray[np.bool_]:
        """Return which pairs are not connected, as far as pairs were worked in."""
        separate: NDArray[np.bool_] = self._group_N[left_P] != self._group_N[right_P]
        return separate

    def groups(self) -> list[NDArray[np.int64]]:
        """Return the groups of two or more rows, each sorted."""
        self.update()
        order = np.argsort(self._group_N, kind="stable")
        starts = np.flatnonzero(np.diff(self._group_N[order])) + 1
        return [rows for rows in np.split(order, starts) if len(rows) > 1]


def connect_near(
    vectors_UD: NDArray[np.float32],
    rows_U: NDArray[np.int64],
    components: ConnectedComponents,
    *,
    min_score: float,
    on_progress: Callable[[float], None],
) -> None:
    """Connect all pairs that score at least ``min_score``, as a search would score them.

    Every pair is multiplied once, in single precision and in blocks. That rounds by a few 1e-6, so
    the few that come out that close to ``min_score`` are multiplied again in double precision.

    Args:
        vectors_UD: unit vectors.
        rows_U: the row of each in ``components``.
        links: changed.
        min_score: cosine.
        on_progress: called with the share of the pairs that has been looked at.
    """
    count, done = len(vectors_UD), 0
    step = max(1, SUMMED_NUMBERS // vectors_UD.shape[1])
    for top in range(0, count, BLOCK_ROWS):
        block_BD = vectors_UD[top : top + BLOCK_ROWS]
        for left in range(top, count, BLOCK_COLUMNS):
            products_BC = block_BD @ vectors_UD[left : left + BLOCK_COLUMNS].T
            places_P = np.flatnonzero(products_BC >= min_score - ROUNDING)
            on_progress((done + len(block_BD) * (left - top)) / count**2)
            if not len(places_P):
                continue
            one_P, other_P = np.divmod(places_P, products_BC.shape[1])
            one_P, other_P = one_P + top, other_P + left
            wanted_P = (one_P < other_P) & components.are_separate(rows_U[one_P], rows_U[other_P])
            sure_P = products_BC.ravel()[places_P] >= min_score + ROUNDING
            sure, close = wanted_P & sure_P, np.flatnonzero(wanted_P & ~sure_P)
            components.add(rows_U[one_P[sure]], rows_U[other_P[sure]])
            for start in range(0, len(close), step):
                some = close[start : start + step]
                one_S, other_S = one_P[some], other_P[some]
                enough = _scores(vectors_UD, one_S, other_S) >= np.float32(min_score)
                components.add(rows_U[one_S[enough]], rows_U[other_S[enough]])
        components.update()
        done += len(block_BD) * (2 * (count - top) - len(block_BD))
        on_progress(done / count**2)


def estimate_all_pairs_s(count: int, width: int) -> float:
    """Return about how long ``connect_near`` takes here for ``count`` vectors of ``width`` numbers.

    One block is multiplied: a few hundredths of a second.
    """
    block_BD = np.full((BLOCK_ROWS, width), width**-0.5, np.float32)
    columns_CD = np.zeros((BLOCK_COLUMNS, width), np.float32)
    started = time.perf_counter()
    for _ in range(TIMED_BLOCKS):
        np.flatnonzero(block_BD @ columns_CD.T >= 1)
    of_one = (time.perf_counter() - started) / TIMED_BLOCKS
    return of_one * count**2 / (2 * BLOCK_ROWS * BLOCK_COLUMNS)


def _scores(
    vectors_UD: NDArray[np.float32], one_S: NDArray[np.int64], other_S: NDArray[np.int64]
) -> NDArray[np.float32]:
    """Return the scores (S,) of pairs, summed as a search sums them."""
    products_SD = vectors_UD[one_S].astype(np.float64) * vectors_UD[other_S]
    scores_S: NDArray[np.float32] = np.clip(products_SD.sum(axis=1), -1, 1).astype(np.float32)
    return scores_S
