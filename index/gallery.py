"""A gallery folder: stored images of one model, durable in SQLite, searched in memory.

Shape suffixes: Q queries, D vector width.
"""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from index.errors import UnknownIdError
from index.items.ids import check_id
from index.items.item import Item, quoted
from index.maintenance.maintenance import Maintenance
from index.query.counting import ItemCounter
from index.query.editing import ItemEditor
from index.query.searcher import Searcher
from index.search.policy import DEFAULT_POLICY, SearchPolicy
from index.snapshot.follower import Follower
from index.snapshot.segments.generations import Generations
from index.store.schema import Binding
from index.store.store import Store
from vision.image.thumbnail import LEAST_SIDE, MAX_SIDE, MOST_SIDE, Thumbnail

THUMBNAIL_SIDE: Final = "thumbnail_side"  # name of a setting


def utc_now() -> datetime:
    """Return the time."""
    return datetime.now(UTC)


class Gallery:
    """Images stored under ids, found by what they look like.

    SQLite holds the truth; an index in memory answers searches. The log of operations is all that
    ever moves the index: this object's writes and those of other threads and processes arrive by
    the same road, ``catch_up``. All methods may be called from any number of threads.
    """

    def __init__(
        self,
        store: Store,
        *,
        clock: Callable[[], datetime] = utc_now,
        policy: SearchPolicy = DEFAULT_POLICY,
    ) -> None:
        generations = Generations.of(store)
        follower = Follower(store, generations, policy)
        store.after_commits(follower.catch_up)
        searcher = Searcher(store, follower)
        editing = ItemEditor(store, searcher, clock=clock)
        maintenance = Maintenance(store, generations, follower, policy)
        self._store, self._follower, self._maintenance = store, follower, maintenance
        self._generations, self._searcher = generations, searcher
        # What one part does by itself is its own method, and described there.
        self.search = searcher.search
        self.range_search = searcher.range_search
        self.page = searcher.page
        self.facets = ItemCounter(store, searcher).of
        self.put = editing.put
        self.patch = editing.patch
        self.delete_item = editing.delete
        self.delete_where = editing.delete_where
        self.existing = store.items
        self.vectors = store.vectors
        self.info = maintenance.info
        self.verify = maintenance.problems
        self.rebuild = maintenance.rebuild
        self.adopt_newest_generation = maintenance.adopt_newest_generation
        self.generation_built = maintenance.generation_built
        self.lag = maintenance.lag
        self.check_location = maintenance.check_location
        self.check_writable = maintenance.check_writable
        self.start_maintenance = maintenance.start

    @classmethod
    def create(
        cls,
        folder: Path,
        *,
        model_name: str,
        fingerprint: str,
        width: int,
        model_folder: Path | None = None,
        clock: Callable[[], datetime] = utc_now,
        policy: SearchPolicy = DEFAULT_POLICY,
    ) -> Self:
        """Return a new, empty gallery for the vectors of one model.

        Args:
            folder: must not exist, or be empty; parents are made.
            model_name, fingerprint, width: of the model, as in ``Binding``.
            model_folder: remembered as a hint for commands that are not told the model.
            clock: the time to write beside each item, also by ``open``.
            policy: when items are scanned, and when the ANN index is built anew, also by ``open``.

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
        return cls(Store.create(folder, binding), clock=clock, policy=policy)

    @classmethod
    def open(
        cls,
        folder: Path,
        *,
        fingerprint: str | None,
        clock: Callable[[], datetime] = utc_now,
        policy: SearchPolicy = DEFAULT_POLICY,
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
            return cls(store, clock=clock, policy=policy)
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
    def is_rebuild_due(self) -> bool:
        """Whether a new ANN index would pay."""
        return self._maintenance.is_rebuild_due

    @property
    def maintenance_error(self) -> str | None:
        """Why the last look in the background failed, a sentence; ``None``: it did not."""
        return self._maintenance.error

    @property
    def thumbnail_side(self) -> int:
        """The longest side of pictures kept from now on, pixels: 256, unless it was set."""
        return int(self._store.setting(THUMBNAIL_SIDE) or MAX_SIDE)

    def set_thumbnail_side(self, side: int) -> None:
        """Keep pictures with a longest side of ``side`` pixels from now on; those there are stay.

        Raises:
            ValueError: not between 64 and 2048.
            ReadOnlyError, DiskFullError, StorageError: nothing was changed.
        """
        if not LEAST_SIDE <= side <= MOST_SIDE:
            raise ValueError(
                f"a picture's side lies between {LEAST_SIDE} and {MOST_SIDE} pixels, got {side}"
            )
        if side != self.thumbnail_side:
            self._store.set_setting(THUMBNAIL_SIDE, str(side))

    @property
    def read_only_reason(self) -> str | None:
        """Why nothing can be stored, a sentence; ``None``: it can."""
        return self._store.read_only_reason

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
            raise UnknownIdError(f"no item has the id {quoted(item_id)}")
        return item

    def vector(self, item_id: str) -> NDArray[np.float32]:
        """Return the unit vector (D,) of an item. Raises as ``get``."""
        check_id(item_id)
        return self._store.vector(item_id)[1]

    def thumbnail(self, item_id: str) -> Thumbnail:
        """Return the small picture of an item. Raises as ``get``, or NoThumbnailError."""
        check_id(item_id)
        return self._store.thumbnail(item_id)

    def catch_up(self) -> int:
        """Bring the index up to date with everyone's writes; return the last seq it has seen.

        Costs a few microseconds when nothing was written.

        Raises:
            StorageError, GalleryFolderError: the log cannot be read; the index stays behind it.
        """
        return self._follower.catch_up().seq

    def close(self) -> None:
        """Close the database. Every later call raises StorageError."""
        self._maintenance.close()
        self._store.close()
