"""`lookalike index …`: galleries out to files and back: export, import, backup and restore."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from cli.gallery.build_report import print_report
from cli.support.console import (
    item_progress,
    print_info,
    print_json,
    print_result,
    share_progress,
    stdout,
)
from cli.support.gallery_filling import open_gallery, rebuild_if_due
from cli.support.options import GalleryArgument, JsonOption
from index.errors import GalleryFolderError

if TYPE_CHECKING:
    from index.gallery import Gallery
    from index.search.vectors import Parts
    from index.transfer.vector_source import VectorSource


ExportFormat = Literal["parquet", "jsonl", "csv"]


def export(
    gallery: GalleryArgument,
    out: Annotated[Path, typer.Argument(help="File or folder to make.", show_default=False)],
    kind: Annotated[
        ExportFormat | None,
        typer.Option(
            "--format",
            help="parquet: one file; jsonl, csv: a folder with vectors.npy and such a table. By "
            "default parquet if the name ends in .parquet, otherwise jsonl.",
            show_default=False,
        ),
    ] = None,
    thumbnails: Annotated[
        bool, typer.Option("--thumbnails", help="Include pictures; Parquet only.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Write all items with their vectors to files that other programs read.

    As of one moment, whoever writes to the gallery meanwhile; complete, or not there at all.
    """
    if kind is None:
        kind = "parquet" if out.suffix == ".parquet" else "jsonl"
    if thumbnails and kind != "parquet":
        raise typer.BadParameter("only Parquet holds pictures", param_hint="--thumbnails")
    from index.transfer.export import export_folder, export_parquet  # noqa: PLC0415

    with (
        open_gallery(gallery) as opened,
        item_progress("exporting", opened.count, "items") as show,
    ):
        if kind == "parquet":
            provenance = export_parquet(opened, out, thumbnails=thumbnails, on_progress=show)
        else:
            provenance = export_folder(opened, out, table=kind, on_progress=show)
    text = (
        f"{out}: {provenance.count:,} items of {provenance.width} numbers, "
        f"as of operation {provenance.seq:,}"
    )
    document = {"out": str(out), "format": kind, **provenance.to_json()}
    print_result(document, text, as_json=as_json)


def import_(
    gallery: GalleryArgument,
    source: Annotated[
        Path,
        typer.Argument(
            help="Parquet, CSV, JSON lines, .npy, an export, or another gallery.",
            exists=True,
            show_default=False,
        ),
    ],
    *,
    ids: Annotated[
        Path | None,
        typer.Option(help="For a .npy: text file with an id per line.", exists=True),
    ] = None,
    vectors: Annotated[
        Path | None,
        typer.Option(help="For a table: .npy with the vectors of its rows.", exists=True),
    ] = None,
    normalize: Annotated[
        bool,
        typer.Option(
            "--normalize", help="Scale vectors to unit length instead of refusing others."
        ),
    ] = False,
    model: Annotated[
        Path | None,
        typer.Option(help="Model folder for a new gallery; an export names its model itself."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Store vectors that were made elsewhere, by this gallery's model; a new gallery is made.

    Interrupted, the same command goes on where it was. Rows that cannot be stored are listed.
    """
    from index.transfer.import_vectors import store_vectors  # noqa: PLC0415
    from index.transfer.vector_source import open_vectors  # noqa: PLC0415

    opened_source = open_vectors(source, ids=ids, vectors=vectors)
    with _open_or_create(gallery, opened_source, model) as opened:
        with item_progress("importing", opened_source.count, "items") as show:
            report = store_vectors(
                opened,
                opened_source,
                normalize=normalize,
                on_progress=show,
                parts=_vector_parts(opened, model),
            )
        rebuild_if_due(opened)
    print_report(gallery, report, as_json=as_json)


def backup(
    gallery: GalleryArgument,
    out: Annotated[Path, typer.Argument(help="Folder to make.", show_default=False)],
    as_json: JsonOption = False,
) -> None:
    """Copy a gallery as of this moment, checked, while others go on writing to it."""
    from index.store.store import read_binding  # noqa: PLC0415
    from index.transfer.backup import back_up  # noqa: PLC0415

    with open_gallery(gallery) as opened, share_progress("copying") as show:
        back_up(opened, out, on_progress=show)
    count = read_binding(out).count
    document = {"out": str(out), "count": count}
    print_result(document, f"{out}: {count:,} items, checked", as_json=as_json)


def restore(
    backup: Annotated[Path, typer.Argument(help="Folder of a backup.", show_default=False)],
    gallery: Annotated[Path, typer.Argument(help="Gallery folder to make.", show_default=False)],
    as_json: JsonOption = False,
) -> None:
    """Make a gallery of a backup, in a new place."""
    from index.transfer.backup import restore as restore_to  # noqa: PLC0415

    with share_progress("restoring") as show:
        restore_to(backup, gallery, on_progress=show)
    with open_gallery(gallery) as opened:
        count, due = opened.count, opened.is_rebuild_due
    if as_json:
        print_json({"gallery": str(gallery), "count": count, "rebuild_is_due": due})
        return
    stdout.print(f"{gallery}: {count:,} items")
    if due:
        print_info(f"searches look at every item until: lookalike index rebuild {gallery}")


def _vector_parts(gallery: "Gallery", model: Path | None) -> "Parts | None":
    """Return the parts of the vectors of the gallery's model, as far as it can be asked."""
    from index.search.vectors import Parts  # noqa: PLC0415
    from vision.errors import ModelFolderError  # noqa: PLC0415
    from vision.model.manifest import read_manifest  # noqa: PLC0415

    folder = model or gallery.binding.model_folder
    try:
        manifest = None if folder is None else read_manifest(Path(folder))
    except ModelFolderError:  # it was moved, or deleted
        return None
    if manifest is None or manifest.fingerprint != gallery.binding.fingerprint:
        return None
    return Parts.of(manifest.architecture)


def _open_or_create(gallery: Path, source: "VectorSource", model: Path | None) -> "Gallery":
    """Return the gallery, which is made for ``model``, or else for the source's model."""
    from index.open_gallery import open_for_model, open_or_create  # noqa: PLC0415
    from index.store.schema import DATABASE_NAME  # noqa: PLC0415
    from vision.model.manifest import read_manifest  # noqa: PLC0415

    if model is not None:
        return open_for_model(gallery, read_manifest(model), model_folder=model)
    if (gallery / DATABASE_NAME).exists():
        return open_gallery(gallery)
    if source.provenance is None:
        raise GalleryFolderError(
            f"{gallery} is not a gallery, and {source.name} does not say whose vectors it has: "
            "name the model with --model to make a gallery"
        )
    return open_or_create(
        gallery,
        model_name=source.provenance.model_name,
        fingerprint=source.provenance.fingerprint,
        width=source.provenance.width,
    )
