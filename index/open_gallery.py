"""A gallery folder that may or may not be there yet: opened, or made by whoever comes first."""

import logging
from pathlib import Path

from index.errors import GalleryFolderError
from index.gallery import Gallery
from index.store.schema import DATABASE_NAME
from vision.model.manifest import Manifest

logger = logging.getLogger("lookalike.index")


def open_or_create(
    folder: Path,
    *,
    model_name: str,
    fingerprint: str,
    width: int,
    model_folder: Path | None = None,
) -> Gallery:
    """Return the gallery in ``folder``, or a new, empty one when there is none.

    A new one is told of by a warning, which commands show: the path may be a typing error. Several
    processes may call this at once: one makes the gallery, all of them get it. The arguments and
    the errors are those of ``Gallery.create`` and ``Gallery.open``.
    """
    if not (folder / DATABASE_NAME).exists():
        was_there = folder.is_dir()
        try:
            made = Gallery.create(
                folder,
                model_name=model_name,
                fingerprint=fingerprint,
                width=width,
                model_folder=model_folder,
            )
        except GalleryFolderError:
            if not (folder / DATABASE_NAME).exists():  # in the way is no gallery of a quicker one
                raise
        else:
            warning = "; the folder was there, and empty: is its disk mounted?" if was_there else ""
            logger.warning("made the new gallery %s%s", folder, warning)
            return made
    return Gallery.open(folder, fingerprint=fingerprint)


def open_for_model(folder: Path, manifest: Manifest, *, model_folder: Path) -> Gallery:
    """Return the gallery in ``folder``, or a new one, for the model that ``manifest`` describes.

    Raises as ``open_or_create``.
    """
    return open_or_create(
        folder,
        model_name=manifest.name,
        fingerprint=manifest.fingerprint,
        width=manifest.architecture.width,
        model_folder=model_folder,
    )
