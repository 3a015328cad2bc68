"""Images into a gallery, with progress: what the commands that fill one have in common."""

from pathlib import Path
from typing import TYPE_CHECKING

from cli.support.console import item_progress, print_info
from cli.support.image_source import ImageSource
from files.resource_limits import usable_cores
from index.errors import GalleryFolderError, RebuildError
from vision.image.decode import harden_pillow
from vision.image.limits import OWN_FILE_LIMITS
from vision.inference.open_encoder import open_encoder
from vision.inference.runtime_name import RuntimeName

if TYPE_CHECKING:
    from index.gallery import Gallery
    from index.operations.build_report import BuildReport
    from vision.inference.encoder import ImageEncoder

SHOWN_DIGITS = 12  # of a fingerprint


def open_gallery(folder: Path, fingerprint: str | None = None) -> "Gallery":
    """Return a gallery, opened; with a ``fingerprint``, only one of that model.

    Raises:
        GalleryFolderError, ModelMismatchError: it cannot be used, or belongs to another model.
    """
    # Heavy imports wait until they are needed, so that `lookalike --help` is quick.
    from index.gallery import Gallery  # noqa: PLC0415

    return Gallery.open(folder, fingerprint=fingerprint)


def preview_images(gallery: "Gallery", source: ImageSource, *, prune: bool) -> "BuildReport":
    """Return what ``add_images`` would do to an open gallery, and show progress."""
    from index.operations.build_preview import preview_build  # noqa: PLC0415

    with item_progress("reading", source.count, "images") as show:
        return preview_build(
            gallery,
            source.entries,
            source=source.identity,
            limits=OWN_FILE_LIMITS,
            on_progress=show,
            prune=prune,
        )


def add_images(
    gallery: "Gallery", encoder: "ImageEncoder", source: ImageSource, *, prune: bool = False
) -> "BuildReport":
    """Add the images of ``source`` to an open gallery, and show progress.

    Where many came, the search structure is built anew at the end.
    """
    from index.operations.add_images import build as build_from  # noqa: PLC0415

    harden_pillow()
    with item_progress("indexing", source.count, "images") as show:
        report = build_from(
            gallery,
            source.entries,
            source=source.identity,
            encoder=encoder,
            limits=OWN_FILE_LIMITS,
            processes=usable_cores(),
            on_progress=show,
            prune=prune,
            unread=source.unread,
        )
    rebuild_if_due(gallery)
    return report


def set_thumbnail_side(gallery: "Gallery", side: int | None) -> None:
    """Keep pictures of ``side`` pixels from now on, and say so where others are there."""
    if side is None or side == gallery.thumbnail_side:
        return
    gallery.set_thumbnail_side(side)
    if gallery.count:
        print_info(f"from now on pictures of {side} pixels are kept; those that are stored stay")


def rebuild_if_due(gallery: "Gallery") -> None:
    """Build the search structure anew where it pays; without one, searches only take longer."""
    if not gallery.is_rebuild_due:
        return
    print_info("building the search structure; interrupted, the items are kept all the same")
    try:
        gallery.rebuild()
    except RebuildError as error:
        print_info(f"all items are stored, but: {error}")


def load_gallery_encoder(
    gallery: Path, model: Path | None, *, device: str, runtime: RuntimeName
) -> "ImageEncoder":
    """Return the encoder of ``model``, or else of the model folder the gallery remembers.

    Raises:
        ModelMismatchError: the gallery holds vectors of another model.
        GalleryFolderError, ModelFolderError, DeviceError: as opening them.
    """
    folder = find_model_folder(gallery, model)
    return open_encoder(folder, device=device, runtime=runtime, threads=usable_cores())


def find_model_folder(gallery: Path, model: Path | None) -> Path:
    """Return ``model``, or else the model folder that the gallery remembers.

    Raises:
        ModelMismatchError: the gallery holds vectors of another model.
        GalleryFolderError, ModelFolderError: as opening them.
    """
    from index.store.store import read_binding  # noqa: PLC0415
    from vision.model.manifest import read_manifest  # noqa: PLC0415

    binding = read_binding(gallery)
    folder = model
    if folder is None:
        if binding.model_folder is None or not Path(binding.model_folder).is_dir():
            raise GalleryFolderError(
                f"{gallery} was built with model {binding.model_name!r} "
                f"({binding.fingerprint[:SHOWN_DIGITS]}…), which is not where it was: "
                "name its folder with --model"
            )
        folder = Path(binding.model_folder)
    binding.check(read_manifest(folder).fingerprint, gallery)  # before the seconds torch takes
    return folder
