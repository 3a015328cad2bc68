"""Keeps an index in memory true to the log of operations, whoever writes it.

Shape suffixes: N items, D vector width.
"""

import threading
import time
from typing import Final

import numpy as np

from index.exact import ExactIndex, View
from index.store import Store

FOLLOW_ROWS: Final = 4096  # operations applied at a time
SPARE_ROWS: Final = 1024  # room for new vectors after loading
POLL_S: Final = 0.005


class Follower:
    """An index that is moved by the log alone: our own writes and other processes' come alike."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._version = store.data_version()  # before loading: what comes later is followed
        self._seq, keys_N, vectors_ND = store.load()
        self.index = ExactIndex(store.binding.width, capacity=len(keys_N) + SPARE_ROWS)
        self.index.apply(keys_N=keys_N, vectors_ND=vectors_ND)

    @property
    def seq(self) -> int:
        """Every operation up to this one is in the index."""
        return self._seq

    def catch_up(self) -> int:
        """Bring the index up to date and return the last seq it has seen.

        Costs about 7 microseconds when nothing was written.

        Raises:
            StorageError, GalleryFolderError: the log cannot be read; the index stays behind it.
        """
        with self._lock:
            self._follow()
            return self._seq

    def view(self) -> tuple[int, View]:
        """Return the seq the index is at now, after catching up, and its content at that seq."""
        with self._lock:
            self._follow()
            return self._seq, self.index.view

    def wait_for(self, seq: int, *, timeout_s: float) -> bool:
        """Wait until the operation ``seq`` is in the index; return whether it came in time."""
        deadline = time.monotonic() + timeout_s
        while self.catch_up() < seq:
            if time.monotonic() >= deadline:
                return False
            time.sleep(POLL_S)
        return True

    def _follow(self) -> None:
        version = self._store.data_version()
        if version == self._version:
            return
        while operations := self._store.operations(after=self._seq, limit=FOLLOW_ROWS):
            puts = [(op.key, op.vector_D) for op in operations if op.vector_D is not None]
            vectors_ND = np.empty((len(puts), self.index.width), np.float32)
            for row, (_, vector_D) in enumerate(puts):
                vectors_ND[row] = vector_D
            self.index.apply(
                keys_N=np.array([key for key, _ in puts], np.int64),
                vectors_ND=vectors_ND,
                removed=np.array([op.key for op in operations if op.kind == "delete"], np.int64),
            )
            self._seq = operations[-1].seq
        self._version = version
