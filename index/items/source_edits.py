"""What a build stores of an item that is there already: the source's news and a person's edits.

A build remembers what its source said of every item. What the source says now is compared with
that, not with the item: so an edit of the item is no difference, and lives on until the source has
something new to say about the same thing.
"""

from dataclasses import dataclass
from typing import Any, Final, NamedTuple, Self

from index.items.item import Item
from index.items.source_entries import PATH, ImageEntry

_NOTHING: Final = object()


@dataclass(frozen=True, slots=True)
class ItemState:
    """What a source says of an item."""

    content_sha256: str
    label: str | None
    metadata: dict[str, Any]

    @classmethod
    def of(cls, entry: ImageEntry, content_sha256: str) -> Self:
        """Return what ``entry`` says."""
        return cls(content_sha256, entry.label, entry.metadata)

    @classmethod
    def stored(cls, item: Item) -> Self:
        """Return what ``item`` holds."""
        return cls(item.content_sha256, item.label, item.metadata)

    def before_records(self, item: Item) -> "ItemState":
        """Return what was said of ``item``, stored by a program that did not remember it.

        Until version 0.4.0 builds took the first folder for the label, and told the path alone.
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
    """What was said of an item, and whether the same source said it."""

    state: ItemState | None  # ``None``: purged, since the item was edited
    is_ours: bool


@dataclass(frozen=True, slots=True)
class Decision:
    """What a build makes of an entry."""

    entry: ImageEntry
    state: ItemState  # to be stored
    source_state: ItemState  # by the entry
    item: Item | None  # that is there
    is_new: bool  # what is said is to be remembered

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
        """Whether something else is stored than the entry says."""
        return self.state != self.source_state


def known_contents(item: Item | None, record: BuildRecord | None) -> tuple[str, ...]:
    """Return the hashes of contents that change no image: with those a file need not be decoded."""
    if item is None:
        return ()
    source_state = () if record is None or record.state is None else (record.state.content_sha256,)
    return (item.content_sha256, *source_state)


def decide(
    entry: ImageEntry, content_sha256: str, item: Item | None, record: BuildRecord | None
) -> Decision:
    """Return what is to be stored of an entry, given what is there and what was said of it."""
    source_state = ItemState.of(entry, content_sha256)
    is_new = record is None or not record.is_ours or record.state != source_state
    if item is None:
        return Decision(entry, source_state, source_state, item, is_new=is_new or item is None)
    before = source_state.before_records(item) if record is None else record.state or source_state
    return Decision(entry, merge(source_state, before, item), source_state, item, is_new=is_new)


def merge(new: ItemState, before: ItemState, item: Item) -> ItemState:
    """Return what is to be stored of ``item``: as it is, but for what is new.

    A changed file brings its image, label and metadata with it. What the source never said stays
    in every case.

    Args:
        new: what the source says now.
        before: what it said when it was last built from.
        item: as it is stored, edits included.
    """
    changed = new.content_sha256 != before.content_sha256
    label = item.label
    if new.label != before.label or (changed and new.label is not None):
        label = new.label
    metadata = dict(item.metadata)
    for name in before.metadata.keys() | new.metadata.keys():
        source_state = new.metadata.get(name, _NOTHING)
        if not changed and source_state == before.metadata.get(name, _NOTHING):
            continue
        if source_state is _NOTHING:
            metadata.pop(name, None)
        else:
            metadata[name] = source_state
    return ItemState(new.content_sha256 if changed else item.content_sha256, label, metadata)
