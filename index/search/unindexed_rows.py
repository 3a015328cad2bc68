"""What a search index does not find by itself: every search looks at it too.

Rows far outside the others are cut off where they become bytes, and a thousand that are nearly the
same become the same bytes. A build asks for every row, and what did not come back is kept here: the
least alike are compared with every query.

That a row came back once promises little. A graph of which a longer queue is kept takes another way
and may pass it by; a batch rounds in another way than a query alone; a search that looks harder
meets more rows of the same code; its twin may be deleted. So the row that equals a query is found
by the hash of its bytes, whichever it is and however the ANN index was searched.

Shape suffixes: N rows, Q queries, K hits, S unindexed rows that are compared, D vector width.
"""

from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from index.search.exact import ROUNDING
from index.search.live_rows import LiveRows
from index.search.vector_matrix import Matrix

COMPARED_NUMBERS: Final = 100_000  # rows x width that a query is compared with: ten microseconds
MOST_EQUAL: Final = 8  # of rows that equal one another are taken; any of them will do
SLOTS: Final = 8  # of one bit, per row, at least: an eighth of queries that equal none is looked up
_SIDES: Final[tuple[Literal["left", "right"], ...]] = ("left", "right")


class UnindexedRows:
    """Rows beside an ANN index, and the hashes of all. Never changes."""

    def __init__(self, rows: NDArray[np.int64], matrix: Matrix) -> None:
        """Keep ``rows`` of ``matrix``, the least alike first. Hashes all rows of it."""
        self.rows = rows
        self._rows_ND = rows_ND = matrix.rows_ND
        self._compared_S = rows[: max(1, COMPARED_NUMBERS // rows_ND.shape[1])]
        self._vectors_SD = rows_ND[self._compared_S]
        hashes_N = np.fromiter((hash(row_D.tobytes()) for row_D in rows_ND), np.int64, len(rows_ND))
        self._order_N = np.argsort(hashes_N, kind="stable")
        self._hashes_N = hashes_N[self._order_N]
        slots = 1 << (SLOTS * len(rows_ND)).bit_length()
        is_taken = np.zeros(slots, np.bool_)
        is_taken[hashes_N & (slots - 1)] = True
        self._last_slot = slots - 1
        self._taken = np.packbits(is_taken, bitorder="little").tobytes()

    def work_in(
        self,
        queries_QD: NDArray[np.float32],
        scores_QK: NDArray[np.float32],
        rows_QK: NDArray[np.int64],
        live: LiveRows | None,
    ) -> None:
        """Put those that belong there into the hits of each query, in place, best first."""
        if len(queries_QD) == 1:  # one query, quickly
            more = self._equal_to(queries_QD[0], rows_QK[0], live)
            if not more and not self._is_near(queries_QD[0], scores_QK, rows_QK):
                return
        scores_QS = queries_QD @ self._vectors_SD.T + ROUNDING
        worst_Q1 = np.where(rows_QK[:, -1:] < 0, -2, scores_QK[:, -1:])
        near_Q = scores_QS.max(axis=1, initial=-np.inf) >= worst_Q1[:, 0]
        for query, (query_D, rows_K) in enumerate(zip(queries_QD, rows_QK, strict=True)):
            more = self._equal_to(query_D, rows_K, live)
            if near_Q[query]:
                more += self._compared_S[scores_QS[query] >= worst_Q1[query]].tolist()
            if more:
                self._merge(query_D, scores_QK[query], rows_K, more, live)

    def _is_near(
        self,
        query_D: NDArray[np.float32],
        scores_1K: NDArray[np.float32],
        rows_1K: NDArray[np.int64],
    ) -> bool:
        """Return whether one of those that are compared may belong into the hits of one query."""
        if not len(self._compared_S):
            return False
        worst = scores_1K.item(-1) if rows_1K.item(-1) >= 0 else -2.0
        # The ufunc itself: an array's own max costs a microsecond more.
        return bool(np.maximum.reduce(self._vectors_SD.dot(query_D)) + ROUNDING >= worst)

    def _equal_to(
        self, query_D: NDArray[np.float32], found_K: NDArray[np.int64], live: LiveRows | None
    ) -> list[int]:
        """Return rows that equal the query; none where the best of those found is one."""
        wanted = query_D.tobytes()
        code = hash(wanted)
        slot = code & self._last_slot
        if not self._taken[slot >> 3] >> (slot & 7) & 1:
            return []
        best = found_K.item(0)
        if best >= 0 and self._rows_ND[best].tobytes() == wanted:
            return []
        first, end = (int(np.searchsorted(self._hashes_N, code, side)) for side in _SIDES)
        rows = self._order_N[first:end]
        if live is not None:
            rows = live.among(rows)
        equal = (self._rows_ND[rows[:MOST_EQUAL]] == query_D).all(axis=1)
        found: list[int] = rows[:MOST_EQUAL][equal].tolist()
        return found

    def _merge(
        self,
        query_D: NDArray[np.float32],
        scores_K: NDArray[np.float32],
        rows_K: NDArray[np.int64],
        more: list[int],
        live: LiveRows | None,
    ) -> None:
        more_S = np.setdiff1d(np.array(more, np.int64), rows_K)
        if live is not None:
            more_S = live.among(more_S)
        apart_SD = self._rows_ND[more_S] - query_D
        distances_S = np.einsum("sd,sd->s", apart_SD, apart_SD)
        more_scores_S = np.maximum(1 - distances_S / 2, -1)  # as the ANN index does
        found, same = rows_K >= 0, distances_S == 0
        # In this order where scores tie, because they are rounded: the query itself comes first.
        rows = np.concatenate([more_S[same], rows_K[found], more_S[~same]])
        scores = np.concatenate([more_scores_S[same], scores_K[found], more_scores_S[~same]])
        best = np.argsort(-scores, kind="stable")[: len(rows_K)]
        rows_K[: len(best)], scores_K[: len(best)] = rows[best], scores[best]
