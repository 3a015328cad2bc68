"""Keeps what is searched in memory true to the log of operations, whoever writes it.

Shape suffixes: N items, D vector width.
"""

import threading
import time
from dataclasses import replace
from typing import Final

import numpy as np

from index.errors import LogCutError
from index.search.policy import DEFAULT_POLICY, SearchPolicy
from index.snapshot.recovery import load, load_on
from index.snapshot.segments.generations import Generations
from index.snapshot.segments.immutable_segment import ImmutableSegment
from index.snapshot.snapshot import Snapshot, SnapshotWriter
from index.store.oplog import Operation
from index.store.store import Store

FOLLOW_ROWS: Final = 4096  # operations applied at a time
FRESH_S: Final = 0.001  # how long what other processes wrote may go unseen


class Follower:
    """Snapshots moved by the log alone: our own writes and other processes' come alike."""

    def __init__(
        self, store: Store, generations: Generations, policy: SearchPolicy = DEFAULT_POLICY
    ) -> None:
        self._store = store
        self._generations = generations
        self._policy = policy
        self._lock = threading.Lock()
        self._looked_at = time.monotonic()
        self._version = store.data_version()  # before loading: what comes later is followed
        self._writer = load(store, generations, policy)

    @property
    def snapshot(self) -> Snapshot:
        """What can be found now, as of the last time anybody caught up."""
        return self._writer.snapshot

    def recent_snapshot(self) -> Snapshot:
        """Return what can be found: this process's writes, and others' that are a moment old.

        Asking SQLite whether anybody wrote takes system calls, which slow down the search after
        them by a fifth; so it is asked at most once a millisecond.

        Raises:
            StorageError, GalleryFolderError: as ``catch_up``.
        """
        if time.monotonic() - self._looked_at < FRESH_S:
            return self._writer.snapshot
        return self.catch_up()

    def catch_up(self) -> Snapshot:
        """Return what can be found, every write of every process that was committed included.

        Costs a few microseconds when nothing was written.

        Raises:
            StorageError, GalleryFolderError: the log cannot be read; the snapshot stays behind it.
        """
        with self._lock:
            looked_at = time.monotonic()
            version = self._store.data_version()
            if version != self._version:
                self._writer = self._followed(self._writer)
                self._version = version
            self._looked_at = looked_at
            return self._writer.snapshot

    def adopt(self, segment: ImmutableSegment) -> None:
        """Search on ``segment`` from now on; searches go on meanwhile and miss nothing.

        Raises:
            GenerationError: it is not of what is stored; the segment in use stays.
        """
        writer = load_on(self._store, segment, self._policy)
        with self._lock:
            writer = self._followed(writer)  # what was written since it was loaded
            self._writer = _instead_of(self._writer, writer)

    def _followed(self, writer: SnapshotWriter) -> SnapshotWriter:
        """Bring ``live`` up to date and return it, or another one in its place."""
        while True:
            seq = writer.snapshot.seq
            try:
                operations = self._store.operations(after=seq, limit=FOLLOW_ROWS)
            except LogCutError:  # slept through more than the log remembers
                writer = _instead_of(writer, load(self._store, self._generations, self._policy))
                continue
            if not operations:
                return writer
            self._apply(writer, operations)

    def _apply(self, writer: SnapshotWriter, operations: list[Operation]) -> None:
        puts = [(op.key, op.vector_D) for op in operations if op.vector_D is not None]
        vectors_ND = np.empty((len(puts), self._store.binding.width), np.float32)
        for row, (_, vector_D) in enumerate(puts):
            vectors_ND[row] = vector_D
        removed = [op.key for op in operations if op.kind == "delete"]
        writer.apply(
            seq=operations[-1].seq,
            keys_N=np.array([key for key, _ in puts], np.int64),
            vectors_ND=vectors_ND,
            removed=np.unique(np.array(removed, np.int64)),
        )


def _instead_of(old: SnapshotWriter, new: SnapshotWriter) -> SnapshotWriter:
    """Return ``new``, which tells readers of ``old`` whether something may have been removed."""
    removals = old.snapshot.removals + (new.snapshot.seq != old.snapshot.seq)
    new.snapshot = replace(new.snapshot, removals=removals)
    return new
