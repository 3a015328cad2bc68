"""What can be found at one moment: two segments and their tombstones, swapped as a whole.

A reader takes the current snapshot and keeps it for as long as its search lasts; the one writer
makes the next one. No reader ever waits, and none sees half a change.

Shape suffixes: N rows, Q queries, D vector width.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from index.search.exact import Rows, nearest, range_search
from index.search.hits import NO_HITS, Hits, merged
from index.search.policy import DEFAULT_POLICY, SearchPolicy
from index.search.vectors import unit_vectors
from index.snapshot.filter_cache import FilterMask
from index.snapshot.segments.delta_segment import DeltaSegment, DeltaSegmentView
from index.snapshot.segments.immutable_segment import ImmutableSegment, ImmutableSegmentView


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything up to the operation ``seq``, never changing."""

    seq: int
    width: int
    immutable: ImmutableSegmentView | None  # the bulk, with an ANN index over it
    delta: DeltaSegmentView  # what came after it: scanned
    removals: int = 0  # grows whenever something may have been removed; only to be compared
    delta_count: int = field(init=False)  # rows of ``delta`` that a search may return

    def __post_init__(self) -> None:
        object.__setattr__(self, "delta_count", self.delta.live_count)

    @property
    def count(self) -> int:
        """Rows that a search may return."""
        return self.delta_count + (0 if self.immutable is None else len(self.immutable))

    @property
    def last_key(self) -> int:
        """No row has a greater key; 0 when there are no rows."""
        if len(self.delta.keys_N):
            return int(self.delta.keys_N[-1])
        return 0 if self.immutable is None else self.immutable.segment.last_key

    def keys_above(self, after: int) -> NDArray[np.int64]:
        """Return the keys above ``after``, increasing; those of tombstoned rows may be among them.

        Costs what comes back: nothing is sorted.
        """
        delta = self.delta.keys_N
        delta = delta[np.searchsorted(delta, after, side="right") :]
        if self.immutable is None or after >= self.immutable.segment.last_key:
            return delta
        keys = self.immutable.segment.sorted_keys_N
        return np.concatenate([keys[np.searchsorted(keys, after, side="right") :], delta])

    def holds(self, key: int, mask: FilterMask | None) -> bool:
        """Whether a search may return this key."""
        wanted = np.array([key])
        if mask is not None:
            place = np.searchsorted(mask.keys_S, key)
            if place == len(mask.keys_S) or mask.keys_S[place] != key:
                return False
        if self.delta.rows_of(wanted).size:
            return True
        immutable = self.immutable
        return immutable is not None and bool(
            immutable.live_among(immutable.segment.rows_of(wanted)).size
        )

    def search(
        self,
        queries_QD: NDArray[np.float32],
        *,
        k: int,
        mask: FilterMask | None = None,
        exact: bool = False,
    ) -> list[Hits]:
        """Return the nearest keys of each query and their scores, best first.

        Fewer than ``k`` come back only when fewer are there (and mask). Exact answers put ties
        in the order of the keys.

        Args:
            queries_QD: finite unit vectors.
            k: at least 1.
            mask: only these keys; ``None`` for all.
            exact: look at every row instead of using the ANN index.

        Raises:
            BadVectorsError: not of shape (Q, width), not finite, or not of unit length.
            ValueError: ``k`` is less than 1.
        """
        if k < 1:
            raise ValueError(f"k must be at least 1, got {k}")
        queries_QD = unit_vectors(queries_QD, width=self.width)
        if self.immutable is None:
            return self._search_delta(queries_QD, k, mask)
        rows = None if mask is None else mask.rows_in(self.immutable.segment)
        if exact:
            among = None if rows is None else self.immutable.live_among(rows)
            bulk = nearest(self.immutable, queries_QD, k=k, among=among)
        else:
            bulk = self.immutable.search(queries_QD, k=k, allowed=rows)
        if not self.delta_count:
            return bulk
        delta = self._search_delta(queries_QD, k, mask)
        return [merged(one, other, k=k) for one, other in zip(bulk, delta, strict=True)]

    def range_search(
        self,
        query_D: NDArray[np.float32],
        *,
        min_score: float,
        limit: int | None = None,
        mask: FilterMask | None = None,
    ) -> tuple[Hits, int]:
        """Return the keys that score at least ``min_score``, and how many there are.

        The best ``limit`` of them, or all; best first. Looks at every row.

        Raises:
            BadVectorsError: not of shape (width,), not finite, or not of unit length.
        """
        query_D = unit_vectors(query_D[np.newaxis], width=self.width)[0]
        among = None if mask is None else mask.rows_of(self.delta)
        delta, total = range_search(
            self.delta, query_D, min_score=min_score, limit=limit, among=among
        )
        if self.immutable is None:
            return delta, total
        among = (
            None
            if mask is None
            else self.immutable.live_among(mask.rows_in(self.immutable.segment))
        )
        bulk, more = range_search(
            self.immutable, query_D, min_score=min_score, limit=limit, among=among
        )
        return merged(bulk, delta, k=limit), total + more

    def parts(self, mask: FilterMask | None) -> Iterator[tuple[Rows, NDArray[np.int64]]]:
        """Yield all that a search may return: rows, and which of them (S,), sorted."""
        delta = self.delta.live_rows() if mask is None else mask.rows_of(self.delta)
        yield self.delta, delta
        if self.immutable is not None and mask is None:
            yield self.immutable, self.immutable.live_rows()
        elif self.immutable is not None and mask is not None:
            yield self.immutable, self.immutable.live_among(mask.rows_in(self.immutable.segment))

    def _search_delta(
        self, queries_QD: NDArray[np.float32], k: int, mask: FilterMask | None
    ) -> list[Hits]:
        if not self.delta_count:
            return [NO_HITS] * len(queries_QD)
        among = None if mask is None else mask.rows_of(self.delta)
        return nearest(self.delta, queries_QD, k=k, among=among)


class SnapshotWriter:
    """The one writer of snapshots. ``apply`` must not be called by two threads at once."""

    def __init__(
        self,
        width: int,
        *,
        segment: ImmutableSegment | None,
        seq: int,
        capacity: int = 0,
        policy: SearchPolicy = DEFAULT_POLICY,
    ) -> None:
        self._delta = DeltaSegment(width, capacity=capacity)
        immutable = None if segment is None else ImmutableSegmentView(segment, policy=policy)
        self.snapshot = Snapshot(seq, width, immutable, self._delta.view)

    def apply(
        self,
        *,
        seq: int,
        keys_N: NDArray[np.int64],
        vectors_ND: NDArray[np.float32],
        removed: NDArray[np.int64],
    ) -> None:
        """Publish a snapshot as of ``seq`` with rows added and removed; all of it, or nothing.

        Args:
            seq: of the last operation in it.
            keys_N: new keys, strictly increasing and above every key ever added.
            vectors_ND: their vectors; trusted to be finite and of unit length.
            removed: keys to remove, sorted and distinct, new ones included; unknown ones are
                ignored.

        Raises:
            BadVectorsError: the shape is not (len(keys_N), width), or the keys do not increase.
        """
        snapshot = self.snapshot
        self._delta.apply(keys_N=keys_N, vectors_ND=vectors_ND, removed=removed)
        immutable = snapshot.immutable
        if immutable is not None and removed.size:
            immutable = immutable.without(removed)
        removals = snapshot.removals + bool(removed.size)
        self.snapshot = Snapshot(seq, snapshot.width, immutable, self._delta.view, removals)
