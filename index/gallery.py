"""A gallery folder: stored images of one model, durable in SQLite, searched in memory.

Shape suffixes: Q queries, D vector width.
"""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from index.errors import UnknownIdError
from index.items.filter import Filter
from index.items.ids import check_id
from index.items.item import (
    GalleryInfo,
    Item,
    Itself,
    NewItem,
    Page,
    PutResult,
    RangeResult,
    SearchResult,
    shown,
)
from index.maintenance.maintenance import Upkeep
from index.query.counting import Counting
from index.query.editing import Editing
from index.query.result_selection import EVERY_ITEM, ResultSelection
from index.query.searcher import Searcher
from index.snapshot.follower import Follower
from index.snapshot.segments.generations import Generations
from index.store.schema import Binding
from index.store.store import Store
from index.store.thumbnail_size import PictureSize
from vision.image.thumbnail import Thumbnail


class Gallery:
    """Images stored under ids, found by what they look like.

    SQLite holds the truth; an index in memory answers searches. The log of operations is all that
    ever moves the index: this object's writes and those of other threads and processes arrive by
    the same road, ``catch_up``. All methods may be called from any number of threads.
    """

    def __init__(self, store: Store, *, clock: Callable[[], datetime]) -> None:
        self._store = store
        self._generations = Generations.of(store)
        self._follower = Follower(store, self._generations)
        store.after_commits(self._follower.catch_up)
        self._searcher = Searcher(store, self._follower)
        self.counting = Counting(store, self._searcher)
        self.editing = Editing(store, self._searcher, clock=clock)
        self.pictures = PictureSize(store)
        self.upkeep = Upkeep(store, self._generations, self._follower)

    @classmethod
    def create(
        cls,
        folder: Path,
        *,
        model_name: str,
        fingerprint: str,
        width: int,
        model_folder: Path | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> Self:
        """Return a new, empty gallery for the vectors of one model.

        Args:
            folder: must not exist, or be empty; parents are made.
            model_name, fingerprint, width: of the model, as in ``Binding``.
            model_folder: remembered as a hint for commands that are not told the model.
            clock: the time to write beside each item, also by ``open``.

        Raises:
            GalleryFolderError: something is in the way; it stays as it is.
            DiskFullError, StorageError: it cannot be written; nothing is left behind.
        """
        binding = Binding(
            model_name=model_name,
            fingerprint=fingerprint,
            width=width,
            model_folder=None if model_folder is None else str(model_folder.absolute()),
        )
        return cls(Store.create(folder, binding), clock=clock)

    @classmethod
    def open(
        cls,
        folder: Path,
        *,
        fingerprint: str | None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> Self:
        """Return the gallery in ``folder``, all its vectors loaded.

        ``fingerprint`` is that of the model that makes the queries; ``None`` leaves it unchecked.

        Raises:
            ModelMismatchError: the gallery holds vectors of another model.
            GalleryFolderError: missing, damaged, or of another version.
            StorageError: it cannot be read.
        """
        store = Store.open(folder)
        try:
            if fingerprint is not None:
                store.binding.check(fingerprint, folder)
            return cls(store, clock=clock)
        except BaseException:
            store.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def binding(self) -> Binding:
        """The model this gallery belongs to, as read when it was opened."""
        return self._store.binding

    @property
    def folder(self) -> Path:
        """Where the gallery lies."""
        return self._store.folder

    @property
    def seq(self) -> int:
        """Every operation up to this one is in memory."""
        return self._follower.snapshot.seq

    @property
    def count(self) -> int:
        """Items in memory."""
        return self._follower.snapshot.count

    @property
    def read_only_reason(self) -> str | None:
        """Why nothing can be stored, a sentence; ``None``: it can."""
        return self._store.read_only_reason

    def put(self, items: Sequence[NewItem], *, upsert: bool = True) -> list[PutResult]:
        """Store ``items`` in one durable transaction; when this returns, searches find them.

        An item whose content, label and metadata are stored already is ``unchanged``. An id that
        holds anything else is ``replaced``, or with ``upsert`` off a ``conflict`` that leaves it as
        it is. An id that comes twice meets its earlier self.

        Raises:
            InvalidIdError, InvalidMetadataError, BadVectorsError: an item is not storable.
            DiskFullError, StorageError: it cannot be written.
            In every case nothing is stored, not even the other items. (Should only reading back
            fail, all is stored; putting the items again is harmless and says ``unchanged``.)
        """
        return self.editing.put(items, upsert=upsert)

    def delete(self, ids: Sequence[str]) -> list[bool]:
        """Delete in one durable transaction; return, per id, whether there was such an item.

        Raises:
            InvalidIdError: not an id. Nothing is deleted.
            DiskFullError, StorageError: not written. Nothing is deleted.
        """
        for item_id in ids:
            check_id(item_id)
        return self._store.delete(ids)

    def get(self, item_id: str) -> Item:
        """Return a stored item.

        Raises:
            InvalidIdError: not an id.
            UnknownIdError: there is no such item.
        """
        check_id(item_id)
        item = self._store.items([item_id]).get(item_id)
        if item is None:
            raise UnknownIdError(f"no item has the id {shown(item_id)}")
        return item

    def vector(self, item_id: str) -> NDArray[np.float32]:
        """Return the unit vector (D,) of an item. Raises as ``get``."""
        check_id(item_id)
        return self._store.vector(item_id)[1]

    def vectors(self, ids: Sequence[str]) -> dict[str, NDArray[np.float32]]:
        """Return the unit vectors (D,) of those of ``ids`` that are stored, by id."""
        return self._store.vectors(ids)

    def thumbnail(self, item_id: str) -> Thumbnail:
        """Return the small picture of an item. Raises as ``get``, or NoThumbnailError."""
        check_id(item_id)
        return self._store.thumbnail(item_id)

    def existing(self, ids: Sequence[str]) -> dict[str, Item]:
        """Return those of ``ids`` that are stored, by id."""
        return self._store.items(ids)

    def page(self, *, limit: int, cursor: str | None = None, filter: Filter | None = None) -> Page:
        """Return the next ``limit`` items, oldest first; items stored meanwhile come at the end.

        Raises:
            InvalidCursorError: not the ``next_cursor`` of a page.
        """
        return self._searcher.page(limit=limit, cursor=cursor, wanted=filter)

    def search(
        self,
        queries_QD: NDArray[np.float32],
        *,
        k: int,
        filter: Filter | None = None,
        min_score: float | None = None,
        exact: bool = False,
        itself: Itself | None = None,
        factor: float = 1.0,
        selection: ResultSelection = EVERY_ITEM,
    ) -> SearchResult:
        """Return the ``k`` nearest items of each query, best first, ties by the older item.

        Fewer come only when no more are stored that pass all that is asked. In large galleries a
        structure finds the share of them that ``info`` tells as recall.

        Args:
            queries_QD: finite unit vectors.
            k, filter: at least 1; applied during the search, so that it never costs hits.
            min_score, exact: in [-1, 1], reached by every hit; look at every item.
            itself: the stored item that the one query was made of: it comes first.
            factor: what cosines are multiplied with to be scores
                (``vision.inference.query_weighting``).
            selection: what is left out.

        Raises:
            UnknownIdError: ``itself`` is not stored.
            BadVectorsError: not of shape (Q, width), not finite, or not of unit length.
            StorageError, GalleryFolderError: the database cannot be read, or is damaged.
        """
        return self._searcher.search(
            queries_QD,
            k=k,
            wanted=filter,
            min_score=min_score,
            exact=exact,
            itself=itself,
            factor=factor,
            selection=selection,
        )

    def range_search(
        self,
        query_D: NDArray[np.float32],
        *,
        min_score: float,
        limit: int | None = None,
        filter: Filter | None = None,
        factor: float = 1.0,
    ) -> RangeResult:
        """Return the items that score ``min_score``, or the best ``limit`` of them, best first.

        Exact: looks at every item. Raises as ``search``.
        """
        return self._searcher.range_search(
            query_D, min_score=min_score, limit=limit, wanted=filter, factor=factor
        )

    def catch_up(self) -> int:
        """Bring the index up to date with everyone's writes; return the last seq it has seen.

        Costs a few microseconds when nothing was written.

        Raises:
            StorageError, GalleryFolderError: the log cannot be read; the index stays behind it.
        """
        return self._follower.catch_up().seq

    def info(self) -> GalleryInfo:
        """Return what the gallery holds now, and for which model."""
        return self.upkeep.info()

    def verify(self) -> list[str]:
        """Return a sentence for every fault found in the database, the log and the index.

        Reads everything; changes nothing and keeps nobody from reading or writing.

        Raises:
            GalleryFolderError: so damaged that it cannot be read to the end.
        """
        return self.upkeep.problems()

    def close(self) -> None:
        """Close the database. Every later call raises StorageError."""
        self.upkeep.close()
        self._store.close()
