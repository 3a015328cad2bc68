"""The two changes a gallery knows, put and delete, each inside a write transaction of the caller.

The log tells of a replacement in two lines, first the new key, then the end of the old one: a
reader that stops between them finds a key that is gone, and reads on.
"""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

import apsw

from index.items.item import PutResult
from index.items.metadata_index import (
    MetadataEntry,
    add_metadata_entries,
    metadata_entries,
    remove_metadata_entries,
)
from index.items.preconditions import NO_PRECONDITION, Precondition
from index.items.prepared_item import NO_THUMBNAIL, PreparedItem
from index.store.build_origins import delete_record
from vision.image.thumbnail import Thumbnail

_FIND: Final = "SELECT key, seq, created, label, metadata, content_sha256 FROM items WHERE id = ?"
_FIND_BYTES: Final = (
    "SELECT v.data, t.media_type, t.data FROM items LEFT JOIN vectors v USING (key) "
    "LEFT JOIN thumbnails t USING (key) WHERE key = ?"
)
ENTRIES_PER_ITEM: Final = 64  # of the metadata index, to write them takes as long as the rest
_INSERT: Final = (
    "INSERT INTO items (key, id, label, metadata, content_sha256, created, seq) "
    "VALUES (?, ?, ?, ?, ?, ?, ?)"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Edit:
    """Another label and other metadata for an item that was read, and checked, before."""

    id: str
    seq: int  # of the item as it was read
    label: str | None
    metadata: str  # canonical JSON
    entries: frozenset[MetadataEntry]


def write_cost(items: Sequence[PreparedItem]) -> int:
    """Return what writing ``items`` costs, in items with little metadata."""
    return sum(1 + len(item.entries) // ENTRIES_PER_ITEM for item in items)


class WriteTransaction:
    """The changes of one write transaction, in the order of its calls.

    Nobody else can write meanwhile, so the next key and seq are read once and counted on from here.
    """

    def __init__(self, writer: apsw.Connection) -> None:
        self.writer = writer
        self._cursor = writer.cursor()
        used = dict(writer.execute("SELECT name, seq FROM sqlite_sequence"))
        self._key: int = used.get("items", 0)
        self._seq: int = used.get("operations", 0)
        self._seq_before: int = self._seq

    @property
    def logged(self) -> int:
        """How many operations were logged."""
        return self._seq - self._seq_before

    def put_all(
        self,
        items: Sequence[PreparedItem],
        *,
        upsert: bool,
        expected: Precondition = NO_PRECONDITION,
    ) -> list[PutResult]:
        """Store items one after another; an id that comes twice meets its earlier self."""
        return [self.put(item, upsert=upsert, expected=expected) for item in items]

    def put(
        self, item: PreparedItem, *, upsert: bool, expected: Precondition = NO_PRECONDITION
    ) -> PutResult:
        """Store an item, unless the same content, label and metadata are there already.

        Of an item that does not bring everything, the rest stays as it is stored.

        With ``upsert`` off, an item whose id holds anything else is left as it is: ``conflict``.
        So is one that is not what was ``expected``: ``unexpected``.
        """
        cursor = self._cursor
        old = cursor.execute(_FIND, (item.id,)).get
        if not expected.holds(None if old is None else old[1]):
            return PutResult(item.id, "unexpected", 0 if old is None else old[1])
        if old is not None:
            old_key, old_seq, _, *content = old
            is_same = content == [item.label, item.metadata, item.content_sha256]
            if item.provided is not None:
                item, is_same = self._completed(item, old)
            if is_same:
                return PutResult(item.id, "unchanged", old_seq)
            if not upsert:
                return PutResult(item.id, "conflict", old_seq)
            self._remove(old_key, content[1])
        key, seq = self._insert(
            item.id, item.label, item.metadata, item.content_sha256, item.created
        )
        vector, thumbnail = item.vector, item.thumbnail
        cursor.execute("INSERT INTO vectors VALUES (?, ?, ?)", (key, vector, zlib.crc32(vector)))
        cursor.execute(
            "INSERT INTO thumbnails VALUES (?, ?, ?, ?)",
            (key, thumbnail.media_type, thumbnail.data, zlib.crc32(thumbnail.data)),
        )
        add_metadata_entries(cursor, key, item.entries)
        self._log("put", key)
        if old is None:
            return PutResult(item.id, "created", seq)
        self._log("delete", old_key)
        return PutResult(item.id, "replaced", seq)

    def edit(self, edit: Edit) -> int | None:
        """Give an item another label and metadata, and return the seq it has now.

        ``None``: the item is not the one that was read, and stays as it is. Its vector and picture
        are written again as they lie there, with the sums that tell of damage.
        """
        cursor = self._cursor
        old = cursor.execute(_FIND, (edit.id,)).get
        if old is None or old[1] != edit.seq:
            return None
        old_key, _, created, _, metadata, content_sha256 = old
        lying = [
            (table, list(cursor.execute(f"SELECT * FROM {table} WHERE key = ?", (old_key,))))
            for table in ("vectors", "thumbnails")
        ]
        self._remove(old_key, metadata)
        key, seq = self._insert(edit.id, edit.label, edit.metadata, content_sha256, created)
        for table, rows in lying:
            for _, *columns in rows:
                marks = ", ?" * len(columns)
                cursor.execute(f"INSERT INTO {table} VALUES (?{marks})", (key, *columns))
        add_metadata_entries(cursor, key, edit.entries)
        self._log("put", key)
        self._log("delete", old_key)
        return seq

    def delete(self, item_id: str, *, expected: Precondition = NO_PRECONDITION) -> bool:
        """Delete an item and return whether there was one, and the one that was ``expected``."""
        old = self._cursor.execute(_FIND, (item_id,)).get
        if old is None or not expected.holds(old[1]):
            return False
        key, _, _, _, metadata, _ = old
        self._remove(key, metadata)
        delete_record(self._cursor, item_id)
        self._log("delete", key)
        return True

    def _completed(self, item: PreparedItem, old: tuple[Any, ...]) -> tuple[PreparedItem, bool]:
        """Return ``item`` with what it does not bring as stored, and whether nothing is new in it.

        A picture that is not brought stays, unless the source tells that its image is another one.
        """
        assert item.provided is not None
        key, _, created, label, metadata, content_sha256 = old
        ((vector, media_type, picture),) = self._cursor.execute(_FIND_BYTES, (key,))
        thumbnail = NO_THUMBNAIL if media_type is None else Thumbnail(media_type, picture)
        same_image = item.content_sha256 == content_sha256 or "content" not in item.provided
        kept: dict[str, Any] = {}
        if "label" not in item.provided:
            kept["label"] = label
        if "metadata" not in item.provided:
            kept |= {"metadata": metadata, "entries": frozenset(metadata_entries(metadata))}
        if "content" not in item.provided and vector == item.vector:
            kept["content_sha256"] = content_sha256
        if "picture" not in item.provided and same_image:
            kept["thumbnail"] = thumbnail
        if "created" not in item.provided:
            kept["created"] = created
        item = replace(item, **kept)
        content = (item.label, item.metadata, item.content_sha256, item.vector, item.thumbnail)
        return item, content == (label, metadata, content_sha256, vector, thumbnail)

    def _insert(self, *columns: str | None) -> tuple[int, int]:
        """Write the row of an item, and return its key and its seq, which is yet to be logged."""
        self._key += 1
        item_id, label, metadata, content_sha256, created = columns
        row = (self._key, item_id, label, metadata, content_sha256, created, self._seq + 1)
        self._cursor.execute(_INSERT, row)
        return self._key, self._seq + 1

    def _remove(self, key: int, metadata: str) -> None:
        self._cursor.execute("DELETE FROM items WHERE key = ?", (key,))
        remove_metadata_entries(self._cursor, key, metadata)

    def _log(self, kind: Literal["put", "delete"], key: int) -> int:
        self._seq += 1
        self._cursor.execute("INSERT INTO operations VALUES (?, ?, ?)", (self._seq, kind, key))
        return self._seq


def last_seq(connection: apsw.Connection) -> int:
    """Return the seq of the newest operation ever logged, 0 before the first."""
    newest = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'operations'").get
    return int(newest or 0)
