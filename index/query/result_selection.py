"""Which of the nearest items are hits: some left out, few of a group, the best passed over.

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

MAX_REACH: Final = 10_000  # hits that a search may find, those passed over included
MAX_EXCLUDED: Final = 1_000  # ids
MAX_GROUP_SIZE: Final = 100
MORE: Final = 4  # times as many as are wanted are looked for; and times as many again


@dataclass(frozen=True, slots=True, kw_only=True)
class Picking:
    """What a search leaves out of its hits."""

    offset: int = 0  # of the best hits, how many are passed over
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


EVERY_ITEM: Final = Picking()


@dataclass(frozen=True, slots=True, kw_only=True)
class Picker:
    """Tells hits from what is left out, by their keys."""

    out: NDArray[np.int64]  # keys
    shut: list[tuple[Groups, int]]  # groups all of which is left out
    groups: Groups | None
    group_size: int

    def stays(self, keys_S: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return which keys are not left out, whatever group they are of."""
        stays_S = ~np.isin(keys_S, self.out)
        for groups, code in self.shut:
            stays_S &= groups.of(keys_S) != code
        return stays_S

    def pick(self, hits: Hits) -> Hits:
        """Return the hits among the nearest, in their order."""
        keys, scores = hits
        stays = self.stays(keys)
        keys, scores = keys[stays], scores[stays]
        if self.groups is not None:
            first = places_within(self.groups.of(keys)) < self.group_size
            keys, scores = keys[first], scores[first]
        return keys, scores


def picked(
    snapshot: Snapshot,
    query_1D: NDArray[np.float32],
    picker: Picker,
    *,
    k: int,
    mask: FilterMask | None,
    exact: bool,
    finish: Callable[[Hits], Hits],
) -> Hits:
    """Return the best ``k`` that ``picker`` lets through; fewer only when there are no more.

    Args:
        snapshot: what is searched.
        query_1D: a finite unit vector.
        picker: tells hits from what is left out.
        k: at least 1.
        mask: only these keys; ``None`` for all.
        exact: look at every row.
        finish: is given the nearest, best first, and gives back those that score enough, as they
            are to be ranked.
    """
    look = k + len(picker.out)
    if picker.shut or picker.groups is not None:
        look = max(look, min(MORE * look, MAX_REACH))
    is_scan = exact or snapshot.immutable is None or snapshot.immutable.segment.ann_index is None
    while True:
        (nearest,) = snapshot.search(query_1D, k=look, mask=mask, exact=exact)
        enough = finish(nearest)
        hits = picker.pick(enough)
        is_all = len(nearest[0]) < look or len(enough[0]) < len(nearest[0])
        if len(hits[0]) >= k or is_all:
            return hits[0][:k], hits[1][:k]
        if is_scan or look >= MAX_REACH:
            break
        look = min(MORE * look, MAX_REACH)
    keys, scores = picker.pick(finish(_scanned(snapshot, query_1D[0], picker, k, mask)))
    return keys[:k], scores[:k]


def _scanned(
    snapshot: Snapshot,
    query_D: NDArray[np.float32],
    picker: Picker,
    k: int,
    mask: FilterMask | None,
) -> Hits:
    """Return the best ``k`` hits and perhaps more, of which some are none; best first."""
    found = NO_HITS
    for rows, among in snapshot.parts(mask):
        found = merged(found, _best_of_groups(rows, among, query_D, picker, k), k=None)
    return found


def _best_of_groups(
    rows: Rows, among: NDArray[np.int64], query_D: NDArray[np.float32], picker: Picker, k: int
) -> Hits:
    """As ``_scanned``, of some rows. Reads each vector once, and sorts their scores.

    Products are rounded, so what is within twice the rounding of a border is kept as well.
    """
    keys_S = rows.keys_N[among]
    stays_S = picker.stays(keys_S)
    among, keys_S = among[stays_S], keys_S[stays_S]
    if not len(among):
        return NO_HITS
    scores_S = products(rows, query_D, among)
    bars_S = np.full(len(among), -np.inf, np.float32)  # what a row must reach within its group
    firsts_S = scores_S
    if picker.groups is not None:
        codes_S = picker.groups.of(keys_S)
        order_S = np.lexsort((-scores_S, codes_S))
        places_S = places_within(codes_S[order_S])
        is_last_S = places_S == picker.group_size - 1
        group_S = np.cumsum(places_S == 0) - 1
        bars = np.full(group_S[-1] + 1, -np.inf, np.float32)
        bars[group_S[is_last_S]] = scores_S[order_S][is_last_S]
        bars_S[order_S] = bars[group_S]
        firsts_S = scores_S[order_S][places_S < picker.group_size]
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
