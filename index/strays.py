"""Rows that a search structure does not find by their own vectors: every search looks at them too.

Rows far outside the others are cut off where they become bytes, and a thousand that are nearly the
same become the same bytes. A build asks for every row, and what did not come back is kept here. The
least alike are compared with every query; of the others only the one that equals the query is
taken, which its hash finds: near it lie rows as good.

Shape suffixes: N rows, Q queries, K hits, S strays that are compared, D vector width.
"""

from typing import TYPE_CHECKING, Final, Literal

import numpy as np
from numpy.typing import NDArray

from index.alive import Alive
from index.matrix import Matrix
from index.plan import BYTES
from index.scan import ROUNDING

if TYPE_CHECKING:
    from index.structure import Structure

COMPARED_NUMBERS: Final = 100_000  # rows x width that a query is compared with: ten microseconds
MOST_EQUAL: Final = 8  # of rows that equal one another are taken; any of them will do
CROWDED: Final = 8  # squared steps between two rows' codes: rounding moves them by a few
ASKED_ROWS: Final = 8_192  # at a time
_SIDES: Final[tuple[Literal["left", "right"], ...]] = ("left", "right")


class Strays:
    """Rows beside a structure. Never changes."""

    def __init__(self, rows: NDArray[np.int64], matrix: Matrix, *, all_by_bytes: bool) -> None:
        """Keep ``rows`` of ``matrix``, the least alike first.

        Args:
            rows: that a build missed, or may have.
            matrix: all rows.
            all_by_bytes: find every row of the matrix by its bytes, whether or not it is one of
                ``rows``; of 4-bit codes, where a search that looks harder meets more equal ones.
        """
        self.rows = rows
        self._rows_ND = matrix.rows_ND
        self._compared_S = rows[: max(1, COMPARED_NUMBERS // matrix.rows_ND.shape[1])]
        self._vectors_SD = matrix.rows_ND[self._compared_S]
        hashed = np.arange(len(matrix.rows_ND)) if all_by_bytes else rows[len(self._compared_S) :]
        hashes = np.array([hash(matrix.rows_ND[row].tobytes()) for row in hashed], np.int64)
        order = np.argsort(hashes, kind="stable")
        self._hashes, self._hashed = hashes[order], hashed[order]

    def work_in(
        self,
        queries_QD: NDArray[np.float32],
        scores_QK: NDArray[np.float32],
        rows_QK: NDArray[np.int64],
        alive: Alive | None,
    ) -> None:
        """Put those that belong there into the hits of each query, in place, best first."""
        if len(queries_QD) == 1 and not len(self._hashes):  # one query, quickly
            worst = scores_QK.item(-1) if rows_QK.item(-1) >= 0 else -2.0
            # The ufunc itself: an array's own max costs a microsecond more.
            if np.maximum.reduce(self._vectors_SD.dot(queries_QD[0])) + ROUNDING < worst:
                return
        scores_QS = queries_QD @ self._vectors_SD.T + ROUNDING
        worst_Q1 = np.where(rows_QK[:, -1:] < 0, -2, scores_QK[:, -1:])
        near_Q = scores_QS.max(axis=1, initial=-np.inf) >= worst_Q1[:, 0]
        asked_Q = np.arange(len(near_Q)) if len(self._hashes) else np.flatnonzero(near_Q)
        for query in asked_Q.tolist():
            more = self._equal_to(queries_QD[query], alive) if len(self._hashes) else []
            if near_Q[query]:
                more += self._compared_S[scores_QS[query] >= worst_Q1[query]].tolist()
            if more:
                self._merge(queries_QD[query], scores_QK[query], rows_QK[query], more, alive)

    def _equal_to(self, query_D: NDArray[np.float32], alive: Alive | None) -> list[int]:
        wanted = hash(query_D.tobytes())
        first, end = (int(np.searchsorted(self._hashes, wanted, side)) for side in _SIDES)
        if first == end:
            return []
        rows = self._hashed[first:end]
        if alive is not None:
            rows = alive.among(rows)
        equal = (self._rows_ND[rows[:MOST_EQUAL]] == query_D).all(axis=1)
        found: list[int] = rows[:MOST_EQUAL][equal].tolist()
        return found

    def _merge(
        self,
        query_D: NDArray[np.float32],
        scores_K: NDArray[np.float32],
        rows_K: NDArray[np.int64],
        more: list[int],
        alive: Alive | None,
    ) -> None:
        more_S = np.setdiff1d(np.array(more, np.int64), rows_K)
        if alive is not None:
            more_S = alive.among(more_S)
        apart_SD = self._rows_ND[more_S] - query_D
        distances_S = np.einsum("sd,sd->s", apart_SD, apart_SD)
        more_scores_S = np.maximum(1 - distances_S / 2, -1)  # as the structure does
        found, same = rows_K >= 0, distances_S == 0
        # In this order where scores tie, because they are rounded: the query itself comes first.
        rows = np.concatenate([more_S[same], rows_K[found], more_S[~same]])
        scores = np.concatenate([more_scores_S[same], scores_K[found], more_scores_S[~same]])
        best = np.argsort(-scores, kind="stable")[: len(rows_K)]
        rows_K[: len(best)], scores_K[: len(best)] = rows[best], scores[best]


def strays_of(structure: "Structure") -> NDArray[np.int64]:
    """Return the rows that ``structure`` may not find by their own vectors, the least alike first.

    Every row is asked for with half the candidates. Rows of which only a twin came back come last,
    and those whose codes others share, or nearly: they may be found now and not in another batch,
    which rounds in another way. Uses all threads that FAISS has.
    """
    rows_ND = structure.rows_ND
    careful = structure.with_fewer_candidates()
    strays, likeness, crowded = [], [], []
    for start in range(0, len(rows_ND), ASKED_ROWS):
        block_ND = rows_ND[start : start + ASKED_ROWS]
        scores_N1, found_N1 = careful.search(block_ND, 1)
        astray = np.flatnonzero(found_N1[:, 0] != np.arange(start, start + len(block_ND)))
        others_ND = rows_ND[np.maximum(found_N1[astray, 0], 0)]
        are_twins = (others_ND == block_ND[astray]).all(axis=1)
        crowded.append(astray[are_twins] + start)  # its twin may be deleted
        astray = astray[~are_twins]
        strays.append(astray + start)
        likeness.append(scores_N1[astray, 0])
        if structure.plan.factory.startswith(BYTES):
            steps_N2 = structure.steps_to_codes(block_ND)
            crowded.append(np.flatnonzero(steps_N2[:, 1] <= steps_N2[:, 0] + CROWDED) + start)
    order = np.argsort(np.concatenate(likeness), kind="stable")
    missed = np.concatenate(strays)[order]
    return np.concatenate([missed, np.setdiff1d(np.concatenate([missed[:0], *crowded]), missed)])
