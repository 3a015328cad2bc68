"""Looks for damage in a gallery. A store in, one sentence per fault out; nothing is changed.

Shape suffixes: N items, D vector width.
"""

import json
import zlib
from collections.abc import Iterator

import apsw
import numpy as np

from index.errors import BadVectorsError
from index.items.item import quoted
from index.items.metadata_index import metadata_index_faults
from index.search.exact import Rows
from index.search.vectors import VECTOR_TYPE, check_vectors
from index.snapshot.snapshot import Snapshot
from index.store.condition_queries import METADATA_INDEX_VERSION
from index.store.oplog import log_start
from index.store.store import Store
from index.store.transaction import last_seq


def store_problems(store: Store) -> list[str]:
    """Return every fault of the database: pages, vectors, thumbnails, metadata and its index, log.

    Reads all.

    Raises:
        GalleryFolderError: so damaged that it cannot be read to the end.
    """
    with store.reading() as reader:
        problems = [*_structure(reader), *_log(reader)]
        if reader.pragma("user_version") >= METADATA_INDEX_VERSION:  # before, nobody relies on it
            problems += metadata_index_faults(reader)
        for item_id, metadata, vector, vector_crc, *thumbnail in reader.execute(
            "SELECT i.id, i.metadata, v.data, v.crc32, t.media_type, t.data, t.crc32 FROM items i "
            "LEFT JOIN vectors v USING (key) LEFT JOIN thumbnails t USING (key) ORDER BY i.key"
        ):
            faults = [
                _vector_fault(vector, vector_crc, store.binding.width),
                _thumbnail_fault(*thumbnail),
                _metadata_fault(metadata),
            ]
            problems += [f"item {quoted(item_id)}: {fault}" for fault in faults if fault]
        return problems


def snapshot_problems(reader: apsw.Connection, snapshot: Snapshot) -> list[str]:
    """Return where the index in memory differs from the state that ``reader`` sees."""
    place_of: dict[int, tuple[Rows, int]] = {}
    for rows in (snapshot.immutable, snapshot.delta):
        if rows is not None:
            live = rows.live_rows()
            keys = rows.keys_N[live].tolist()
            place_of |= {key: (rows, row) for key, row in zip(keys, live.tolist(), strict=True)}
    problems = []
    for key, item_id, data in reader.execute(
        "SELECT i.key, i.id, v.data FROM items i LEFT JOIN vectors v USING (key) ORDER BY i.key"
    ):
        place = place_of.pop(key, None)
        if place is None:
            problems.append(f"item {quoted(item_id)}: stored, but the index does not know it")
        elif data != place[0].vectors_ND[place[1]].astype(VECTOR_TYPE).tobytes():
            problems.append(f"item {quoted(item_id)}: the index holds another vector")
    return problems + [f"key {key}: in the index, but not stored" for key in place_of]


def _structure(reader: apsw.Connection) -> Iterator[str]:
    for (message,) in reader.execute("PRAGMA integrity_check"):
        if message != "ok":
            yield f"the database is damaged: {message}"
    for table, rowid, *_ in reader.execute("PRAGMA foreign_key_check"):
        yield f"{table}: row {rowid} belongs to no item"


def _log(reader: apsw.Connection) -> Iterator[str]:
    """The log's puts without its deletes must be the items, each under the seq it names.

    Of items older than a cut log only the deletes can be missed.
    """
    start, newest = log_start(reader), last_seq(reader)
    kept = reader.execute("SELECT count(*) FROM operations WHERE seq > ?", (start,)).get
    if reader.execute("SELECT count(*) FROM operations").get != kept or newest - start != kept:
        yield f"the log does not hold just the operations {start + 1} to {newest}"
    puts = "SELECT key FROM operations WHERE kind = 'put'"
    deletes = "SELECT key FROM operations WHERE kind = 'delete'"
    for (key,) in reader.execute(f"{puts} EXCEPT {deletes} EXCEPT SELECT key FROM items"):
        yield f"key {key}: logged as stored, but there is no such item"
    for item_id, deleted in reader.execute(
        f"SELECT i.id, i.key IN ({deletes}) FROM items i "
        "LEFT JOIN operations o ON o.seq = i.seq AND o.key = i.key "
        f"WHERE (i.seq > ? AND o.kind IS NOT 'put') OR i.key IN ({deletes})",
        (start,),
    ):
        what = "as deleted" if deleted else "nowhere"
        yield f"item {quoted(item_id)}: stored, but logged {what}"


def _vector_fault(data: bytes | None, crc32: int, width: int) -> str | None:
    if data is None:
        return "has no vector"
    if len(data) != width * VECTOR_TYPE.itemsize:
        return f"its vector has {len(data)} bytes, not {width * VECTOR_TYPE.itemsize}"
    try:
        check_vectors(np.frombuffer(data, VECTOR_TYPE).reshape(1, -1), width=width)
    except BadVectorsError as error:
        return f"its vector is damaged: {error}"
    return None if zlib.crc32(data) == crc32 else "its vector was changed: the checksum differs"


def _thumbnail_fault(media_type: str | None, data: bytes | None, crc32: int) -> str | None:
    if data is None:
        return "has no thumbnail"
    if bool(media_type) != bool(data):  # both are empty where there is no picture
        return "its thumbnail was changed: its type and its bytes disagree"
    return None if zlib.crc32(data) == crc32 else "its thumbnail was changed: the checksum differs"


def _metadata_fault(text: str) -> str | None:
    try:
        value = json.loads(text)
    except ValueError:
        return "its metadata is not JSON"
    return None if isinstance(value, dict) else "its metadata is not a JSON object"
