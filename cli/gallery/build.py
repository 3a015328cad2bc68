"""`lookalike index …`: build, add, remove and verify a gallery of images."""

from pathlib import Path
from typing import Annotated

import typer

from cli.gallery.build_report import (
    check_failures,
    print_report,
    print_serve_command,
    write_failures,
)
from cli.support.console import make_table, print_info, print_result
from cli.support.dataset_loading import print_findings
from cli.support.gallery_filling import (
    add_images,
    load_gallery_encoder,
    open_gallery,
    preview_images,
    set_thumbnail_side,
)
from cli.support.image_source import open_image_source
from cli.support.options import (
    DeviceOption,
    GalleryArgument,
    GalleryModelOption,
    GroupOption,
    ImagesOption,
    JsonOption,
    ModelArgument,
    RuntimeOption,
    ThumbnailOption,
)
from files.resource_limits import usable_cores
from index.errors import GalleryFolderError, UnknownIdError
from vision.inference.open_encoder import open_encoder
from vision.model.manifest import read_manifest

FOUND_DAMAGE = 1

FailuresOption = Annotated[
    Path | None,
    typer.Option(
        "--failures",
        metavar="FILE",
        help="CSV file to list what was refused, and why.",
        show_default=False,
    ),
]

index_app = typer.Typer(
    help="Build, change, inspect and check a gallery of images.", no_args_is_help=True
)


@index_app.command()
def build(
    model: ModelArgument,
    *,
    data: ImagesOption,
    out: Annotated[
        Path, typer.Option(help="Gallery folder to make, or to add to.", show_default=False)
    ],
    prune: Annotated[
        bool,
        typer.Option(
            "--prune", help="Delete what an earlier build stored and is no longer in the data."
        ),
    ] = False,
    thumbnail: ThumbnailOption = None,
    failures: FailuresOption = None,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Only show what would be done to an existing gallery."),
    ] = False,
    group: GroupOption = None,
    device: DeviceOption = "auto",
    runtime: RuntimeOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Turn images into a gallery. Interrupted, the same command goes on where it was.

    Run again, it adds what is new and what has changed; labels and metadata that were edited since
    stay, unless the file or what the data say of it has changed.
    """
    check_failures(failures)
    source = open_image_source(data, prune=prune, group=group)
    print_findings(source.findings)
    if dry_run:
        with open_gallery(out, read_manifest(model).fingerprint) as opened:
            report = preview_images(opened, source, prune=prune)
        print_info("this is what would be done; nothing was changed")
    else:
        from index.open_gallery import open_for_model  # noqa: PLC0415 - keeps `--help` quick

        encoder = open_encoder(model, device=device, runtime=runtime, threads=usable_cores())
        with open_for_model(out, encoder.manifest, model_folder=model) as opened:
            set_thumbnail_side(opened, thumbnail)
            report = add_images(opened, encoder, source, prune=prune)
    print_report(out, report, findings=source.findings, as_json=as_json)
    write_failures(failures, report)
    if not (as_json or dry_run):
        print_serve_command(model, out)


@index_app.command()
def add(
    gallery: GalleryArgument,
    *,
    data: ImagesOption,
    group: GroupOption = None,
    model: GalleryModelOption = None,
    thumbnail: ThumbnailOption = None,
    failures: FailuresOption = None,
    device: DeviceOption = "auto",
    runtime: RuntimeOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Add images to a gallery; ids that are there already get the new image.

    Labels and metadata that were edited since an earlier build stay as with `build`.
    """
    check_failures(failures)
    encoder = load_gallery_encoder(gallery, model, device=device, runtime=runtime)

    source = open_image_source(data, group=group)
    print_findings(source.findings)
    with open_gallery(gallery, encoder.manifest.fingerprint) as opened:
        set_thumbnail_side(opened, thumbnail)
        report = add_images(opened, encoder, source)
    print_report(gallery, report, findings=source.findings, as_json=as_json)
    write_failures(failures, report)


@index_app.command()
def remove(
    gallery: GalleryArgument,
    ids: Annotated[list[str], typer.Argument(help="Ids to delete.", show_default=False)],
    as_json: JsonOption = False,
) -> None:
    """Delete images from a gallery."""

    with open_gallery(gallery) as opened:
        deleted = opened.delete(ids)
        removed = [item_id for item_id, was_there in zip(ids, deleted, strict=True) if was_there]
        count = opened.count
    unknown = [item_id for item_id in ids if item_id not in removed]
    document = {"removed": removed, "unknown": unknown, "count": count}
    text = f"removed {len(removed)}; the gallery holds {count} images"
    print_result(document, text, as_json=as_json)
    if unknown:
        raise UnknownIdError(f"not in {gallery}: {', '.join(unknown)}")


@index_app.command()
def verify(gallery: GalleryArgument, as_json: JsonOption = False) -> None:
    """Check every page, vector, picture and log line of a gallery; exit code 1 for any fault."""
    from index.maintenance.verify import store_problems  # noqa: PLC0415
    from index.store.store import Store  # noqa: PLC0415

    try:
        with open_gallery(gallery) as opened:
            problems = opened.verify()
    except GalleryFolderError:  # too damaged to load; the database alone may still say how
        store = Store.open(gallery)
        problems = store_problems(store)
        store.close()
        if not problems:
            raise
    faults = make_table(f"{len(problems)} faults", ("",), [(one,) for one in problems])
    document = {"ok": not problems, "problems": problems}
    print_result(document, faults if problems else "no faults", as_json=as_json)
    if problems:
        raise typer.Exit(FOUND_DAMAGE)
