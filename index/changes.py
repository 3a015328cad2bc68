"""The two changes a gallery knows, put and delete, each inside a write transaction of the caller.

The log tells of a replacement in two lines, first the new key, then the end of the old one: a
reader that stops between them finds a key that is gone, and reads on.
"""

import zlib
from typing import Final, Literal

import apsw

from index.items import NewItem, PutResult, encode_metadata
from index.vectors import VECTOR_TYPE

_FIND: Final = "SELECT key, label, metadata, content_sha256, seq FROM items WHERE id = ?"


def put_item(writer: apsw.Connection, item: NewItem, *, upsert: bool, created: str) -> PutResult:
    """Store a checked item, unless the same content, label and metadata are there already.

    With ``upsert`` off, an item whose id holds anything else is left as it is: ``conflict``.
    """
    metadata = encode_metadata(item.metadata)
    old = writer.execute(_FIND, (item.id,)).get
    if old is not None:
        old_key, *content, old_seq = old
        if content == [item.label, metadata, item.content_sha256]:
            return PutResult(item.id, "unchanged", old_seq)
        if not upsert:
            return PutResult(item.id, "conflict", old_seq)
        writer.execute("DELETE FROM items WHERE key = ?", (old_key,))
    seq = last_seq(writer) + 1
    writer.execute(
        "INSERT INTO items (id, label, metadata, content_sha256, created, seq) "
        "VALUES (?, ?, ?, ?, ?, ?)",
        (item.id, item.label, metadata, item.content_sha256, created, seq),
    )
    key = writer.last_insert_rowid()
    vector = item.vector_D.astype(VECTOR_TYPE).tobytes()
    thumbnail = item.thumbnail
    writer.execute("INSERT INTO vectors VALUES (?, ?, ?)", (key, vector, zlib.crc32(vector)))
    writer.execute(
        "INSERT INTO thumbnails VALUES (?, ?, ?, ?)",
        (key, thumbnail.media_type, thumbnail.data, zlib.crc32(thumbnail.data)),
    )
    _log(writer, "put", key)
    if old is None:
        return PutResult(item.id, "created", seq)
    return PutResult(item.id, "replaced", _log(writer, "delete", old_key))


def delete_item(writer: apsw.Connection, item_id: str) -> bool:
    """Delete an item and return whether there was one."""
    old = writer.execute(_FIND, (item_id,)).get
    if old is None:
        return False
    writer.execute("DELETE FROM items WHERE key = ?", (old[0],))
    _log(writer, "delete", old[0])
    return True


def last_seq(connection: apsw.Connection) -> int:
    """Return the seq of the newest operation ever logged, 0 before the first."""
    newest = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'operations'").get
    return int(newest or 0)


def _log(writer: apsw.Connection, kind: Literal["put", "delete"], key: int) -> int:
    writer.execute("INSERT INTO operations (kind, key) VALUES (?, ?)", (kind, key))
    return writer.last_insert_rowid()
