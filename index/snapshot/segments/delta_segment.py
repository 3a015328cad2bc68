"""Vectors under keys in a growing segment: one writer, and readers that never wait.

Shape suffixes: N rows, C rows there is room for, D vector width.
"""

from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from index.errors import BadVectorsError

MIN_CAPACITY: Final = 1024  # rows
GROWTH: Final = 1.5  # a full array is copied into one this many times as large
MIN_TOMBSTONES: Final = 128  # tombstoned rows that are never worth a compaction
TOMBSTONE_SHARE: Final = 64  # compact when more than one row in this many is tombstoned


@dataclass(frozen=True, slots=True)
class DeltaSegmentView:
    """What the segment held at one moment; readers keep it as long as they like."""

    vectors_ND: NDArray[np.float32]  # tombstoned rows included
    keys_N: NDArray[np.int64]  # strictly increasing
    tombstoned_rows: NDArray[np.int64]  # sorted

    @property
    def tombstones(self) -> int:
        """How many rows no search may return."""
        return len(self.tombstoned_rows)

    @property
    def live_count(self) -> int:
        """How many rows a search may return."""
        return len(self.keys_N) - len(self.tombstoned_rows)

    def live_among(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return those of ``rows`` that a search may return, in their order."""
        return rows[~np.isin(rows, self.tombstoned_rows)] if self.tombstoned_rows.size else rows

    def live_rows(self) -> NDArray[np.int64]:
        """Return the numbers of all rows that a search may return, sorted: int64 (live_count,)."""
        rows = np.arange(len(self.keys_N))
        return np.delete(rows, self.tombstoned_rows) if self.tombstoned_rows.size else rows

    def rows_of(self, keys: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the live rows of ``keys``, sorted and distinct; unknown ones are left out."""
        rows = np.searchsorted(self.keys_N, keys)
        known = rows < len(self.keys_N)
        known[known] = self.keys_N[rows[known]] == keys[known]
        return self.live_among(rows[known])


class DeltaSegment:
    """A growing segment of unit vectors under integer keys.

    The writer fills rows that no reader can see yet and then publishes a new view by swapping one
    reference; a reader takes the current view and never locks. ``apply`` must not be called by two
    threads at once.

    >>> segment = DeltaSegment(width=2)
    >>> segment.apply(keys_N=np.int64([7, 9]), vectors_ND=np.eye(2, dtype=np.float32))
    >>> segment.view.live_count
    2
    """

    def __init__(self, width: int, *, capacity: int = MIN_CAPACITY) -> None:
        self.width = width
        self._vectors_CD = np.empty((max(capacity, MIN_CAPACITY), width), np.float32)
        self._keys_C = np.empty(len(self._vectors_CD), np.int64)
        self._view = DeltaSegmentView(self._vectors_CD[:0], self._keys_C[:0], np.empty(0, np.int64))

    def __len__(self) -> int:
        return self._view.live_count

    @property
    def view(self) -> DeltaSegmentView:
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
            tombstoned_rows = np.union1d(view.tombstoned_rows, view.rows_of(removed))
            view = replace(view, tombstoned_rows=tombstoned_rows)
            if len(tombstoned_rows) > max(MIN_TOMBSTONES, len(view.keys_N) // TOMBSTONE_SHARE):
                view = self._compacted(view)
        self._view = view

    def _appended(
        self, view: DeltaSegmentView, keys_N: NDArray[np.int64], vectors_ND: NDArray[np.float32]
    ) -> DeltaSegmentView:
        start, stop = len(view.keys_N), len(view.keys_N) + len(keys_N)
        if stop > len(self._keys_C):
            self._move(view.vectors_ND, view.keys_N, capacity=int(stop * GROWTH))
        self._vectors_CD[start:stop] = vectors_ND  # beyond every published view
        self._keys_C[start:stop] = keys_N
        return DeltaSegmentView(self._vectors_CD[:stop], self._keys_C[:stop], view.tombstoned_rows)

    def _compacted(self, view: DeltaSegmentView) -> DeltaSegmentView:
        rows = view.live_rows()
        self._move(view.vectors_ND[rows], view.keys_N[rows], capacity=len(self._keys_C))
        count = len(rows)
        return DeltaSegmentView(
            self._vectors_CD[:count], self._keys_C[:count], np.empty(0, np.int64)
        )

    def _move(
        self, vectors_ND: NDArray[np.float32], keys_N: NDArray[np.int64], *, capacity: int
    ) -> None:
        vectors_CD = np.empty((capacity, self.width), np.float32)
        keys_C = np.empty(capacity, np.int64)
        vectors_CD[: len(keys_N)] = vectors_ND
        keys_C[: len(keys_N)] = keys_N
        self._vectors_CD, self._keys_C = vectors_CD, keys_C
