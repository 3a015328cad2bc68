"""A gallery folder that may or may not be there yet: opened, or made by whoever comes first."""

from pathlib import Path

from index.errors import GalleryFolderError
from index.gallery import Gallery
from index.schema import DATABASE_NAME
from vision.manifest import Manifest


def open_or_create(
    folder: Path,
    *,
    model_name: str,
    fingerprint: str,
    width: int,
    model_folder: Path | None = None,
) -> Gallery:
    """Return the gallery in ``folder``, or a new, empty one when there is none.

    Several processes may call this at once: one makes the gallery, all of them get it. The
    arguments and the errors are those of ``Gallery.create`` and ``Gallery.open``.
    """
    if not (folder / DATABASE_NAME).exists():
        try:
            return Gallery.create(
                folder,
                model_name=model_name,
                fingerprint=fingerprint,
                width=width,
                model_folder=model_folder,
            )
        except GalleryFolderError:
            if not (folder / DATABASE_NAME).exists():  # in the way is no gallery of a quicker one
                raise
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
