"""Which keys a filter lets through, remembered: a key's label and metadata never change.

Shape suffixes: S keys that a filter lets through.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from index.items.filter import Condition, Filter
from index.snapshot.filter_ranges import narrowest, widest
from index.snapshot.segments.delta_segment import DeltaSegmentView
from index.snapshot.segments.immutable_segment import ImmutableSegment
from index.store.condition_queries import distinct

MAX_BYTES: Final = 64 * 2**20  # of remembered keys and rows, over all filters
MAX_FILTERS: Final = 1024  # remembered, however few keys each of them lets through
SPARE: Final = 1024  # keys that may be gone by now, beside as many as there are

Keys = NDArray[np.int64]  # sorted, distinct


class ConditionEvaluator(Protocol):
    """Gives the keys above ``after`` for which a condition holds."""

    def __call__(self, condition: Condition, /, *, after: int) -> Keys:
        """Return them sorted."""
        ...


class FilterMask:
    """The keys a filter lets through, among all keys up to one; deleted ones may be among them."""

    def __init__(self, keys_S: Keys, *, evaluated_to: int, seq: int = 0) -> None:
        self.keys_S = keys_S
        self.seq = (
            seq  # the newest operation after evaluating: what had gone by then may be missing
        )
        self.evaluated_to = evaluated_to  # every key up to this one was evaluated
        self._rows: tuple[ImmutableSegment, NDArray[np.int64]] | None = None

    @property
    def nbytes(self) -> int:
        """Memory of the keys and of the rows they were turned into."""
        return self.keys_S.nbytes * (1 if self._rows is None else 2)

    def rows_in(self, segment: ImmutableSegment) -> NDArray[np.int64]:
        """Return the rows of the keys in ``segment``, sorted, tombstoned ones included."""
        known = self._rows
        if known is None or known[0] is not segment:
            known = self._rows = (segment, segment.rows_of(self.keys_S))
        return known[1]

    def rows_of(self, view: DeltaSegmentView) -> NDArray[np.int64]:
        """Return the live rows of the keys in ``view``, sorted."""
        if not len(view.keys_N):
            return view.keys_N
        return view.rows_of(self.keys_S[np.searchsorted(self.keys_S, view.keys_N[0]) :])

    def extended(self, keys_S: Keys, *, evaluated_to: int, seq: int) -> "FilterMask":
        """Return the mask now that the keys up to ``evaluated_to`` were evaluated as well."""
        more = FilterMask(
            np.concatenate([self.keys_S, keys_S]) if len(keys_S) else self.keys_S,
            evaluated_to=evaluated_to,
            seq=seq,
        )
        more._rows = self._rows  # later keys are never in the segment that was asked about
        return more


class FilterCache:
    """Remembers what filters let through, and evaluates only the keys that came since.

    Any number of threads may ask.
    """

    def __init__(
        self,
        evaluate: ConditionEvaluator,
        *,
        newest: Callable[[], int],
        stored: Callable[[], int],
        max_bytes: int = MAX_BYTES,
        max_filters: int = MAX_FILTERS,
        spare: int = SPARE,
    ) -> None:
        self._evaluate = evaluate
        self._newest = newest  # operation
        self._stored = stored  # how many keys are not gone
        self._max_bytes, self._max_filters, self._spare = max_bytes, max_filters, spare
        self._lock = threading.Lock()
        # By their text: to Python 1 and True are equal, and so are such filters.
        self._known: OrderedDict[str, FilterMask] = OrderedDict()

    def of(self, wanted: Filter, *, up_to: int, all_keys: Callable[[int], Keys]) -> FilterMask:
        """Return the keys that ``wanted`` lets through, all keys up to ``up_to`` evaluated.

        Args:
            wanted: a filter with at least one condition.
            up_to: the last key the asker knows.
            all_keys: gives all keys above one, sorted, for filters that only exclude.

        Raises:
            StorageError, GalleryFolderError: the database cannot be read, or is damaged.
        """
        name = repr(wanted)
        nothing = FilterMask(np.empty(0, np.int64), evaluated_to=0)
        with self._lock:
            known = self._known.pop(name, nothing)
            if len(known.keys_S) > 2 * self._stored() + self._spare:
                known = nothing  # most of them are gone
            self._known[name] = known  # the latest used comes last
        if known.evaluated_to >= up_to:
            return known
        after = known.evaluated_to
        keys_S = self._evaluated(wanted, after, all_keys)
        known = known.extended(keys_S[keys_S <= up_to], evaluated_to=up_to, seq=self._newest())
        with self._lock:
            self._known[name] = known
            size = sum(mask.nbytes for mask in self._known.values())
            while len(self._known) > 1 and (
                size > self._max_bytes or len(self._known) > self._max_filters
            ):
                size -= self._known.popitem(last=False)[1].nbytes
        return known

    def _evaluated(self, wanted: Filter, after: int, all_keys: Callable[[int], Keys]) -> Keys:
        keys: Keys | None = None
        for condition in narrowest(wanted.must):
            held = self._evaluate(condition, after=after)
            keys = held if keys is None else np.intersect1d(keys, held, assume_unique=True)
        if wanted.should:
            parts = [self._evaluate(condition, after=after) for condition in widest(wanted.should)]
            held = distinct(np.concatenate(parts))
            keys = held if keys is None else np.intersect1d(keys, held, assume_unique=True)
        if keys is None:
            keys = all_keys(after)
        for condition in widest(wanted.must_not):
            keys = np.setdiff1d(keys, self._evaluate(condition, after=after), assume_unique=True)
        return keys
