"""Items that were read are remembered, within a bound, until they are replaced."""

import numpy as np
from numpy.typing import NDArray

from index.items.item import Item
from index.query.item_cache import KEPT_ITEMS, ItemCache
from index.snapshot.filter_cache import SPARE


class Shelf:
    """Stands in for a store in which every key is there; counts what is read of it."""

    def __init__(self) -> None:
        self.read = 0

    def items_by_key(self, keys: NDArray[np.int64]) -> dict[int, Item]:
        self.read += len(keys)
        return {
            key: Item(id=str(key), label=None, metadata={}, content_sha256="", created="", seq=key)
            for key in keys.tolist()
        }


def test_items_that_were_replaced_are_forgotten_in_time() -> None:
    remembered = ItemCache(Shelf())  # type: ignore[arg-type]
    for key in range(5 * SPARE):  # one item, replaced again and again
        items = remembered.of([key], stored=1)

        assert items is not None
        assert items[key].seq == key
        assert len(items) <= SPARE + 3


def test_items_that_are_there_are_read_once() -> None:
    shelf = Shelf()
    remembered = ItemCache(shelf)  # type: ignore[arg-type]
    for _ in range(3):
        for key in range(5 * SPARE):
            assert remembered.of([key], stored=5 * SPARE) is not None

    assert shelf.read == 5 * SPARE


def test_however_many_are_there_only_so_many_are_remembered() -> None:
    remembered = ItemCache(Shelf())  # type: ignore[arg-type]
    for start in range(0, 2 * KEPT_ITEMS, SPARE):
        keys = list(range(start, start + SPARE))
        items = remembered.of(keys, stored=2 * KEPT_ITEMS)

        assert items is not None
        assert len(items) <= KEPT_ITEMS + SPARE
