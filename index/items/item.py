"""What a gallery stores and gives back, and what it refuses to store."""

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dataset.text import CONTROL
from index.errors import (
    GalleryFolderError,
    InvalidMetadataError,
)
from index.items.metadata_index import MetadataEntry, metadata_entries, nfc
from index.search.index_spec import Kind
from vision.image.thumbnail import Thumbnail

NOT_TEXT: Final = re.compile("[\0\ud800-\udfff]")  # SQLite would end or refuse the text here
MAX_LABEL_CHARS: Final = 256
MAX_METADATA_BYTES: Final = 16 * 1024  # as UTF-8 JSON
MAX_METADATA_DEPTH: Final = 16  # objects and arrays inside one another
MAX_METADATA_VALUES: Final = 512  # values in metadata; 1,000 items of so many are 1.5 s of writing
MAX_NAME_CHARS: Final = 64 * 1024  # of their names, each with the names of the objects around it
INT64: Final = 2**63  # SQLite compares integers of this range exactly

ITEM_COLUMNS: Final = "id, label, metadata, content_sha256, created, seq"  # of the table items

Outcome = Literal["created", "unchanged", "replaced", "conflict", "unexpected"]
# What an item has beside its id and vector.
ItemField = Literal["label", "metadata", "picture", "content", "created"]


class EncodedMetadata(NamedTuple):
    """Metadata that was checked, as it is stored and as filters look for it."""

    text: str  # canonical JSON
    entries: frozenset[MetadataEntry]


NO_METADATA: Final = EncodedMetadata("{}", frozenset())


@dataclass(frozen=True, slots=True, kw_only=True)
class NewItem:
    """One image to store, already embedded; or a vector without an image."""

    id: str
    vector_D: NDArray[np.float32]  # unit length
    label: str | None
    metadata: Mapping[str, Any] | EncodedMetadata  # a JSON object
    thumbnail: Thumbnail | None
    content_sha256: str  # hexadecimal, of the encoded image; without one, of the vector's bytes
    created: str | None = None  # ISO 8601, UTC; ``None``: now
    # Of an import: the fields that its source has. The others stay as they are stored.
    provided: frozenset[ItemField] | None = None  # None: all


@dataclass(frozen=True, slots=True)
class PutResult:
    """What became of one item."""

    id: str
    outcome: Outcome
    seq: int  # the operation that wrote the item as it is now; 0: there is none


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One stored image, without its vector and thumbnail."""

    id: str
    label: str | None
    metadata: dict[str, Any]
    content_sha256: str
    created: str  # ISO 8601, UTC
    seq: int  # the operation that wrote it


@dataclass(frozen=True, slots=True)
class Page:
    """Some items in the order they were stored, and where to go on."""

    items: list[Item]
    next_cursor: str | None  # ``None`` after the last page


class Hit(NamedTuple):
    """One answer to a query."""

    id: str
    score: float  # cosine similarity in [-1, 1]; higher is nearer
    label: str | None
    metadata: dict[str, Any]  # shared with other answers: not to be changed


class QueryItem(NamedTuple):
    """The stored item that a query asks by, and its vector (D,) as it was read."""

    id: str
    vector_D: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class SearchResult:
    """The hits of every query, best first."""

    hits: list[list[Hit]]
    seq: int  # every operation up to this one was seen


@dataclass(frozen=True, slots=True)
class RangeResult:
    """The items that score enough, best first, perhaps the first of them only."""

    hits: list[Hit]
    total: int  # that score enough
    seq: int  # every operation up to this one was seen


@dataclass(frozen=True, slots=True, kw_only=True)
class GalleryInfo:
    """A gallery at a glance."""

    name: str
    count: int  # items
    seq: int  # newest operation in memory
    structure: Kind
    recall: float | None  # of the structure, measured on held-out items when it was built
    recall_low: float | None  # with 95 % confidence it is no lower; None: not known
    recall_high: float | None  # with 95 % confidence it is no higher
    recall_queries: int  # that it was measured with; 0: everything is scanned, or it is not known
    note: str | None  # what a person should know about how searches are answered, a sentence
    generation: int  # of the structure; 0: there is none, everything is scanned
    recent: int  # items stored since, which are scanned
    state: Literal["writable", "read-only"]
    reason: str | None  # why it is read-only
    model_name: str
    fingerprint: str
    width: int
    bytes_on_disk: int


def read_item(columns: Sequence[Any]) -> Item:
    """Return the item that a row with ``ITEM_COLUMNS`` describes.

    Raises:
        GalleryFolderError: its metadata is not JSON.
    """
    item_id, label, metadata, content_sha256, created, seq = columns
    try:
        return Item(
            id=item_id,
            label=label,
            metadata=json.loads(metadata),
            content_sha256=content_sha256,
            created=created,
            seq=seq,
        )
    except ValueError as error:
        raise GalleryFolderError(f"the metadata of item {quoted(item_id)} is damaged") from error


def check_label(label: str | None) -> None:
    """Accept no label, or 1 to 256 characters, not only spaces, without control characters.

    Raises:
        InvalidMetadataError: anything else.
    """
    if label is None:
        return
    if not isinstance(label, str) or not label.strip() or len(label) > MAX_LABEL_CHARS:
        raise InvalidMetadataError(
            f"a label has 1 to {MAX_LABEL_CHARS} characters, not only spaces, got {quoted(label)}"
        )
    if CONTROL.search(label):
        raise InvalidMetadataError(f"a label has no control characters, got {quoted(label)}")


def clean_label(label: str | None) -> str | None:
    """Return ``label`` as it is stored: composed (NFC), without white space around it."""
    return None if label is None else nfc(label).strip()


def encode_metadata(metadata: Mapping[str, Any] | EncodedMetadata) -> EncodedMetadata:
    """Return ``metadata`` as canonical JSON text: equal objects give equal text.

    What was encoded already comes back as it is.

    Raises:
        InvalidMetadataError: not a JSON object, not finite, nested deeper than 16, an integer
            beyond 64 bits, text that is not Unicode, more than 16 KiB as JSON, or more than 512
            values.
    """
    if isinstance(metadata, EncodedMetadata):
        return metadata
    if not isinstance(metadata, Mapping):
        raise InvalidMetadataError(f"metadata must be a JSON object, got {quoted(metadata)}")
    _check_json(dict(metadata), depth=1, room=MAX_METADATA_BYTES)
    text = json.dumps(
        dict(metadata), ensure_ascii=False, sort_keys=True, separators=(",", ":"), allow_nan=False
    )
    size = len(text.encode())
    if size > MAX_METADATA_BYTES:
        raise InvalidMetadataError(
            f"metadata has {size} bytes as JSON; at most {MAX_METADATA_BYTES} are allowed"
        )
    entries = metadata_entries(text)
    _check_values(entries)
    return EncodedMetadata(text, frozenset(entries))


def quoted(value: object) -> str:
    """Return ``value`` short enough, and plain enough, for a sentence."""
    text = ascii(value)
    return text if len(text) <= 60 else f"{text[:57]}..."  # noqa: PLR2004 (a line's worth)


def is_text(value: str) -> bool:
    """Whether SQLite can hold ``value`` unchanged: no NUL, no lone surrogate."""
    return not NOT_TEXT.search(value)


def _check_values(entries: set[MetadataEntry]) -> None:
    """Refuse what would keep other writers waiting: each entry is a row of an index."""
    if len(entries) > MAX_METADATA_VALUES:
        raise InvalidMetadataError(
            f"metadata has {len(entries)} values that filters can look for, elements of arrays "
            f"counted each; at most {MAX_METADATA_VALUES} are allowed"
        )
    chars = sum(len(name) for name, _, _ in entries)
    if chars > MAX_NAME_CHARS:
        raise InvalidMetadataError(
            f"the names of the metadata's values have {chars} characters, those of the objects "
            f"around them included; at most {MAX_NAME_CHARS} are allowed"
        )


def _check_json(value: object, *, depth: int, room: int) -> int:
    """Return how many of the bytes that there is ``room`` for the value leaves, at most."""
    if room <= 0:
        raise InvalidMetadataError(f"metadata has more than {MAX_METADATA_BYTES} bytes as JSON")
    room -= 1
    if depth > MAX_METADATA_DEPTH:
        raise InvalidMetadataError(f"metadata is nested deeper than {MAX_METADATA_DEPTH} levels")
    if isinstance(value, dict):
        for key, member in value.items():
            if not isinstance(key, str) or not is_text(key):
                raise InvalidMetadataError(f"metadata keys must be text, got {quoted(key)}")
            room = _check_json(member, depth=depth + 1, room=room - len(key))
    elif isinstance(value, list):
        for element in value:
            room = _check_json(element, depth=depth + 1, room=room)
    elif isinstance(value, str):
        room -= len(value)
        if not is_text(value):
            raise InvalidMetadataError(f"metadata text must be Unicode, got {quoted(value)}")
    elif value is not None and not isinstance(value, bool) and not is_number(value):
        raise InvalidMetadataError(
            "metadata holds text, finite numbers (whole ones of 64 bits), booleans, null, arrays "
            f"and objects, got {quoted(value)}"
        )
    return room


def is_number(value: object) -> bool:
    """Whether ``value`` is a finite number, of 64 bits if an integer, and not a boolean."""
    if isinstance(value, bool):
        return False
    if isinstance(value, int):
        return -INT64 <= value < INT64
    return isinstance(value, float) and math.isfinite(value)
