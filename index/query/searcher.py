"""Searches that agree with a database which changes meanwhile. Queries in, hits out.

The snapshot in memory gives keys; their labels and metadata, and what a filter allows, are read
from SQLite a moment sooner or later, and remembered: a key's content never changes. A key that is
gone by then would cost a hit, so the search is done again; when changes keep coming, writers are
made to wait for one last try.

Shape suffixes: Q queries, D vector width.
"""

import json
from collections.abc import Callable
from typing import Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from index.errors import GalleryFolderError, StorageError
from index.items.filter import Filter
from index.items.item import Hit, Item, Page, QueryItem, RangeResult, SearchResult
from index.items.metadata_index import TEXT
from index.query.cursor import decode_cursor, encode_cursor
from index.query.groups import CONTENT, GroupCache, group_code
from index.query.item_cache import ItemCache
from index.query.result_selection import EVERY_ITEM, ResultSelection, ResultSelector, select_results
from index.search.hits import Hits, at_least, led_by, scaled
from index.snapshot.filter_cache import FilterCache, FilterMask
from index.snapshot.follower import Follower
from index.snapshot.snapshot import Snapshot
from index.store.condition_queries import keys_of
from index.store.store import Store

ATTEMPTS: Final = 4  # before writers are made to wait
READ_ONLY_ATTEMPTS: Final = 100  # where they cannot be

_EVERYTHING: Final = Filter()
T = TypeVar("T")


class Searcher:
    """Turns what a snapshot finds into items. For any number of threads."""

    def __init__(self, store: Store, follower: Follower) -> None:
        self._store = store
        self._follower = follower
        self._filters = FilterCache(
            store.condition_keys,
            newest=lambda: follower.catch_up().seq,
            stored=lambda: follower.snapshot.count,
        )
        self._groups = GroupCache(store.reading, stored=lambda: follower.snapshot.count)
        self._items = ItemCache(store)

    def search(
        self,
        queries_QD: NDArray[np.float32],
        *,
        k: int,
        filter: Filter | None = None,
        min_score: float | None = None,
        exact: bool = False,
        query_item: QueryItem | None = None,
        factor: float = 1.0,
        selection: ResultSelection = EVERY_ITEM,
    ) -> SearchResult:
        """Return the ``k`` nearest items of each query, best first, ties by the older item.

        Fewer come only when no more are stored that pass all that is asked. In large galleries an
        ANN index finds the share of them that ``info`` tells as recall.

        Args:
            queries_QD: finite unit vectors.
            k, filter: at least 1; applied during the search, so that it never costs hits.
            min_score, exact: in [-1, 1], reached by every hit; look at every item.
            query_item: the stored item that the one query was made of: it comes first.
            factor: what cosines are multiplied with to be scores
                (``vision.inference.query_weighting``).
            selection: what is left out.

        Raises:
            UnknownIdError: ``query_item`` is not stored.
            BadVectorsError: not of shape (Q, width), not finite, or not of unit length.
            GalleryFolderError: the database is damaged, or the index holds a key that neither the
                items nor the log explain.
            StorageError: the database cannot be read; or it can only be read here, and others keep
                changing it.
        """
        own = None if query_item is None else self._own_hit(queries_QD, query_item)
        reach = selection.offset + k

        def attempt(snapshot: Snapshot) -> SearchResult | None:
            mask = self._mask(filter, snapshot)
            if not self._is_true_to(snapshot, mask):
                return None
            first = own if own is not None and snapshot.holds(own[0], mask) else None

            def finish(hits: Hits) -> Hits:
                hits = hits if first is None else led_by(*first, hits)
                return hits if min_score is None else at_least(min_score, hits, factor)

            if selection.is_plain:
                nearest = snapshot.search(queries_QD, k=reach, mask=mask, exact=exact)
                found = [finish(hits) for hits in nearest]
            else:
                selector = self._selector(selection, snapshot, query_item)
                if first is not None and not selector.is_kept(np.array([first[0]])).all():
                    first = None
                found = [
                    select_results(
                        *(snapshot, queries_QD[[row]], selector),
                        k=reach,
                        mask=mask,
                        exact=exact,
                        finish=finish,
                    )
                    for row in range(len(queries_QD))
                ]
            if selection.offset or factor != 1:
                found = [scaled(hits, factor, selection.offset) for hits in found]
            return self._result(snapshot, found, left_out=selection.exclude)

        return self._until_settled(attempt)

    def range_search(
        self,
        query_D: NDArray[np.float32],
        *,
        min_score: float,
        limit: int | None = None,
        filter: Filter | None = None,
        factor: float = 1.0,
    ) -> RangeResult:
        """Return the items that score ``min_score``, or the best ``limit`` of them, best first.

        Exact: looks at every item. Raises as ``search``.
        """

        def attempt(snapshot: Snapshot) -> RangeResult | None:
            mask = self._mask(filter, snapshot)
            if not self._is_true_to(snapshot, mask):
                return None
            hits, total = snapshot.range_search(
                query_D, min_score=min_score / factor, limit=limit, mask=mask
            )
            found = self._result(snapshot, [scaled(hits, factor)])
            return None if found is None else RangeResult(found.hits[0], total, found.seq)

        return self._until_settled(attempt)

    def page(self, *, limit: int, cursor: str | None = None, filter: Filter | None = None) -> Page:
        """Return the next ``limit`` items, oldest first; items stored meanwhile come at the end.

        Raises:
            InvalidCursorError: not the ``next_cursor`` of a page.
        """
        if limit < 1:
            raise ValueError(f"limit must be at least 1, got {limit}")
        after = 0 if cursor is None else decode_cursor(cursor)
        found = self.passing(filter, lambda keys_S, _: self._page(keys_S, after, limit + 1))
        items = [item for _, item in found[:limit]]
        return Page(items, encode_cursor(found[limit - 1][0]) if len(found) > limit else None)

    def passing(
        self, filter: Filter | None, look: Callable[[NDArray[np.int64] | None, int], T]
    ) -> T:
        """Return what ``look`` makes of the keys that ``filter`` lets through, and of their seq.

        Nothing was removed meanwhile. Without a filter it is given ``None``: every key passes.
        """
        if filter is None or filter == _EVERYTHING:
            return look(None, 0)

        def attempt(snapshot: Snapshot) -> T | None:
            mask = self._mask(filter, snapshot)
            assert mask is not None
            known = np.searchsorted(mask.keys_S, snapshot.last_key, side="right")
            found = look(mask.keys_S[:known], snapshot.seq)
            return found if self._follower.catch_up().removals == snapshot.removals else None

        return self._until_settled(attempt)

    def _page(
        self, keys_S: NDArray[np.int64] | None, after: int, limit: int
    ) -> list[tuple[int, Item]]:
        """Return up to ``limit`` (key, item) with keys above ``after``, among some keys or all."""
        if keys_S is None:
            return self._store.page(after=after, limit=limit)
        keys_S = keys_S[np.searchsorted(keys_S, after, side="right") :]
        found: list[tuple[int, Item]] = []
        while len(found) < limit and keys_S.size:  # some of the keys may be gone
            found += sorted(self._store.items_by_key(keys_S[:limit]).items())
            keys_S = keys_S[limit:]
        return found[:limit]

    def _own_hit(
        self, queries_QD: NDArray[np.float32], query_item: QueryItem
    ) -> tuple[int, float] | None:
        """Return the key of the item and its score; nothing when its vector is another by now."""
        key, vector_D = self._store.vector(query_item.id)
        if not np.array_equal(vector_D, query_item.vector_D):
            return None
        if np.array_equal(queries_QD[0], vector_D):
            return key, 1.0
        score = queries_QD[0].astype(np.float64) @ vector_D.astype(np.float64)
        return key, float(np.clip(score, -1, 1))

    def _mask(self, filter: Filter | None, snapshot: Snapshot) -> FilterMask | None:
        """Return the keys of the snapshot that ``filter`` lets through; ``None``: all of them."""
        if filter is None or filter == _EVERYTHING:
            return None
        return self._filters.of(filter, up_to=snapshot.last_key, all_keys=snapshot.keys_above)

    def _is_true_to(self, snapshot: Snapshot, mask: FilterMask | None) -> bool:
        """Whether nothing of the snapshot may have gone before the filter looked at it."""
        if mask is None or mask.seq <= snapshot.seq:  # what had gone by then is gone in both
            return True
        return self._follower.catch_up().removals == snapshot.removals

    def _selector(
        self, selection: ResultSelection, snapshot: Snapshot, query_item: QueryItem | None
    ) -> ResultSelector:
        """Return what tells hits from what is left out of all that ``snapshot`` has."""
        excluded_groups = []
        if selection.exclude_group is not None and query_item is not None:
            key, _ = self._store.vector(query_item.id)
            groups = self._groups.of(selection.exclude_group, up_to=max(key, snapshot.last_key))
            excluded_groups.append((groups, int(groups.of(np.array([key]))[0])))
        if selection.exclude_content is not None:
            groups = self._groups.of(CONTENT, up_to=snapshot.last_key)
            excluded_groups.append((groups, group_code(TEXT, selection.exclude_content)))
        excluded_keys = np.empty(0, np.int64)
        if selection.exclude:
            sql = "SELECT key FROM items WHERE id IN (SELECT value FROM json_each(?))"
            with self._store.reading() as reader:
                excluded_keys = keys_of(reader, sql, (json.dumps(sorted(selection.exclude)),))
        by = selection.group_by
        return ResultSelector(
            excluded_keys=excluded_keys,
            excluded_groups=excluded_groups,
            groups=None if by is None else self._groups.of(by, up_to=snapshot.last_key),
            group_size=selection.group_size,
        )

    def _result(
        self, snapshot: Snapshot, found: list[Hits], *, left_out: frozenset[str] = frozenset()
    ) -> SearchResult | None:
        """Return the items behind the keys; ``None``: one of them has changed meanwhile."""
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
        if left_out and any(hit.id in left_out for one in hits for hit in one):
            return None  # it was replaced between the snapshot and the look for its key
        return SearchResult(hits, snapshot.seq)

    def _until_settled(self, attempt: Callable[[Snapshot], T | None]) -> T:
        """Return what ``attempt`` does as soon as nothing changed under its hands."""
        result = attempt(self._follower.recent_snapshot())
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
