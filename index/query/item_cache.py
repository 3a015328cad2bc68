"""Items by key, kept in memory: keys in, items out, read from SQLite where they are not known."""

import threading
from typing import Final

import numpy as np

from index.items.item import Item
from index.snapshot.filter_cache import SPARE
from index.store.store import Store

KEPT_ITEMS: Final = 65_536  # items; about 30 MB with a little metadata


class ItemCache:
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
            if len(self._items) + len(read) > min(KEPT_ITEMS, 2 * stored + SPARE):
                self._items = {}
            self._items.update(read)
        return {**{key: items[key] for key in keys if key in items}, **read}
