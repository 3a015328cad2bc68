"""The truth of a gallery: items and a log of operations in SQLite, durable before acknowledged.

Every change is part of one transaction that writes the items and the operations that tell of it;
readers follow the log to keep what they hold in memory true.

Shape suffixes: N items, D vector width.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Self, TypeVar
from uuid import uuid4

import apsw
import numpy as np
from numpy.typing import NDArray

from index.errors import GalleryFolderError, NoThumbnailError, UnknownIdError
from index.items.filter import Condition
from index.items.item import ITEM_COLUMNS, Item, NewItem, PutResult, quoted, read_item
from index.items.preconditions import NO_PRECONDITION, Precondition
from index.items.prepared_item import NO_THUMBNAIL, PreparedItem
from index.search.vectors import decode_vector
from index.store.bulk_read import load_vectors
from index.store.condition_queries import condition_keys
from index.store.create import fill_folder
from index.store.group_commit import MAX_ITEMS, GroupWriter
from index.store.migration import migrate
from index.store.oplog import Operation, cut_operations, log_start, read_operations
from index.store.schema import (
    DATABASE_NAME,
    Binding,
    check_format,
    check_setting,
    read_meta,
    read_setting,
    write_empty,
    write_setting,
)
from index.store.sqlite.database import Database, translate_errors
from index.store.transaction import WriteTransaction, last_seq, write_cost
from vision.image.thumbnail import Thumbnail

T = TypeVar("T")


class Store:
    """The database of one gallery folder. For any number of threads and processes."""

    def __init__(self, folder: Path, binding: Binding) -> None:
        self.folder = folder
        self.binding = binding
        self._database = Database(folder / DATABASE_NAME)
        self._writer = GroupWriter(self._database)
        try:
            self._poll = self._database.borrow()  # of its own: its commits would not count
        except BaseException:
            self._database.close()
            raise

    @classmethod
    def create(cls, folder: Path, binding: Binding) -> Self:
        """Return the store of a new gallery, complete or not there at all.

        Raises:
            GalleryFolderError: something is in the way.
            DiskFullError, StorageError: it cannot be written.
        """
        binding = replace(binding, database_id=uuid4().hex)
        fill_folder(folder, lambda path: write_empty(path, binding))
        return cls(folder, binding)

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Return the store of an existing gallery folder, brought up to the present format.

        Raises:
            GalleryFolderError: missing, damaged, or of another version.
            DiskFullError, StorageError: it cannot be read or written; it is as it was.
        """
        migrate(_database_path(folder))
        return cls(folder, read_binding(folder))

    @property
    def read_only_reason(self) -> str | None:
        """Why nothing can be written, a sentence; ``None`` while writing goes on."""
        return self._database.read_only_reason

    def check_files(self) -> str | None:
        """Be read-only while the gallery is not where it was opened, and say what is missing."""
        return self._database.check_files()

    def after_commits(self, work: Callable[[], object]) -> None:
        """Have ``work`` done after each commit, before its callers hear; they get its errors."""
        self._writer.on_commit = work

    def put(
        self,
        items: Sequence[NewItem],
        *,
        upsert: bool,
        created: str,
        expected: Precondition = NO_PRECONDITION,
    ) -> list[PutResult]:
        """Store ``items``, all or none, and return what became of each, in order.

        Callers on several threads share transactions; all of them get the error of one.

        Raises:
            InvalidIdError, InvalidMetadataError, BadVectorsError: nothing was written.
            ReadOnlyError, DiskFullError: nothing was written.
            StorageError: nothing was written; or, on an I/O error, perhaps all: read-only from now.
        """
        width = self.binding.width
        prepared = [PreparedItem.of(item, width=width, created=created) for item in items]
        put = partial(WriteTransaction.put_all, items=prepared, upsert=upsert, expected=expected)
        return self._writer.run(put, items=write_cost(prepared))

    def delete(self, ids: Sequence[str]) -> list[bool]:
        """Delete all or none and return, per id, whether there was such an item.

        Raises as ``put``.
        """
        return self.change(
            lambda transaction: [transaction.delete(item_id) for item_id in ids], items=len(ids)
        )

    def change(self, work: Callable[[WriteTransaction], T], *, items: int) -> T:
        """Do ``work``, which touches so many ``items``, in a transaction. Raises as ``put``."""
        return self._writer.run(work, items=items)

    def items(self, ids: Sequence[str]) -> dict[str, Item]:
        """Return the items among ``ids`` that are stored, by id."""
        sql = f"SELECT {ITEM_COLUMNS} FROM items WHERE id IN (SELECT value FROM json_each(?))"
        items = [read_item(row) for row in self._rows(sql, json.dumps(list(ids)))]
        return {item.id: item for item in items}

    def items_by_key(self, keys: NDArray[np.int64]) -> dict[int, Item]:
        """Return the items among ``keys`` that are stored, by key."""
        sql = f"SELECT key, {ITEM_COLUMNS} FROM items WHERE key IN (SELECT value FROM json_each(?))"
        rows = self._rows(sql, json.dumps(keys.tolist()))
        return {key: read_item(columns) for key, *columns in rows}

    def page(self, *, after: int, limit: int) -> list[tuple[int, Item]]:
        """Return up to ``limit`` (key, item) with keys above ``after``, by key."""
        sql = f"SELECT key, {ITEM_COLUMNS} FROM items WHERE key > ? ORDER BY key LIMIT ?"
        return [(key, read_item(columns)) for key, *columns in self._rows(sql, after, limit)]

    def condition_keys(self, condition: Condition, *, after: int) -> NDArray[np.int64]:
        """Return the keys above ``after`` that ``selection.condition_keys`` says: int64 (N,)."""
        with self._database.reading() as reader:
            return condition_keys(reader, condition, after=after)

    def vector(self, item_id: str) -> tuple[int, NDArray[np.float32]]:
        """Return the key and the vector (D,) of an item; raises UnknownIdError."""
        key, data = self._row("SELECT key, v.data FROM items JOIN vectors v USING (key)", item_id)
        return key, decode_vector(data, width=self.binding.width)

    def vectors(self, ids: Sequence[str]) -> dict[str, NDArray[np.float32]]:
        """Return the vectors (D,) of those of ``ids`` that are stored, by id."""
        sql = "SELECT id, v.data FROM items JOIN vectors v USING (key) WHERE id IN "
        rows = self._rows(f"{sql}(SELECT value FROM json_each(?))", json.dumps(list(ids)))
        return {name: decode_vector(data, width=self.binding.width) for name, data in rows}

    def thumbnail(self, item_id: str) -> Thumbnail:
        """Return the stored thumbnail of an item.

        Raises:
            UnknownIdError: there is no such item.
            NoThumbnailError: it was stored without a picture.
        """
        sql = "SELECT t.media_type, t.data FROM items JOIN thumbnails t USING (key)"
        thumbnail = Thumbnail(*self._row(sql, item_id))
        if thumbnail == NO_THUMBNAIL:
            raise NoThumbnailError(
                f"the item {quoted(item_id)} was stored as a vector, without a picture"
            )
        return thumbnail

    def operations(self, *, after: int, limit: int) -> list[Operation]:
        """Return up to ``limit`` operations with seqs above ``after``, by seq; or LogCutError."""
        with self._database.reading() as reader:
            return read_operations(reader, after=after, limit=limit, width=self.binding.width)

    def log_start(self) -> int:
        """Return the seq up to and including which operations have been cut from the log."""
        with self._database.reading() as reader:
            return log_start(reader)

    def cut_log(self, up_to: int) -> int:
        """Delete the operations up to and including the seq ``up_to``, and return how many.

        In transactions of a few milliseconds each; others write between them. The last seq stays.

        Raises:
            ReadOnlyError, DiskFullError, StorageError: a part may have been cut.
        """
        cut, more = 0, True
        while more:
            count, more = self._writer.run(
                lambda transaction: cut_operations(transaction.writer, up_to=up_to), items=MAX_ITEMS
            )
            cut += count
        return cut

    def last_seq(self) -> int:
        """Return the seq of the newest operation ever logged, 0 before the first."""
        with self._database.reading() as reader:
            return last_seq(reader)

    def count(self) -> int:
        """Return the number of items; a few milliseconds for a million."""
        return int(self._rows("SELECT count(*) FROM items")[0][0])

    def setting(self, name: str) -> str | None:
        """Return what ``name`` was last set to, ``None`` before that; ValueError: no such name."""
        with self._database.reading() as reader:
            return read_setting(reader, name)

    def set_setting(self, name: str, value: str) -> None:
        """Remember one setting, as ``set_settings`` does."""
        self.set_settings({name: value})

    def set_settings(self, settings: Mapping[str, str]) -> None:
        """Remember value by name, durably and for all processes; that moves ``data_version``.

        Raises:
            ValueError: a name that is empty, or that the gallery itself uses; nothing is changed.
            ReadOnlyError, DiskFullError, StorageError: nothing is changed.
        """
        for name in settings:
            check_setting(name)

        def write(transaction: WriteTransaction) -> None:
            for name, value in settings.items():
                write_setting(transaction.writer, name, value)

        self._writer.run(write, items=1)

    def load(self) -> tuple[int, NDArray[np.int64], NDArray[np.float32]]:
        """Return the last seq and, as of it, all keys (N,), increasing, and vectors (N, D).

        Raises:
            GalleryFolderError: a vector is missing, or not of the gallery's width.
        """
        with self._database.reading() as reader:
            return last_seq(reader), *load_vectors(reader, width=self.binding.width)

    def reading(self) -> AbstractContextManager[apsw.Connection]:
        """Give the block a read-only connection that sees one unchanging state."""
        return self._database.reading()

    def writing(self) -> AbstractContextManager[apsw.Connection]:
        """Give the block a write transaction: until it ends nobody else, in any process, writes."""
        return self._database.writing()

    def data_version(self) -> int:
        """Return a number that every commit changes, in 6 microseconds; one thread at a time."""
        with translate_errors(self._database.path):
            return int(self._poll.pragma("data_version"))

    def close(self) -> None:
        """Close all connections. Every later call raises StorageError."""
        self._writer.on_commit = lambda: None  # it leads back here: a circle keeps files mapped
        self._database.close()

    def _rows(self, sql: str, *parameters: str | int) -> list[tuple[Any, ...]]:
        with self._database.reading() as reader:
            return reader.execute(sql, parameters).fetchall()

    def _row(self, sql: str, item_id: str) -> tuple[Any, ...]:
        rows = self._rows(f"{sql} WHERE items.id = ?", item_id)
        if not rows:
            raise UnknownIdError(f"no item has the id {quoted(item_id)}")
        return rows[0]


def read_binding(folder: Path) -> Binding:
    """Return what model the gallery is bound to and how many items it has, without loading it.

    Raises:
        GalleryFolderError: missing, damaged, or of another version.
        StorageError: it cannot be read.
    """
    path = _database_path(folder)
    with closing(Database(path)) as database, database.reading() as reader:
        check_format(reader, path)
        return read_meta(reader, path)


def _database_path(folder: Path) -> Path:
    path = folder / DATABASE_NAME
    if not path.is_file():
        raise GalleryFolderError(f"{folder} is not a gallery: no {DATABASE_NAME} in it")
    return path
