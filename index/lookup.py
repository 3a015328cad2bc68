"""Searches that agree with a database which changes meanwhile. Queries in, hits out.

The snapshot in memory gives keys; their labels and metadata, and what a filter allows, are read
from SQLite a moment sooner or later, and remembered: a key's content never changes. A key that is
gone by then would cost a hit, so the search is done again; when changes keep coming, writers are
made to wait for one last try.

Shape suffixes: Q queries, D vector width.
"""

import threading
from collections.abc import Callable
from typing import Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from index.allowed import SPARE, Allowed, AllowedKeys
from index.errors import GalleryFolderError, StorageError
from index.filter import Filter
from index.follower import Follower
from index.items import Hit, Item, RangeResult, SearchResult
from index.scan import Hits
from index.snapshot import Snapshot
from index.store import Store

ATTEMPTS: Final = 4  # before writers are made to wait
READ_ONLY_ATTEMPTS: Final = 100  # where they cannot be
REMEMBERED: Final = 65_536  # items; about 30 MB with a little metadata

_EVERYTHING: Final = Filter()
T = TypeVar("T")
Find = Callable[[Snapshot, Allowed | None], list[Hits]]


class Lookup:
    """Turns what a snapshot finds into items. For any number of threads."""

    def __init__(self, store: Store, follower: Follower) -> None:
        self._store = store
        self._follower = follower
        self._allowed = AllowedKeys(
            store.condition_keys,
            newest=lambda: follower.catch_up().seq,
            stored=lambda: follower.snapshot.count,
        )
        self._items = Remembered(store)

    def search(
        self,
        queries_QD: NDArray[np.float32],
        *,
        k: int,
        wanted: Filter | None,
        min_score: float | None,
        exact: bool,
        itself: str | None = None,
    ) -> SearchResult:
        """Return the nearest items of each query, best first.

        The item with the id ``itself`` comes before all that equal it, unless the filter excludes
        it; a query that is not its vector finds it like any other.

        Raises:
            UnknownIdError: there is no item ``itself``.
            GalleryFolderError: the index holds a key that neither the items nor the log explain.
            StorageError: the gallery is read-only here, and others keep changing it.
        """
        key = None
        if itself is not None:
            key, vector_D = self._store.vector(itself)
            key = key if np.array_equal(queries_QD, vector_D[np.newaxis]) else None

        def find(snapshot: Snapshot, allowed: Allowed | None) -> list[Hits]:
            found = snapshot.search(queries_QD, k=k, allowed=allowed, exact=exact)
            if key is not None and snapshot.holds(key, allowed):
                found = [led_by(key, hits, k=k) for hits in found]
            return found if min_score is None else [_above(hits, min_score) for hits in found]

        return self._run(find, wanted)

    def above(
        self,
        query_D: NDArray[np.float32],
        *,
        min_score: float,
        limit: int | None,
        wanted: Filter | None,
    ) -> RangeResult:
        """Return the items that score at least ``min_score``, best first. Raises as ``search``."""
        total = 0

        def find(snapshot: Snapshot, allowed: Allowed | None) -> list[Hits]:
            nonlocal total
            hits, total = snapshot.above(query_D, min_score=min_score, limit=limit, allowed=allowed)
            return [hits]

        found = self._run(find, wanted)
        return RangeResult(found.hits[0], total, found.seq)

    def page(self, *, after: int, limit: int, wanted: Filter | None) -> list[tuple[int, Item]]:
        """Return up to ``limit`` (key, item) with keys above ``after``, by key.

        Raises as ``search``.
        """
        if wanted is None or wanted == _EVERYTHING:
            return self._store.page(after=after, limit=limit)
        return self._settled(lambda snapshot: self._page(snapshot, after, limit, wanted))

    def _run(self, find: Find, wanted: Filter | None) -> SearchResult:
        return self._settled(lambda snapshot: self._attempt(snapshot, find, wanted))

    def _settled(self, attempt: Callable[[Snapshot], T | None]) -> T:
        """Return what ``attempt`` does as soon as nothing changed under its hands."""
        result = attempt(self._follower.recent())
        if result is not None:
            return result
        # Without the right to write we cannot make the others wait, and so try more often.
        read_only = self._store.read_only_reason is not None
        for _ in range(READ_ONLY_ATTEMPTS if read_only else ATTEMPTS):
            result = self._tried(attempt)
            if result is not None:
                return result
        if not read_only:
            with self._store.writing():
                result = self._tried(attempt)
            if result is not None:
                return result
        raise StorageError(f"{self._store.folder} kept changing while it was searched; try again")

    def _tried(self, attempt: Callable[[Snapshot], T | None]) -> T | None:
        """Return what ``attempt`` does, or ``None`` when something changed under its hands.

        Raises:
            GalleryFolderError: it failed although nothing was written meanwhile.
        """
        snapshot = self._follower.catch_up()
        result = attempt(snapshot)
        if result is None and self._store.last_seq() == snapshot.seq:
            raise GalleryFolderError(
                f"{self._store.folder} is damaged: its log and its items disagree; verify lists how"
            )
        return result

    def _page(
        self, snapshot: Snapshot, after: int, limit: int, wanted: Filter
    ) -> list[tuple[int, Item]] | None:
        allowed = self._allowed.of(wanted, up_to=snapshot.last_key, everything=snapshot.keys_above)
        keys_S = allowed.keys_S[np.searchsorted(allowed.keys_S, after, side="right") :]
        found: list[tuple[int, Item]] = []
        while len(found) < limit and keys_S.size:  # some of the keys may be gone
            items = self._store.items_by_key(keys_S[:limit])
            found += sorted(items.items())
            keys_S = keys_S[limit:]
        if self._follower.catch_up().removals != snapshot.removals:
            return None  # an item may have been replaced: gone under its old key, and not here yet
        return found[:limit]

    def _is_true_to(self, snapshot: Snapshot, allowed: Allowed) -> bool:
        """Whether nothing of the snapshot may have gone before the filter looked at it."""
        if allowed.seq <= snapshot.seq:  # what had gone by then is gone in the snapshot
            return True
        return self._follower.catch_up().removals == snapshot.removals

    def _attempt(
        self, snapshot: Snapshot, find: Find, wanted: Filter | None
    ) -> SearchResult | None:
        allowed = None
        if wanted is not None and wanted != _EVERYTHING:
            allowed = self._allowed.of(
                wanted, up_to=snapshot.last_key, everything=snapshot.keys_above
            )
            if not self._is_true_to(snapshot, allowed):
                return None
        found = find(snapshot, allowed)
        keys = [key for keys, _ in found for key in keys.tolist()]
        items = self._items.of(keys, stored=snapshot.count)
        if items is None:
            return None
        hits = [
            [
                Hit(item.id, score, item.label, item.metadata)
                for item, score in zip(
                    map(items.__getitem__, keys.tolist()), scores.tolist(), strict=False
                )
            ]
            for keys, scores in found
        ]
        return SearchResult(hits, snapshot.seq)


class Remembered:
    """Items by key, as many as were read last. For any number of threads."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._items: dict[int, Item] = {}

    def of(self, keys: list[int], *, stored: int) -> dict[int, Item] | None:
        """Return a mapping that has all ``keys``, or ``None`` when one of them is not stored.

        Of a gallery that holds ``stored`` items: what else is remembered was deleted or replaced.
        """
        items = self._items  # it is replaced, never shrunk
        if all(map(items.__contains__, keys)):
            return items
        missing = [key for key in keys if key not in items]
        read = self._store.items_by_key(np.array(missing, np.int64))
        if len(read) < len(set(missing)):
            return None
        with self._lock:
            if len(self._items) + len(read) > min(REMEMBERED, 2 * stored + SPARE):
                self._items = {}
            self._items.update(read)
        return {**{key: items[key] for key in keys if key in items}, **read}


def led_by(key: int, hits: Hits, *, k: int) -> Hits:
    """Return ``hits`` with ``key``, whose vector was asked for, first: its score is 1."""
    keys, scores = hits
    others = keys != key
    return (
        np.concatenate([np.array([key]), keys[others]])[:k],
        np.concatenate([np.ones(1, np.float32), scores[others]])[:k],
    )


def _above(hits: Hits, min_score: float) -> Hits:
    keys, scores = hits
    enough = int(np.count_nonzero(scores >= min_score))
    return keys[:enough], scores[:enough]
