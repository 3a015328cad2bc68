"""What a build stores of an item that is there already: a three-way merge of source and edits.

A build records what its source had for every item. What the source has now is compared with that
record, not with the item: so an edit of the item is no difference, and stays until the source
itself changes in the same place.
"""

from dataclasses import dataclass
from typing import Any, Final, NamedTuple, Self

from index.items.item import Item
from index.items.source_entries import PATH, ImageEntry

_NOTHING: Final = object()


@dataclass(frozen=True, slots=True)
class ItemState:
    """What an item is made of, beside its vector: as a source has it, or as it is stored."""

    content_sha256: str
    label: str | None
    metadata: dict[str, Any]

    @classmethod
    def stored(cls, item: Item) -> Self:
        """Return the state of a stored ``item``."""
        return cls(item.content_sha256, item.label, item.metadata)

    def before_records(self, item: Item) -> "ItemState":
        """Return what the source had for ``item``, built by a program that kept no records.

        Until version 0.4.0 builds took the first folder for the label, and stored the path alone.
        Any other label is an edit.
        """
        path = self.metadata.get(PATH)
        if not isinstance(path, str):
            return ItemState(item.content_sha256, self.label, self.metadata)
        first, *inner = path.split("/")
        label = first if inner else None
        return ItemState(
            item.content_sha256, label if label == item.label else self.label, {PATH: path}
        )


class BuildRecord(NamedTuple):
    """What a source had for an item when it was last built, and whether it was this source."""

    state: ItemState | None  # ``None``: purged, since the item was edited
    is_same_source: bool


@dataclass(frozen=True, slots=True)
class Decision:
    """What a build does with an entry."""

    entry: ImageEntry
    state: ItemState  # to be stored
    source_state: ItemState  # of the entry
    item: Item | None  # that is there
    is_new: bool  # the source's state is to be recorded

    @property
    def is_unchanged(self) -> bool:
        """Whether all is stored already."""
        return self.item is not None and self.state == ItemState.stored(self.item)

    @property
    def keeps_image(self) -> bool:
        """Whether the image that is stored stays."""
        return self.item is not None and self.state.content_sha256 == self.item.content_sha256

    @property
    def keeps_edits(self) -> bool:
        """Whether something else is stored than the source has."""
        return self.state != self.source_state


def known_contents(item: Item | None, record: BuildRecord | None) -> tuple[str, ...]:
    """Return the hashes of contents that change no image: with those a file need not be decoded."""
    if item is None:
        return ()
    recorded = () if record is None or record.state is None else (record.state.content_sha256,)
    return (item.content_sha256, *recorded)


def decide(
    entry: ImageEntry, content_sha256: str, item: Item | None, record: BuildRecord | None
) -> Decision:
    """Return what is to be stored of an entry, given what is stored and what is recorded."""
    source_state = ItemState(content_sha256, entry.label, entry.metadata)
    is_new = record is None or not record.is_same_source or record.state != source_state
    if item is None:
        return Decision(entry, source_state, source_state, item, is_new=is_new or item is None)
    before = source_state.before_records(item) if record is None else record.state or source_state
    return Decision(entry, merge(source_state, before, item), source_state, item, is_new=is_new)


def merge(new: ItemState, before: ItemState, item: Item) -> ItemState:
    """Return what is to be stored of ``item``: as it is, but for what changed in the source.

    A changed file brings its image, label and metadata with it. What the source never had stays
    in every case.

    Args:
        new: what the source has now.
        before: what it had when it was last built from.
        item: as it is stored, edits included.
    """
    changed = new.content_sha256 != before.content_sha256
    label = item.label
    if new.label != before.label or (changed and new.label is not None):
        label = new.label
    metadata = dict(item.metadata)
    for name in before.metadata.keys() | new.metadata.keys():
        value = new.metadata.get(name, _NOTHING)
        if not changed and value == before.metadata.get(name, _NOTHING):
            continue
        if value is _NOTHING:
            metadata.pop(name, None)
        else:
            metadata[name] = value
    return ItemState(new.content_sha256 if changed else item.content_sha256, label, metadata)
