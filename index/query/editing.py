"""Changes of stored items that look at what is there first: patches, and deletions by what holds.

An item is read, what becomes of it is worked out, and the change is made only if the item is still
the one that was read; else the same is done again. So nobody's change is lost, in any process.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from typing import Any, Final

from index.errors import ChangedItemError, UnknownIdError
from index.items.filter import Filter
from index.items.ids import check_id
from index.items.item import (
    Item,
    NewItem,
    PutResult,
    check_label,
    clean_label,
    encode_metadata,
    quoted,
)
from index.items.preconditions import NO_PRECONDITION, Precondition
from index.query.searcher import Searcher
from index.store.store import Store
from index.store.transaction import Edit, WriteTransaction

CHUNK: Final = 1000  # items deleted in one transaction; others write between them


@dataclass(frozen=True, slots=True)
class Patch:
    """What is to be different about an item."""

    changes: Mapping[str, Any]  # of ``label`` and ``metadata``: a JSON merge patch

    def applied(self, item: Item) -> Item:
        """Return ``item`` as it is to be, as it would be read; its seq stays.

        Whether its metadata can be stored shows when they are encoded.

        Raises:
            InvalidMetadataError: the label cannot be stored.
        """
        label, metadata = item.label, item.metadata
        if "label" in self.changes:
            label = self.changes["label"]
            check_label(label)
        if "metadata" in self.changes:
            merged = merge(metadata, self.changes["metadata"])
            metadata = {} if merged is None else merged
        return replace(item, label=clean_label(label), metadata=metadata)


def merge(target: Any, patch: Any) -> Any:
    """Return ``target`` with the JSON merge ``patch`` applied (RFC 7396, section 2).

    >>> merge({"a": 1, "b": {"c": 2, "d": 3}}, {"a": None, "b": {"c": 4}})
    {'b': {'c': 4, 'd': 3}}
    """
    if not isinstance(patch, dict):
        return patch
    merged = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            merged.pop(name, None)
        else:
            merged[name] = merge(merged.get(name), value)
    return merged


class ItemEditor:
    """Changes of what a gallery stores. For any number of threads."""

    def __init__(self, store: Store, searcher: Searcher, *, clock: Callable[[], datetime]) -> None:
        self._store = store
        self._searcher = searcher
        self._clock = clock

    def put(
        self,
        items: Sequence[NewItem],
        *,
        upsert: bool = True,
        expected: Precondition = NO_PRECONDITION,
    ) -> list[PutResult]:
        """Store ``items`` in one durable transaction; when this returns, searches find them.

        An item whose content, label and metadata are stored already is ``unchanged``. An id that
        holds anything else is ``replaced``, or with ``upsert`` off a ``conflict`` that leaves it as
        it is. An id that comes twice meets its earlier self. What is not as ``expected`` is
        ``unexpected``, and stays as well.

        Raises:
            InvalidIdError, InvalidMetadataError, BadVectorsError: an item is not storable.
            DiskFullError, StorageError: it cannot be written.
            In every case nothing is stored, not even the other items. (Should only reading back
            fail, all is stored; putting the items again is harmless and says ``unchanged``.)
        """
        if not items:
            return []
        created = self._clock().isoformat(timespec="milliseconds")
        return self._store.put(items, upsert=upsert, created=created, expected=expected)

    def patch(
        self, item_id: str, patch: Patch, *, expected: Precondition = NO_PRECONDITION
    ) -> Item:
        """Give an item another label and metadata, durably, and return it as it is then.

        Its vector, picture, content and time of storing stay; its seq is a new one, unless nothing
        was different.

        Raises:
            InvalidIdError, UnknownIdError: there is no such item.
            ChangedItemError: it is not as ``expected``.
            InvalidMetadataError: what would become of it cannot be stored.
            ReadOnlyError, DiskFullError, StorageError: as of ``put``.
            In every case nothing is changed.
        """
        while True:
            item = self._item(item_id, expected)
            patched = patch.applied(item)
            metadata = encode_metadata(patched.metadata)
            if patched.label == item.label and metadata.text == encode_metadata(item.metadata).text:
                return item
            edit = Edit(
                id=item.id,
                seq=item.seq,
                label=patched.label,
                metadata=metadata.text,
                entries=metadata.entries,
            )
            seq = self._store.change(partial(WriteTransaction.edit, edit=edit), items=2)
            if seq is not None:
                return replace(patched, seq=seq)

    def delete(self, item_id: str, *, expected: Precondition = NO_PRECONDITION) -> None:
        """Delete one item, durably. Raises as ``patch``."""
        while True:
            item = self._item(item_id, expected)
            if self._store.change(partial(_delete_all, items=[item]), items=1):
                return

    def delete_where(
        self, wanted: Filter | None, *, up_to: int | None = None, at_most: int = CHUNK
    ) -> int:
        """Delete the first items for which ``wanted`` holds, and return how many: 0 at the end.

        Durable, in one transaction. An item that is changed between the look and the deletion is
        not deleted this time.

        Args:
            wanted: ``None``: every item.
            up_to: of items that were written after this operation none is deleted.
            at_most: of items.
        """
        while True:
            page = self._searcher.page(limit=at_most, filter=wanted)
            found = [item for item in page.items if up_to is None or item.seq <= up_to]
            if not found:
                return 0
            deleted = self._store.change(partial(_delete_all, items=found), items=len(found))
            if deleted:
                return deleted

    def _item(self, item_id: str, expected: Precondition) -> Item:
        check_id(item_id)
        item = self._store.items([item_id]).get(item_id)
        if item is None and expected.one_of is not None:
            raise unexpected_item(item_id, 0, expected)
        if item is None:
            raise UnknownIdError(f"no item has the id {quoted(item_id)}")
        if not expected.holds(item.seq):
            raise unexpected_item(item_id, item.seq, expected)
        return item


def unexpected_item(item_id: str, seq: int, expected: Precondition) -> ChangedItemError:
    """Return what is said where an item is not as ``expected``; ``seq`` 0: there is none."""
    if not seq:
        return ChangedItemError(f"no item has the id {quoted(item_id)}, and one was expected")
    if expected.none_of == "any":
        return ChangedItemError(f"there is an item {quoted(item_id)}, and none was expected")
    return ChangedItemError(
        f"the item {quoted(item_id)} is not what was expected: its seq is {seq} by now; read it "
        "again, and change what is there then"
    )


def _delete_all(transaction: WriteTransaction, *, items: Sequence[Item]) -> int:
    """Delete those of ``items`` that are as they were read, and return how many they are."""
    return sum(
        transaction.delete(item.id, expected=Precondition(one_of=frozenset([item.seq])))
        for item in items
    )
