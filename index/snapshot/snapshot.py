"""What can be found at one moment: {base, table, dead rows}, swapped as a whole by one reference.

A reader takes the current snapshot and keeps it for as long as its search lasts; the one writer
makes the next one. No reader ever waits, and none sees half a change.

Shape suffixes: N rows, Q queries, D vector width.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from index.search.exact import NOTHING, Hits, Rows, above, nearest
from index.search.vectors import unit_vectors
from index.snapshot.filter_cache import Allowed
from index.snapshot.segments.base_segment import Base, BaseView, merged
from index.snapshot.segments.delta_segment import Table, View


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything up to the operation ``seq``, never changing."""

    seq: int
    width: int
    base: BaseView | None  # the bulk, with an ANN index over it
    recent: View  # what came after the base: scanned
    removals: int = 0  # grows whenever something may have been removed; only to be compared
    recent_count: int = field(init=False)  # rows of ``recent`` that a search may return

    def __post_init__(self) -> None:
        object.__setattr__(self, "recent_count", self.recent.alive)

    @property
    def count(self) -> int:
        """Rows that a search may return."""
        return self.recent_count + (0 if self.base is None else len(self.base))

    @property
    def last_key(self) -> int:
        """No row has a greater key; 0 when there are no rows."""
        if len(self.recent.keys_N):
            return int(self.recent.keys_N[-1])
        return 0 if self.base is None else self.base.base.last_key

    def keys_above(self, after: int) -> NDArray[np.int64]:
        """Return the keys above ``after``, increasing; those of dead rows may be among them.

        Costs what comes back: nothing is sorted.
        """
        recent = self.recent.keys_N
        recent = recent[np.searchsorted(recent, after, side="right") :]
        if self.base is None or after >= self.base.base.last_key:
            return recent
        base = self.base.base.sorted_keys_N
        return np.concatenate([base[np.searchsorted(base, after, side="right") :], recent])

    def holds(self, key: int, allowed: Allowed | None) -> bool:
        """Whether a search may return this key."""
        wanted = np.array([key])
        if allowed is not None:
            place = np.searchsorted(allowed.keys_S, key)
            if place == len(allowed.keys_S) or allowed.keys_S[place] != key:
                return False
        if self.recent.rows_of(wanted).size:
            return True
        base = self.base
        return base is not None and bool(base.alive_among(base.base.rows_of(wanted)).size)

    def search(
        self,
        queries_QD: NDArray[np.float32],
        *,
        k: int,
        allowed: Allowed | None = None,
        exact: bool = False,
    ) -> list[Hits]:
        """Return the nearest keys of each query and their scores, best first.

        Fewer than ``k`` come back only when fewer are there (and allowed). Exact answers put ties
        in the order of the keys.

        Args:
            queries_QD: finite unit vectors.
            k: at least 1.
            allowed: only these keys; ``None`` for all.
            exact: look at every row instead of using the base's ANN index.

        Raises:
            BadVectorsError: not of shape (Q, width), not finite, or not of unit length.
            ValueError: ``k`` is less than 1.
        """
        if k < 1:
            raise ValueError(f"k must be at least 1, got {k}")
        queries_QD = unit_vectors(queries_QD, width=self.width)
        if self.base is None:
            return self._recent(queries_QD, k, allowed)
        rows = None if allowed is None else allowed.rows_in(self.base.base)
        if exact:
            among = None if rows is None else self.base.alive_among(rows)
            bulk = nearest(self.base, queries_QD, k=k, among=among)
        else:
            bulk = self.base.search(queries_QD, k=k, allowed=rows)
        if not self.recent_count:
            return bulk
        recent = self._recent(queries_QD, k, allowed)
        return [merged(one, other, k=k) for one, other in zip(bulk, recent, strict=True)]

    def above(
        self,
        query_D: NDArray[np.float32],
        *,
        min_score: float,
        limit: int | None = None,
        allowed: Allowed | None = None,
    ) -> tuple[Hits, int]:
        """Return the keys that score at least ``min_score``, and how many there are.

        The best ``limit`` of them, or all; best first. Looks at every row.

        Raises:
            BadVectorsError: not of shape (width,), not finite, or not of unit length.
        """
        query_D = unit_vectors(query_D[np.newaxis], width=self.width)[0]
        among = None if allowed is None else allowed.rows_of(self.recent)
        recent, total = above(self.recent, query_D, min_score=min_score, limit=limit, among=among)
        if self.base is None:
            return recent, total
        among = None if allowed is None else self.base.alive_among(allowed.rows_in(self.base.base))
        bulk, more = above(self.base, query_D, min_score=min_score, limit=limit, among=among)
        return merged(bulk, recent, k=limit), total + more

    def parts(self, allowed: Allowed | None) -> Iterator[tuple[Rows, NDArray[np.int64]]]:
        """Yield all that a search may return: rows, and which of them (S,), sorted."""
        recent = self.recent.alive_rows() if allowed is None else allowed.rows_of(self.recent)
        yield self.recent, recent
        if self.base is not None and allowed is None:
            yield self.base, self.base.alive_rows()
        elif self.base is not None and allowed is not None:
            yield self.base, self.base.alive_among(allowed.rows_in(self.base.base))

    def _recent(
        self, queries_QD: NDArray[np.float32], k: int, allowed: Allowed | None
    ) -> list[Hits]:
        if not self.recent_count:
            return [NOTHING] * len(queries_QD)
        among = None if allowed is None else allowed.rows_of(self.recent)
        return nearest(self.recent, queries_QD, k=k, among=among)


class Live:
    """The one writer of snapshots. ``apply`` must not be called by two threads at once."""

    def __init__(self, width: int, *, base: Base | None, seq: int, capacity: int = 0) -> None:
        self._table = Table(width, capacity=capacity)
        self.snapshot = Snapshot(
            seq, width, None if base is None else BaseView(base), self._table.view
        )

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
        self._table.apply(keys_N=keys_N, vectors_ND=vectors_ND, removed=removed)
        base = snapshot.base
        if base is not None and removed.size:
            base = base.without(removed)
        removals = snapshot.removals + bool(removed.size)
        self.snapshot = Snapshot(seq, snapshot.width, base, self._table.view, removals)
