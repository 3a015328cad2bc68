"""The truth of a gallery: items and a log of operations in SQLite, durable before acknowledged.

Every change is one transaction that writes the items and the operations that tell of it; readers
follow the log to keep what they hold in memory true.

Shape suffixes: N items, D vector width.
"""

import errno
import json
import secrets
import shutil
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Final, Literal, Self

import apsw
import numpy as np
from numpy.typing import NDArray

from index.changes import delete_item, last_seq, put_item
from index.database import Database, check_sqlite_version, sentences, sync_folder
from index.errors import (
    DiskFullError,
    GalleryFolderError,
    StorageError,
    UnknownIdError,
    VectorIndexError,
)
from index.filter import Filter, filter_sql
from index.items import Item, NewItem, PutResult, shown
from index.schema import DATABASE_NAME, Binding, check_format, read_meta, write_empty
from index.vectors import VECTOR_TYPE
from vision.thumbnail import Thumbnail

LOAD_ROWS: Final = 4096  # vectors decoded at a time while loading
_ITEM_COLUMNS: Final = "id, label, metadata, content_sha256, created, seq"


@dataclass(frozen=True, slots=True)
class Operation:
    """One line of the log."""

    seq: int
    kind: Literal["put", "delete"]
    key: int
    vector_D: NDArray[np.float32] | None  # of a put whose item is still there


class Store:
    """The database of one gallery folder. For any number of threads and processes."""

    def __init__(self, folder: Path, binding: Binding) -> None:
        self.folder = folder
        self.binding = binding
        self._database = Database(folder / DATABASE_NAME)
        self._poll = self._database.borrow()  # of its own: its commits would not count
        self._row_bytes = binding.width * VECTOR_TYPE.itemsize

    @classmethod
    def create(cls, folder: Path, binding: Binding) -> Self:
        """Return the store of a new gallery, complete or not there at all.

        Raises:
            GalleryFolderError: something is in the way.
            DiskFullError, StorageError: it cannot be written.
        """
        check_sqlite_version()
        _check_free(folder)
        there = folder.is_dir()  # empty, and perhaps a mount point, which cannot be replaced
        place = folder if there else folder.absolute().parent
        unfinished = place / f".{folder.name}.{secrets.token_hex(4)}"
        try:
            unfinished.mkdir(parents=True)
            write_empty(unfinished / DATABASE_NAME, binding)
            sync_folder(unfinished)
            if there:
                (folder / DATABASE_NAME).hardlink_to(unfinished / DATABASE_NAME)
            else:
                unfinished.rename(folder)  # like the link, this never replaces a rival's gallery
            sync_folder(place)
        except OSError as error:
            raise _cannot_create(folder, error) from error
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)  # not there any more when all went well
        return cls(folder, binding)

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Return the store of an existing gallery folder.

        Raises:
            GalleryFolderError: missing, damaged, or of another version.
            StorageError: it cannot be read or written.
        """
        return cls(folder, read_binding(folder))

    def put(self, items: Sequence[NewItem], *, upsert: bool, created: str) -> list[PutResult]:
        """Store checked ``items`` in one transaction and return what became of each, in order.

        Raises:
            DiskFullError, StorageError: nothing was written.
        """
        with self._database.writing() as writer:
            return [put_item(writer, item, upsert=upsert, created=created) for item in items]

    def delete(self, ids: Sequence[str]) -> list[bool]:
        """Delete in one transaction and return, per id, whether there was such an item.

        Raises:
            DiskFullError, StorageError: nothing was deleted.
        """
        with self._database.writing() as writer:
            return [delete_item(writer, item_id) for item_id in ids]

    def items(self, ids: Sequence[str]) -> dict[str, Item]:
        """Return the items among ``ids`` that are stored, by id."""
        sql = f"SELECT {_ITEM_COLUMNS} FROM items WHERE id IN (SELECT value FROM json_each(?))"
        with self._database.reading() as reader:
            items = [_item(row) for row in reader.execute(sql, (json.dumps(list(ids)),))]
        return {item.id: item for item in items}

    def items_by_key(self, keys: NDArray[np.int64]) -> dict[int, Item]:
        """Return the items among ``keys`` that are stored, by key."""
        wanted = "SELECT value FROM json_each(?)"
        sql = f"SELECT key, {_ITEM_COLUMNS} FROM items WHERE key IN ({wanted})"
        with self._database.reading() as reader:
            rows = reader.execute(sql, (json.dumps(keys.tolist()),))
            return {key: _item(columns) for key, *columns in rows}

    def page(self, *, after: int, limit: int, wanted: Filter) -> list[tuple[int, Item]]:
        """Return up to ``limit`` (key, item) with keys above ``after``, by key."""
        condition, parameters = filter_sql(wanted)
        sql = (
            f"SELECT key, {_ITEM_COLUMNS} FROM items WHERE key > ? AND {condition} "
            "ORDER BY key LIMIT ?"
        )
        with self._database.reading() as reader:
            rows = reader.execute(sql, (after, *parameters, limit))
            return [(key, _item(columns)) for key, *columns in rows]

    def keys(self, wanted: Filter, *, after: int) -> NDArray[np.int64]:
        """Return the keys above ``after`` of all items that ``wanted`` lets through: int64 (N,)."""
        condition, parameters = filter_sql(wanted)
        sql = f"SELECT key FROM items WHERE key > ? AND {condition}"
        with self._database.reading() as reader:
            rows = reader.execute(sql, (after, *parameters))
            return np.fromiter((key for (key,) in rows), np.int64)

    def vector(self, item_id: str) -> NDArray[np.float32]:
        """Return the vector (D,) of an item.

        Raises:
            UnknownIdError: there is no such item.
        """
        (data,) = self._row("SELECT v.data FROM items JOIN vectors v USING (key)", item_id)
        return self._vector(data)

    def thumbnail(self, item_id: str) -> Thumbnail:
        """Return the stored thumbnail of an item.

        Raises:
            UnknownIdError: there is no such item.
        """
        sql = "SELECT t.media_type, t.data FROM items JOIN thumbnails t USING (key)"
        media_type, data = self._row(sql, item_id)
        return Thumbnail(media_type, data)

    def operations(self, *, after: int, limit: int) -> list[Operation]:
        """Return up to ``limit`` operations with seqs above ``after``, by seq."""
        sql = (
            "SELECT o.seq, o.kind, o.key, v.data FROM operations o "
            "LEFT JOIN vectors v ON o.kind = 'put' AND v.key = o.key "
            "WHERE o.seq > ? ORDER BY o.seq LIMIT ?"
        )
        with self._database.reading() as reader:
            return [
                Operation(seq, kind, key, None if data is None else self._vector(data))
                for seq, kind, key, data in reader.execute(sql, (after, limit))
            ]

    def load(self) -> tuple[int, NDArray[np.int64], NDArray[np.float32]]:
        """Return the last seq and, as of it, all keys (N,), increasing, and vectors (N, D).

        Raises:
            GalleryFolderError: a vector is missing, or not of the gallery's width.
        """
        with self._database.reading() as reader:
            count = reader.execute("SELECT count(*) FROM items").get
            keys_N = np.empty(count, np.int64)
            vectors_ND = np.empty((count, self.binding.width), np.float32)
            loaded = 0
            cursor = reader.execute("SELECT key, data FROM vectors ORDER BY key")
            for rows in iter(lambda: list(islice(cursor, LOAD_ROWS)), []):
                stop = loaded + len(rows)
                if stop > count or any(len(data) != self._row_bytes for _, data in rows):
                    raise self._damaged()
                keys_N[loaded:stop] = [key for key, _ in rows]
                block = np.frombuffer(b"".join([data for _, data in rows]), VECTOR_TYPE)
                vectors_ND[loaded:stop] = block.reshape(len(rows), -1)
                loaded = stop
            if loaded != count:
                raise self._damaged()
            return last_seq(reader), keys_N, vectors_ND

    def reading(self) -> AbstractContextManager[apsw.Connection]:
        """Give the block a read-only connection that sees one unchanging state."""
        return self._database.reading()

    def writing(self) -> AbstractContextManager[apsw.Connection]:
        """Give the block a write transaction: until it ends nobody else, in any process, writes."""
        return self._database.writing()

    def data_version(self) -> int:
        """Return a number that differs after every commit of any process; one thread at a time.

        Costs about 6 microseconds.
        """
        with sentences(self._database.path):
            return int(self._poll.pragma("data_version"))

    def close(self) -> None:
        """Close all connections. Every later call raises StorageError."""
        self._database.close()

    def _row(self, sql: str, item_id: str) -> tuple[Any, ...]:
        with self._database.reading() as reader:
            for row in reader.execute(f"{sql} WHERE items.id = ?", (item_id,)):
                return tuple(row)
        raise UnknownIdError(f"no item has the id {shown(item_id)}")

    def _vector(self, data: bytes) -> NDArray[np.float32]:
        if len(data) != self._row_bytes:
            raise self._damaged()
        return np.frombuffer(data, VECTOR_TYPE)

    def _damaged(self) -> GalleryFolderError:
        return GalleryFolderError(
            f"{self.folder} is damaged: a vector is missing or does not have "
            f"{self.binding.width} numbers; verify lists which"
        )


def read_binding(folder: Path) -> Binding:
    """Return what model the gallery is bound to and how many items it has, without loading it.

    Raises:
        GalleryFolderError: missing, damaged, or of another version.
        StorageError: it cannot be read.
    """
    path = folder / DATABASE_NAME
    if not path.is_file():
        raise GalleryFolderError(f"{folder} is not a gallery: no {DATABASE_NAME} in it")
    database = Database(path)
    try:
        with database.reading() as reader:
            check_format(reader, path)
            return read_meta(reader, path)
    finally:
        database.close()


def _check_free(folder: Path) -> None:
    if not folder.is_dir() and (folder.exists() or folder.is_symlink()):
        raise GalleryFolderError(f"cannot create the gallery {folder}: a file is in the way")
    ours = (f".{folder.name}.", "lost+found")  # a rival's unfinished gallery; a file system's own
    if folder.is_dir() and not all(path.name.startswith(ours) for path in folder.iterdir()):
        raise GalleryFolderError(f"cannot create the gallery {folder}: the folder is not empty")


def _cannot_create(folder: Path, error: OSError) -> VectorIndexError:
    sentence = f"cannot create the gallery {folder}: {error.strerror}"
    if error.errno in (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR):
        return GalleryFolderError(sentence)
    return DiskFullError(sentence) if error.errno == errno.ENOSPC else StorageError(sentence)


def _item(columns: Sequence[Any]) -> Item:
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
        raise GalleryFolderError(f"the metadata of item {shown(item_id)} is damaged") from error
