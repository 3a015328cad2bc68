"""The unchanging bulk of a gallery: rows, their keys, and an ANN index over them.

Shape suffixes: N rows, Q queries, K hits, D vector width.
"""

from functools import cached_property
from typing import Final

import numpy as np
from numpy.typing import NDArray

from index.search.ann_index import MEASURED_K, AnnIndex
from index.search.exact import nearest
from index.search.hits import Hits
from index.search.index_spec import IndexSpec
from index.search.live_rows import LiveRows
from index.search.policy import DEFAULT_POLICY, SearchPolicy
from index.search.vector_matrix import Matrix

NEAR_ALLOWED: Final = 8  # so many are allowed among the rows looked at near a query, on average
MAX_LIVE_SHARE: Final = 0.98  # share; below it, what was deleted may be all there is near a query
FAIR: Final = 0.3  # of that; 1 in 100 queries meets fewer by chance, and is answered by a scan


class ImmutableSegment:
    """Rows as of one generation: what it holds never changes, but rows of it may be tombstoned."""

    def __init__(
        self,
        *,
        generation: int,
        seq: int,
        keys_N: NDArray[np.int64],
        matrix: Matrix,
        spec: IndexSpec,
        ann_index: AnnIndex | None,
    ) -> None:
        self.generation = generation
        self.seq = seq  # the operation it was read at
        self.keys_N = keys_N
        self.matrix = matrix
        self.spec = spec
        self.ann_index = ann_index  # None: exact
        self._sorted = bool(np.all(np.diff(keys_N) > 0))
        self._order = np.empty(0, np.int64) if self._sorted else np.argsort(keys_N)
        self.sorted_keys_N = keys_N if self._sorted else keys_N[self._order]
        self.last_key = int(self.sorted_keys_N[-1]) if len(keys_N) else 0

    def __len__(self) -> int:
        return len(self.keys_N)

    def rows_of(self, keys: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the rows of ``keys``, which are sorted and distinct; unknown ones are left out."""
        places = np.searchsorted(self.sorted_keys_N, keys)
        known = places < len(self.sorted_keys_N)
        known[known] = self.sorted_keys_N[places[known]] == keys[known]
        return places[known] if self._sorted else np.sort(self._order[places[known]])


class ImmutableSegmentView:
    """An immutable segment at one moment: which of its rows are live. Never changes."""

    def __init__(
        self,
        segment: ImmutableSegment,
        live: LiveRows | None = None,
        tombstones: int = 0,
        *,
        policy: SearchPolicy = DEFAULT_POLICY,
    ) -> None:
        self.segment = segment
        self.live = live  # None: all of them
        self.tombstones = tombstones
        self.count = len(segment) - tombstones  # rows that a search may return
        self._share = self.count / max(1, len(segment))
        self._policy = policy

    def __len__(self) -> int:
        return self.count

    @property
    def vectors_ND(self) -> NDArray[np.float32]:
        """All rows, tombstoned ones included."""
        return self.segment.matrix.rows_ND

    @property
    def keys_N(self) -> NDArray[np.int64]:
        """The key of each row."""
        return self.segment.keys_N

    @cached_property
    def _live_rows(self) -> NDArray[np.int64]:
        return self.live_among(np.arange(len(self.segment)))

    def live_rows(self) -> NDArray[np.int64]:
        """Return the rows that a search may return, sorted."""
        return self._live_rows

    def live_among(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return those of ``rows`` that a search may return, in their order."""
        return rows if self.live is None else self.live.among(rows)

    def without(self, keys: NDArray[np.int64]) -> "ImmutableSegmentView":
        """Return a view in which the rows of ``keys`` are tombstoned; unknown keys are ignored."""
        rows = self.live_among(self.segment.rows_of(keys))
        if not rows.size:
            return self
        live = self.live or LiveRows.only(np.arange(len(self.segment)), count=len(self.segment))
        tombstones = self.tombstones + len(rows)
        return ImmutableSegmentView(
            self.segment, live.without(rows), tombstones, policy=self._policy
        )

    def search(
        self, queries_QD: NDArray[np.float32], *, k: int, allowed: NDArray[np.int64] | None
    ) -> list[Hits]:
        """Return the nearest rows of each query as keys and scores, best first.

        Fewer than ``k`` come back only when fewer are live and ``allowed``.

        Args:
            queries_QD: finite unit vectors, C-contiguous.
            k: at least 1.
            allowed: rows to choose from, sorted; tombstoned ones are ignored. ``None`` for all.
        """
        ann_index = self.segment.ann_index
        if allowed is None:
            if ann_index is None or self.count <= k:
                return nearest(self, queries_QD, k=k)
            scores_QK, rows_QK, far_Q = ann_index.adaptive_search(
                queries_QD, k, live=self.live, share=self._share
            )
            if self.live is not None and self._share <= MAX_LIVE_SHARE:
                lost_Q = self._lost(ann_index, queries_QD, self.live, self._share, FAIR)
                far_Q = lost_Q if far_Q is None else far_Q | lost_Q
            return self._hits(queries_QD, scores_QK, rows_QK, None, lost_Q=far_Q)
        among = self.live_among(allowed)
        share = len(among) / max(1, len(self.segment))
        small = (
            len(among) * queries_QD.shape[1] <= self._policy.scan_numbers
            or share < self._policy.scan_share
        )
        if ann_index is None or small or len(among) <= k:
            return nearest(self, queries_QD, k=k, among=among)
        live = LiveRows.only(among, count=len(self.segment))
        scores_QK, rows_QK = ann_index.search(queries_QD, k, live=live, share=share)
        lost_Q = self._lost(ann_index, queries_QD, live, share, FAIR * share)
        return self._hits(queries_QD, scores_QK, rows_QK, among, lost_Q=lost_Q)

    def _lost(
        self,
        ann_index: AnnIndex,
        queries_QD: NDArray[np.float32],
        live: LiveRows,
        share: float,
        fair: float,
    ) -> NDArray[np.bool_]:
        """Return for which queries (Q,) less than a ``fair`` share of what is near may be found.

        Filters often follow what images look like. When the rows that are allowed lie far from a
        query, an ANN index comes back with some of them long before it has seen the nearest. So it
        does when all rows lie far from a query.
        """
        nearby = min(len(self.segment), max(MEASURED_K, int(NEAR_ALLOWED / share) + 1))
        scores_QL, rows_QL = ann_index.search(queries_QD, nearby)
        found_QL = rows_QL >= 0
        alive_QL = found_QL & live.flags(np.maximum(rows_QL, 0))
        few_Q = alive_QL.sum(axis=1) < fair * np.maximum(found_QL.sum(axis=1), 1)
        far_Q = ann_index.far(scores_QL)
        lost_Q: NDArray[np.bool_] = few_Q if far_Q is None else few_Q | far_Q
        return lost_Q

    def _hits(
        self,
        queries_QD: NDArray[np.float32],
        scores_QK: NDArray[np.float32],
        rows_QK: NDArray[np.int64],
        among: NDArray[np.int64] | None,
        *,
        lost_Q: NDArray[np.bool_] | None = None,
    ) -> list[Hits]:
        """Return what the ANN index found as keys and scores; where it lost its way, scan."""
        keys_QK = self.segment.keys_N[rows_QK]
        if lost_Q is None and len(rows_QK) == 1:  # one query, quickly
            scores_K = scores_QK[0]
            if len(set(scores_K.tolist())) == len(scores_K) and -1 not in rows_QK[0].tolist():
                return [(keys_QK[0], scores_K)]
        ties_QK = scores_QK[:, 1:] == scores_QK[:, :-1]
        if np.count_nonzero(ties_QK):  # quicker than any()
            for query in np.flatnonzero(ties_QK.any(axis=1)).tolist():
                order = np.lexsort((keys_QK[query], -scores_QK[query]))
                keys_QK[query] = keys_QK[query][order]
        hits = list(zip(keys_QK, scores_QK, strict=True))
        if lost_Q is not None or np.count_nonzero(rows_QK < 0):
            short_Q = (rows_QK < 0).any(axis=1)
            lost = np.flatnonzero(short_Q if lost_Q is None else short_Q | lost_Q)
            scanned = nearest(
                self, np.ascontiguousarray(queries_QD[lost]), k=rows_QK.shape[1], among=among
            )
            for query, found in zip(lost.tolist(), scanned, strict=True):
                hits[query] = found
        return hits
