"""Photos of a source into a gallery: only those that were added or changed since the last time.

What was indexed is remembered in the workspace: file by file, as the file system describes it.
"""

from collections.abc import Collection
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Final

from cli.support.gallery_filling import add_images, set_thumbnail_side
from cli.support.image_source import ImageSource, open_image_source
from cli.up.inventory import Inventory
from cli.up.workspace import State, Workspace
from dataset.listing import ListedFile, Listing
from files.resource_limits import usable_cores
from files.version import VERSION
from index.decoding.file_decoder import UNREADABLE
from index.items.source_entries import id_of_path, image_entries
from index.store.schema import DATABASE_NAME
from training.data.images.load import FASHION_MNIST
from training.formatting import plural
from vision.inference.open_encoder import open_encoder
from vision.model.manifest import read_manifest

if TYPE_CHECKING:
    from index.gallery import Gallery
    from index.operations.build_report import BuildReport
    from vision.inference.encoder import ImageEncoder

SHOWN: Final = 3  # names in a sentence
NAMED: Final = 1000  # photos to take, at most, for some of them to be named


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncResult:
    """What became of the photos of a source."""

    added: int = 0
    names: tuple[str, ...] = ()  # of what was added, where they are few
    changed: int = 0
    refused: int = 0  # in all: photos that cannot be read
    pruned: int = 0
    stale: int = 0  # in the gallery, no longer in the source
    count: int = 0  # in the gallery
    seconds: float = 0.0

    @property
    def has_changes(self) -> bool:
        """Whether the gallery has changed."""
        return bool(self.added or self.changed or self.pruned)

    def in_words(self) -> str:
        """Return what has changed, as part of a sentence."""
        parts = []
        if self.added:
            names = f" ({', '.join(self.names)})" if self.names else ""
            parts.append(f"{plural(self.added, 'photo')} added{names}")
        parts += [f"{self.changed:,} changed"] * bool(self.changed)
        parts += [f"{self.pruned:,} taken out"] * bool(self.pruned)
        return ", ".join(parts) or "nothing new"


class GallerySync:
    """Indexes photos in a workspace's gallery; model and gallery are opened when first needed."""

    def __init__(
        self, workspace: Workspace, state: State, *, device: str, thumbnail: int | None = None
    ) -> None:
        self.state = state
        self._workspace = workspace
        self._device = device
        self._program = VERSION
        self._thumbnail = thumbnail  # longest side of pictures to be kept, pixels
        self._fingerprint = read_manifest(workspace.model).fingerprint
        self._gallery: Gallery | None = None
        self._indexed = (
            Inventory.read(workspace.files)
            if state.indexed == self._fingerprint and workspace.gallery.exists()
            else Inventory({})
        )

    @property
    def is_complete(self) -> bool:
        """Whether all photos of the source have been taken in once, by this model."""
        return self.state.indexed == self._fingerprint and self._workspace.gallery.exists()

    @property
    def refused(self) -> int:
        """How many photos that were looked at cannot be read."""
        return self._indexed.refused

    def changed_files(self, listing: Listing, now: Inventory) -> list[ListedFile]:
        """Return the files that were added or changed since they were taken in."""
        return self._indexed.changed(now, listing, self._program)

    def stale_ids(self, listing: Listing) -> set[str]:
        """Return the ids in the gallery that the source brought, and no longer has."""
        from index.store.build_origins import BuildOrigins  # noqa: PLC0415 - seldom needed

        if not self._workspace.gallery.exists():
            return set()
        origins = BuildOrigins(self._workspace.gallery, _identity(listing))
        try:
            return set(origins.built_ids()) - {id_of_path(file.key) for file in listing.files}
        finally:
            origins.close()

    def update(
        self, listing: Listing, now: Inventory, files: Collection[ListedFile], *, prune: bool
    ) -> SyncResult:
        """Store ``files``, delete with ``prune`` what the listing no longer has, and remember it.

        Args:
            listing: the whole source, at this moment.
            now: its inventory, as of before anything is read.
            files: those of the listing that are to be read; the others are as they were.
            prune: delete what the source brought before and is no longer in the listing.

        Raises:
            VectorIndexError, ModelFolderError: as ``add_images``; the next call goes on.
            OSError: what was done cannot be remembered; it will be found again.
        """
        read = {file.key for file in files}
        source = ImageSource(
            _identity(listing),
            len(files),
            image_entries(replace(listing, files=tuple(files))),
            listing.findings,
            unread=frozenset(id_of_path(one.key) for one in listing.files if one.key not in read),
        )
        stored = self._stored(read)
        report = add_images(self._open(), self._encoder, source, prune=prune)
        reasons = dict(report.refused)
        refused = {key for key in read if id_of_path(key) in reasons}
        unread = {key for key in refused if reasons[id_of_path(key)].startswith(UNREADABLE)}
        new = sorted(read - refused - stored)
        self._indexed = self._indexed.after(
            now.settled, read, refused=refused, unread=unread, program=self._program
        )
        self._remember(self._indexed)
        remembered = {key for key, row in self._indexed.rows.items() if row.refused_by}
        return _sync_result(report, new, refused=len(remembered | refused))

    def _stored(self, keys: set[str]) -> set[str]:
        """Return those of a few keys whose photos are in the gallery; of many, none."""
        if len(keys) > NAMED:
            return set()
        ids = {key: id_of_path(key) for key in keys}
        stored = self._open().existing(list(ids.values()))
        return {key for key, item_id in ids.items() if item_id in stored}

    def apply_thumbnail_side(self) -> None:
        """Have the gallery keep pictures of the size that was asked for, whatever there is new.

        Raises:
            VectorIndexError: it cannot be opened.
        """
        if self._thumbnail is not None and self.is_complete:
            self._open()

    def update_fashion_mnist(self) -> SyncResult:
        """Store the 60,000 training images of Fashion-MNIST."""
        report = add_images(self._open(), self._encoder, open_image_source(FASHION_MNIST))
        self._remember(Inventory({}))
        return _sync_result(report, (), refused=0)

    def close(self) -> None:
        """Close the gallery, if it was opened."""
        if self._gallery is not None:
            self._gallery.close()
            self._gallery = None

    def _remember(self, inventory: Inventory) -> None:
        inventory.write(self._workspace.files)
        if self.state.indexed != self._fingerprint:
            self.state = replace(self.state, indexed=self._fingerprint)
            self._workspace.write_state(self.state)

    def _open(self) -> "Gallery":
        from index.gallery import Gallery  # noqa: PLC0415 - seconds

        if self._gallery is None:
            manifest, folder = self._encoder.manifest, self._workspace.gallery
            if (folder / DATABASE_NAME).exists():
                self._gallery = Gallery.open(folder, fingerprint=manifest.fingerprint)
            else:
                self._gallery = Gallery.create(
                    folder,
                    model_name=manifest.name,
                    fingerprint=manifest.fingerprint,
                    width=manifest.architecture.width,
                    model_folder=self._workspace.home / self._workspace.model.name,
                )
            set_thumbnail_side(self._gallery, self._thumbnail)
        return self._gallery

    @cached_property
    def _encoder(self) -> "ImageEncoder":
        return open_encoder(
            self._workspace.model, device=self._device, runtime="auto", threads=usable_cores()
        )


def _identity(listing: Listing) -> str:
    return str(listing.source.resolve())


def _sync_result(report: "BuildReport", added: Collection[str], *, refused: int) -> SyncResult:
    return SyncResult(
        added=report.added,
        names=tuple(added) if len(added) == report.added <= SHOWN else (),
        changed=report.replaced,
        refused=refused,
        pruned=report.pruned,
        stale=report.stale,
        count=report.count,
        seconds=report.seconds,
    )
