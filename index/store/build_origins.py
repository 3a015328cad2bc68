"""What builds have stored, from which source, and what the source had: recorded in the database.

The table is made by the first build that needs it; programs that do not know it leave it alone. A
row goes with its item, and outlives edits of it.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Final

import apsw

from index.items.source_edits import BuildRecord, ItemState
from index.store.schema import DATABASE_NAME
from index.store.sqlite.database import Database

_TABLE: Final = """
CREATE TABLE IF NOT EXISTS built (
    id TEXT PRIMARY KEY,           -- of an item
    source TEXT NOT NULL,          -- a digest of where it was built from
    content_sha256 TEXT NOT NULL,  -- of the file, as the source had it then; empty: purged
    label TEXT,                    -- as the source said
    metadata TEXT NOT NULL         -- likewise, a JSON object
) WITHOUT ROWID;
"""
_IS_THERE: Final = "SELECT 1 FROM sqlite_schema WHERE name = 'built'"
SOURCE_DIGITS: Final = 16
PURGED: Final = ""  # in the place of a content's digest


class BuildOrigins:
    """What the builds from one source had for the items of a gallery.

    A connection of its own: what it writes is no operation of the log, and no search sees it.
    """

    def __init__(self, gallery: Path, source: str) -> None:
        self._database = Database(gallery / DATABASE_NAME)
        self._source = hashlib.sha256(source.encode(errors="surrogateescape")).hexdigest()[
            :SOURCE_DIGITS
        ]

    def find(self, ids: Sequence[str]) -> dict[str, BuildRecord]:
        """Return the latest records of those of ``ids`` that any source has brought."""
        sql = (
            "SELECT id, source, content_sha256, label, metadata FROM built "
            "WHERE id IN (SELECT value FROM json_each(?))"
        )
        with self._database.reading() as reader:
            if reader.execute(_IS_THERE).get is None:
                return {}
            return {
                item_id: BuildRecord(_item_state(*state), source == self._source)
                for item_id, source, *state in reader.execute(sql, (json.dumps(list(ids)),))
            }

    def record(self, states: Mapping[str, ItemState]) -> None:
        """Record what this source has for items that have been stored.

        Raises:
            ReadOnlyError, DiskFullError, StorageError: nothing was recorded.
        """
        rows = [
            (
                item_id,
                self._source,
                state.content_sha256,
                state.label,
                json.dumps(state.metadata, ensure_ascii=False),
            )
            for item_id, state in states.items()
        ]
        # Only of items that are still there, and only what is news: a second build writes nothing.
        sql = (
            "INSERT INTO built SELECT ?1, ?2, ?3, ?4, ?5 WHERE EXISTS "
            "(SELECT 1 FROM items WHERE id = ?1) ON CONFLICT (id) DO UPDATE SET "
            "source = excluded.source, content_sha256 = excluded.content_sha256, "
            "label = excluded.label, metadata = excluded.metadata"
        )
        with self._database.writing() as writer:
            writer.execute(_TABLE)
            writer.executemany(sql, rows)

    def built_ids(self) -> Iterator[str]:
        """Give the ids of all items that this source was the last to bring, sorted."""
        sql = "SELECT id FROM built WHERE source = ? AND id IN (SELECT id FROM items) ORDER BY id"
        with self._database.reading() as reader:
            if reader.execute(_IS_THERE).get is not None:
                for (item_id,) in reader.execute(sql, (self._source,)):
                    yield item_id

    def close(self) -> None:
        """Close the connection."""
        self._database.close()


def purge_edited(gallery: Path) -> None:
    """Delete what is recorded of items that hold something else by now.

    The next build takes what it finds in the source for what was recorded: the edits stay.

    Raises:
        ReadOnlyError, DiskFullError, StorageError: nothing was changed.
    """
    sql = (
        "SELECT id, b.content_sha256, b.label, b.metadata, i.content_sha256, i.label, i.metadata "
        "FROM built b JOIN items i USING (id) WHERE b.content_sha256 <> ?"
    )
    with closing(Database(gallery / DATABASE_NAME)) as database, database.writing() as writer:
        if writer.execute(_IS_THERE).get is not None:
            edited = [
                (PURGED, item_id)
                for item_id, *states in writer.execute(sql, (PURGED,))
                if _item_state(*states[:3]) != _item_state(*states[3:])
            ]
            forget_it = "UPDATE built SET content_sha256 = ?, label = NULL, metadata = '{}' "
            writer.executemany(f"{forget_it} WHERE id = ?", edited)


def _item_state(content_sha256: str, label: str | None, metadata: str) -> ItemState | None:
    if content_sha256 == PURGED:
        return None
    return ItemState(content_sha256, label, json.loads(metadata))


def delete_record(cursor: apsw.Cursor, item_id: str) -> None:
    """Delete the record of an item, inside the transaction that deletes the item."""
    if cursor.execute(_IS_THERE).get is not None:
        cursor.execute("DELETE FROM built WHERE id = ?", (item_id,))
