"""Searches that agree with a database which changes meanwhile. Queries in, hits out.

The index in memory gives keys; their labels and metadata, and what a filter allows, are read from
SQLite a moment sooner or later. A key that is gone by then would cost a hit, so the search is done
again; when changes keep coming, writers are made to wait for one last try.

Shape suffixes: Q queries, D vector width.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from index.errors import GalleryFolderError
from index.exact import ExactIndex
from index.filter import Filter
from index.items import Hit, SearchResult
from index.store import Store

ATTEMPTS: Final = 4  # before writers are made to wait


@dataclass(slots=True, kw_only=True)
class Lookup:
    """One search, tried until the index and the database say the same."""

    store: Store
    index: ExactIndex
    catch_up: Callable[[], int]  # brings the index up to date and returns its seq
    queries_QD: NDArray[np.float32]
    k: int
    wanted: Filter | None
    min_score: float  # cosine
    _allowed: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    _filtered_up_to: int = 0  # keys above it have not been asked about yet

    def run(self) -> SearchResult:
        """Return the nearest items of each query, best first.

        Raises:
            GalleryFolderError: the index holds a key that neither the items nor the log explain.
        """
        for _ in range(ATTEMPTS):
            result = self._attempt()
            if result is not None:
                return result
        with self.store.writing():
            result = self._attempt()
        if result is None:
            raise GalleryFolderError(
                f"{self.store.folder} is damaged: its log and its items disagree; verify lists how"
            )
        return result

    def _attempt(self) -> SearchResult | None:
        seq = self.catch_up()
        allowed = None if self.wanted is None else self._allowed_keys(self.wanted)
        found = self.index.search(self.queries_QD, k=self.k, allowed=allowed)
        if allowed is not None and self.catch_up() != seq:
            return None  # an item may have been replaced after the filter looked at it
        keys = np.unique(np.concatenate([keys for keys, _ in found])) if found else self._allowed
        items = self.store.items_by_key(keys)
        if len(items) < len(keys):
            return None
        hits = [
            [
                Hit(items[key].id, score, items[key].label, items[key].metadata)
                for key, score in zip(keys.tolist(), scores.tolist(), strict=True)
                if score >= self.min_score
            ]
            for keys, scores in found
        ]
        return SearchResult(hits, seq)

    def _allowed_keys(self, wanted: Filter) -> NDArray[np.int64]:
        """Return the keys the filter lets through; a later attempt asks about newer ones only."""
        keys_N = self.index.view.keys_N
        new = self.store.keys(wanted, after=self._filtered_up_to)
        self._allowed = np.union1d(self._allowed, new)
        self._filtered_up_to = int(keys_N[-1]) if len(keys_N) else 0
        return self._allowed
