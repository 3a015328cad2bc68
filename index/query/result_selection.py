"""Which of the nearest items are hits: some left out, few of a group, the best skipped.

A search looks for more than are wanted, and again for more, until enough of what it finds stays.
What even many do not yield, as when one group is most of the gallery, is found by a scan of all
vectors that keeps the best of every group.

Shape suffixes: S keys or rows, D vector width.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from index.items.filter import Key
from index.query.groups import Groups
from index.search.exact import ROUNDING, Rows, products, ranked
from index.search.hits import NO_HITS, Hits, merged
from index.snapshot.filter_cache import FilterMask
from index.snapshot.snapshot import Snapshot

MAX_REACH: Final = 10_000  # hits that a search may find, skipped ones included
MAX_EXCLUDED: Final = 1_000  # ids
MAX_GROUP_SIZE: Final = 100
MORE: Final = 4  # times as many as are wanted are looked for; and times as many again


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultSelection:
    """What a search leaves out of its hits."""

    offset: int = 0  # of the best hits, how many are skipped
    group_by: Key | None = None
    group_size: int = 1  # hits of one group at most
    exclude: frozenset[str] = frozenset()  # ids; unknown ones leave nothing out
    exclude_group: Key | None = None  # by it, the group of the item that is asked by
    exclude_content: str | None = None  # SHA-256, hexadecimal

    @property
    def is_plain(self) -> bool:
        """Whether every one of the nearest items is a hit."""
        return not (
            self.group_by or self.exclude or self.exclude_group or self.exclude_content is not None
        )


EVERY_ITEM: Final = ResultSelection()


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultSelector:
    """Tells hits from what is left out, by their keys."""

    excluded_keys: NDArray[np.int64]
    excluded_groups: list[tuple[Groups, int]]  # and which of them is left out
    groups: Groups | None
    group_size: int

    def is_kept(self, keys_S: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return which keys are not left out, whatever group they are of."""
        stays_S = ~np.isin(keys_S, self.excluded_keys)
        for groups, code in self.excluded_groups:
            stays_S &= groups.of(keys_S) != code
        return stays_S

    def select(self, hits: Hits) -> Hits:
        """Return the hits among the nearest, in their order."""
        keys, scores = hits
        is_kept = self.is_kept(keys)
        keys, scores = keys[is_kept], scores[is_kept]
        if self.groups is not None:
            first = places_within(self.groups.of(keys)) < self.group_size
            keys, scores = keys[first], scores[first]
        return keys, scores


def select_results(
    snapshot: Snapshot,
    query_1D: NDArray[np.float32],
    selector: ResultSelector,
    *,
    k: int,
    mask: FilterMask | None,
    exact: bool,
    finish: Callable[[Hits], Hits],
) -> Hits:
    """Return the best ``k`` that ``selector`` lets through; fewer only when there are no more.

    Args:
        snapshot: what is searched.
        query_1D: a finite unit vector.
        selector: tells hits from what is left out.
        k: at least 1.
        mask: only these keys; ``None`` for all.
        exact: look at every row.
        finish: is given the nearest, best first, and gives back those that score enough, as they
            are to be ranked.
    """
    depth = k + len(selector.excluded_keys)
    if selector.excluded_groups or selector.groups is not None:
        depth = max(depth, min(MORE * depth, MAX_REACH))
    is_scan = exact or snapshot.immutable is None or snapshot.immutable.segment.ann_index is None
    while True:
        (nearest,) = snapshot.search(query_1D, k=depth, mask=mask, exact=exact)
        enough = finish(nearest)
        hits = selector.select(enough)
        is_all = len(nearest[0]) < depth or len(enough[0]) < len(nearest[0])
        if len(hits[0]) >= k or is_all:
            return hits[0][:k], hits[1][:k]
        if is_scan or depth >= MAX_REACH:
            break
        depth = min(MORE * depth, MAX_REACH)
    keys, scores = selector.select(finish(_scanned(snapshot, query_1D[0], selector, k, mask)))
    return keys[:k], scores[:k]


def _scanned(
    snapshot: Snapshot,
    query_D: NDArray[np.float32],
    selector: ResultSelector,
    k: int,
    mask: FilterMask | None,
) -> Hits:
    """Return the best ``k`` hits and perhaps more, of which some are none; best first."""
    found = NO_HITS
    for rows, among in snapshot.parts(mask):
        found = merged(found, _best_of_groups(rows, among, query_D, selector, k), k=None)
    return found


def _best_of_groups(
    rows: Rows,
    among: NDArray[np.int64],
    query_D: NDArray[np.float32],
    selector: ResultSelector,
    k: int,
) -> Hits:
    """As ``_scanned``, of some rows. Reads each vector once, and sorts their scores.

    Products are rounded, so what is within twice the rounding of a border is kept as well.
    """
    keys_S = rows.keys_N[among]
    stays_S = selector.is_kept(keys_S)
    among, keys_S = among[stays_S], keys_S[stays_S]
    if not len(among):
        return NO_HITS
    scores_S = products(rows, query_D, among)
    bars_S = np.full(len(among), -np.inf, np.float32)  # what a row must reach within its group
    firsts_S = scores_S
    if selector.groups is not None:
        codes_S = selector.groups.of(keys_S)
        order_S = np.lexsort((-scores_S, codes_S))
        places_S = places_within(codes_S[order_S])
        is_last_S = places_S == selector.group_size - 1
        group_S = np.cumsum(places_S == 0) - 1
        bars = np.full(group_S[-1] + 1, -np.inf, np.float32)
        bars[group_S[is_last_S]] = scores_S[order_S][is_last_S]
        bars_S[order_S] = bars[group_S]
        firsts_S = scores_S[order_S][places_S < selector.group_size]
    floor = np.partition(firsts_S, -k)[-k] if k <= len(firsts_S) else -np.inf
    return ranked(rows, query_D, among[scores_S >= np.maximum(bars_S, floor) - 2 * ROUNDING])


def places_within(codes_S: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return, for each element, how many equal ones come before it.

    >>> places_within(np.array([7, 3, 7, 7, 3]))
    array([0, 0, 1, 2, 1])
    """
    order_S = np.argsort(codes_S, kind="stable")
    sorted_S = codes_S[order_S]
    begins_S = np.ones(len(codes_S), np.bool_)
    np.not_equal(sorted_S[1:], sorted_S[:-1], out=begins_S[1:])
    starts_S = np.maximum.accumulate(np.where(begins_S, np.arange(len(codes_S)), 0))
    places_S = np.empty(len(codes_S), np.int64)
    places_S[order_S] = np.arange(len(codes_S)) - starts_S
    return places_S
