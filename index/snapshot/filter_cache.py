"""Which keys a filter lets through, remembered: a key's label and metadata never change.

Shape suffixes: S keys that are allowed.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from index.items.filter import Condition, Filter
from index.snapshot.filter_ranges import narrowest, widest
from index.snapshot.segments.base_segment import Base
from index.snapshot.segments.delta_segment import View
from index.store.condition_queries import distinct

MAX_BYTES: Final = 64 * 2**20  # of remembered keys and rows, over all filters
MAX_FILTERS: Final = 1024  # remembered, however few keys each of them lets through
SPARE: Final = 1024  # keys that may be gone by now, beside as many as there are

Keys = NDArray[np.int64]  # sorted, distinct


class Judge(Protocol):
    """Gives the keys above ``after`` for which a condition holds."""

    def __call__(self, condition: Condition, /, *, after: int) -> Keys:
        """Return them sorted."""
        ...


class Allowed:
    """The keys a filter lets through, among all keys up to one; deleted ones may be among them."""

    def __init__(self, keys_S: Keys, *, judged_to: int, seq: int = 0) -> None:
        self.keys_S = keys_S
        self.seq = seq  # the newest operation after judging: what had gone by then may be missing
        self.judged_to = judged_to  # every key up to this one was judged
        self._rows: tuple[Base, NDArray[np.int64]] | None = None

    @property
    def nbytes(self) -> int:
        """Memory of the keys and of the rows they were turned into."""
        return self.keys_S.nbytes * (1 if self._rows is None else 2)

    def rows_in(self, base: Base) -> NDArray[np.int64]:
        """Return the rows of the keys in ``base``, sorted, dead ones included."""
        known = self._rows
        if known is None or known[0] is not base:
            known = self._rows = (base, base.rows_of(self.keys_S))
        return known[1]

    def rows_of(self, view: View) -> NDArray[np.int64]:
        """Return the alive rows of the keys in ``view``, sorted."""
        if not len(view.keys_N):
            return view.keys_N
        return view.rows_of(self.keys_S[np.searchsorted(self.keys_S, view.keys_N[0]) :])

    def and_also(self, keys_S: Keys, *, judged_to: int, seq: int) -> "Allowed":
        """Return what is allowed now that the keys up to ``judged_to`` were judged as well."""
        more = Allowed(
            np.concatenate([self.keys_S, keys_S]) if len(keys_S) else self.keys_S,
            judged_to=judged_to,
            seq=seq,
        )
        more._rows = self._rows  # later keys are never in the base that was asked about
        return more


class AllowedKeys:
    """Remembers what filters let through, and judges only the keys that came since.

    Any number of threads may ask.
    """

    def __init__(
        self, judge: Judge, *, newest: Callable[[], int], stored: Callable[[], int]
    ) -> None:
        self._judge = judge
        self._newest = newest  # operation
        self._stored = stored  # how many keys are not gone
        self._lock = threading.Lock()
        # By their text: to Python 1 and True are equal, and so are such filters.
        self._known: OrderedDict[str, Allowed] = OrderedDict()

    def of(self, wanted: Filter, *, up_to: int, everything: Callable[[int], Keys]) -> Allowed:
        """Return the keys that ``wanted`` lets through, all keys up to ``up_to`` judged.

        Args:
            wanted: a filter with at least one condition.
            up_to: the last key the asker knows.
            everything: gives all keys above one, sorted, for filters that only exclude.

        Raises:
            StorageError, GalleryFolderError: the database cannot be read, or is damaged.
        """
        name = repr(wanted)
        nothing = Allowed(np.empty(0, np.int64), judged_to=0)
        with self._lock:
            known = self._known.pop(name, nothing)
            if len(known.keys_S) > 2 * self._stored() + SPARE:
                known = nothing  # most of them are gone
            self._known[name] = known  # the latest used comes last
        if known.judged_to >= up_to:
            return known
        after = known.judged_to
        keys_S = self._judged(wanted, after, everything)
        known = known.and_also(keys_S[keys_S <= up_to], judged_to=up_to, seq=self._newest())
        with self._lock:
            self._known[name] = known
            size = sum(allowed.nbytes for allowed in self._known.values())
            while len(self._known) > 1 and (size > MAX_BYTES or len(self._known) > MAX_FILTERS):
                size -= self._known.popitem(last=False)[1].nbytes
        return known

    def _judged(self, wanted: Filter, after: int, everything: Callable[[int], Keys]) -> Keys:
        keys: Keys | None = None
        for condition in narrowest(wanted.must):
            held = self._judge(condition, after=after)
            keys = held if keys is None else np.intersect1d(keys, held, assume_unique=True)
        if wanted.should:
            parts = [self._judge(condition, after=after) for condition in widest(wanted.should)]
            held = distinct(np.concatenate(parts))
            keys = held if keys is None else np.intersect1d(keys, held, assume_unique=True)
        if keys is None:
            keys = everything(after)
        for condition in widest(wanted.must_not):
            keys = np.setdiff1d(keys, self._judge(condition, after=after), assume_unique=True)
        return keys
