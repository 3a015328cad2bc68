"""The gallery that the settings name: opened, or made where they say that it may be a new one."""

from pathlib import Path
from typing import TYPE_CHECKING

from files.unfinished import sweep
from index.errors import GalleryFolderError
from index.store.create import check_free
from index.store.schema import DATABASE_NAME
from index.store.store import read_binding
from service.config import ServiceSettings
from vision.model.manifest import Manifest

if TYPE_CHECKING:
    from index.gallery import Gallery

_CREATE = "with --create (LOOKALIKE_CREATE=true)"


def check_gallery(settings: ServiceSettings, manifest: Manifest) -> None:
    """Accept a gallery of the model that ``manifest`` describes, or room for a new one.

    Raises:
        GalleryFolderError: it cannot be used, belongs to another model, or is not there and may not
            be made: then its path was mistyped, or its disk is not mounted.
    """
    folder = settings.gallery
    if _is_there(folder):
        read_binding(folder).check(manifest.fingerprint, folder)
        return
    check_free(folder)
    if settings.create:
        return
    if folder.is_dir():
        raise GalleryFolderError(
            f"the folder {folder} is empty: if a disk belongs there, mount it; or else make a new, "
            f"empty gallery in it {_CREATE}"
        )
    raise GalleryFolderError(
        f"there is no gallery at {folder}: name one that exists, or make a new, empty one {_CREATE}"
    )


def make_gallery(settings: ServiceSettings, manifest: Manifest, *, model_folder: Path) -> None:
    """Make the gallery, unless it is there, or may not be made.

    Raises:
        GalleryFolderError, StorageError: it cannot be made.
    """
    if settings.create and not _is_there(settings.gallery):
        from index.open_gallery import open_for_model  # noqa: PLC0415 - numpy and FAISS take their time

        open_for_model(settings.gallery, manifest, model_folder=model_folder).close()


def open_gallery(settings: ServiceSettings, manifest: Manifest, *, model_folder: Path) -> "Gallery":
    """Return the gallery, which is made first where the settings say so.

    What backups that were killed left in their folder is removed.

    Raises:
        GalleryFolderError, StorageError: as ``check_gallery``, or it cannot be read.
    """
    from index.gallery import Gallery  # noqa: PLC0415

    check_gallery(settings, manifest)
    make_gallery(settings, manifest, model_folder=model_folder)
    if settings.backups_dir is not None:
        sweep(settings.backups_dir)
    return Gallery.open(settings.gallery, fingerprint=manifest.fingerprint)


def _is_there(folder: Path) -> bool:
    return (folder / DATABASE_NAME).exists()
