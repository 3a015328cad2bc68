"""`lookalike index …`: build, add, remove, info and verify a gallery of images."""

import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.build_report import print_report, say_how_to_serve
from cli.console import items_shown, print_json, say, stdout, table_of
from cli.data import IMAGES_HELP, GroupOption, say_findings
from cli.sources import Source, open_source
from index.errors import GalleryFolderError, RebuildError, UnknownIdError
from vision.image import OWN_FILE_LIMITS, harden_pillow
from vision.runtime_name import RUNTIME_HELP, RuntimeName
from vision.runtimes import open_encoder

if TYPE_CHECKING:
    from index.build_report import BuildReport
    from index.gallery import Gallery
    from index.items import GalleryInfo
    from vision.encoding import ImageEncoder

SHOWN_DIGITS = 12  # of a fingerprint
FOUND_DAMAGE = 1

GalleryArgument = Annotated[Path, typer.Argument(help="Gallery folder.", show_default=False)]
DataOption = Annotated[str, typer.Option("--data", help=IMAGES_HELP, show_default=False)]
DeviceOption = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]
RuntimeOption = Annotated[RuntimeName, typer.Option(help=RUNTIME_HELP)]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
ModelOption = Annotated[
    Path | None,
    typer.Option(help="Model folder; left out, the one the gallery was built with."),
]

index_app = typer.Typer(
    help="Build a gallery of images, change it, look at it and check it.", no_args_is_help=True
)


@index_app.command()
def build(
    model: Annotated[Path, typer.Argument(help="Model folder.", show_default=False)],
    *,
    data: DataOption,
    out: Annotated[
        Path, typer.Option(help="Gallery folder; made, or added to.", show_default=False)
    ],
    prune: Annotated[
        bool,
        typer.Option("--prune", help="Delete what an earlier build stored and is no longer there."),
    ] = False,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Only say what would be done to a gallery that is there."),
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
    source = open_source(data, prune=prune, group=group)
    say_findings(source.findings)
    if dry_run:
        report = preview_build(model, out, source, prune=prune)
        say("this is what would be done; nothing was changed")
    else:
        report = build_gallery(model, out, source, device=device, runtime=runtime, prune=prune)
    print_report(out, report, findings=source.findings, as_json=as_json)
    if not (as_json or dry_run):
        say_how_to_serve(model, out)


@index_app.command()
def add(
    gallery: GalleryArgument,
    *,
    data: DataOption,
    group: GroupOption = None,
    model: ModelOption = None,
    device: DeviceOption = "auto",
    runtime: RuntimeOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Add images to a gallery; ids that are there already get the new image.

    Labels and metadata that were edited since an earlier build stay as with `build`.
    """
    encoder = load_encoder_of(gallery, model, device=device, runtime=runtime)
    from index.gallery import Gallery  # noqa: PLC0415

    source = open_source(data, group=group)
    say_findings(source.findings)
    with Gallery.open(gallery, fingerprint=encoder.manifest.fingerprint) as opened:
        report = fill(opened, encoder, source)
    print_report(gallery, report, findings=source.findings, as_json=as_json)


@index_app.command()
def remove(
    gallery: GalleryArgument,
    ids: Annotated[list[str], typer.Argument(help="Ids to delete.", show_default=False)],
    as_json: JsonOption = False,
) -> None:
    """Delete images from a gallery."""
    from index.gallery import Gallery  # noqa: PLC0415

    with Gallery.open(gallery, fingerprint=None) as opened:
        deleted = opened.delete(ids)
        removed = [item_id for item_id, was_there in zip(ids, deleted, strict=True) if was_there]
        count = opened.count
    unknown = [item_id for item_id in ids if item_id not in removed]
    if as_json:
        print_json({"removed": removed, "unknown": unknown, "count": count})
    else:
        stdout.print(f"removed {len(removed)}; the gallery holds {count} images")
    if unknown:
        raise UnknownIdError(f"not in {gallery}: {', '.join(unknown)}")


@index_app.command()
def info(gallery: GalleryArgument, as_json: JsonOption = False) -> None:
    """Say what a gallery holds, and for which model."""
    from index.gallery import Gallery  # noqa: PLC0415

    with Gallery.open(gallery, fingerprint=None) as opened:
        facts = opened.info()
        model_folder = opened.binding.model_folder
    if as_json:
        print_json({**asdict(facts), "model_folder": model_folder})
        return
    rows = {
        "images": f"{facts.count:,}",
        "model": f"{facts.model_name} ({facts.fingerprint[:SHOWN_DIGITS]}…)",
        "model folder": model_folder or "not known",
        "vector": f"{facts.width} numbers",
        "index": f"{facts.structure}, generation {facts.generation}, seq {facts.seq}",
        "recall": _recall(facts),
        "recent": f"{facts.recent:,} stored since the index was built",
        "state": facts.state if facts.reason is None else f"{facts.state}: {facts.reason}",
        "on disk": f"{facts.bytes_on_disk / 2**20:,.1f} MiB",
    }
    stdout.print(table_of(facts.name, ("", ""), list(rows.items())))
    if facts.note:
        say(facts.note)


def _recall(facts: "GalleryInfo") -> str:
    if facts.recall is None:
        return "not known"
    if not facts.recall_queries or facts.recall_low is None or facts.recall_high is None:
        return f"{facts.recall:.4f}"
    return (
        f"{facts.recall:.4f}; at least {facts.recall_low:.4f} and at most {facts.recall_high:.4f}, "
        f"each with 95 % confidence ({facts.recall_queries:,} queries)"
    )


@index_app.command()
def verify(gallery: GalleryArgument, as_json: JsonOption = False) -> None:
    """Check every page, vector, picture and log line of a gallery; exit code 1 for any fault."""
    from index.gallery import Gallery  # noqa: PLC0415
    from index.store import Store  # noqa: PLC0415
    from index.verify import store_problems  # noqa: PLC0415

    try:
        with Gallery.open(gallery, fingerprint=None) as opened:
            problems = opened.verify()
    except GalleryFolderError:  # too damaged to load; the database alone may still say how
        store = Store.open(gallery)
        problems = store_problems(store)
        store.close()
        if not problems:
            raise
    if as_json:
        print_json({"ok": not problems, "problems": problems})
    elif problems:
        stdout.print(table_of(f"{len(problems)} faults", ("",), [(one,) for one in problems]))
    else:
        stdout.print("no faults")
    if problems:
        raise typer.Exit(FOUND_DAMAGE)


def build_gallery(
    model: Path,
    gallery: Path,
    source: Source,
    *,
    device: str,
    runtime: RuntimeName,
    prune: bool = False,
) -> "BuildReport":
    """Add the images of ``source`` to a gallery, new or not, and show progress.

    Raises:
        ModelFolderError, DeviceError: the model cannot be used.
        GalleryFolderError: the gallery cannot be used, or belongs to another model.
        VectorIndexError, TrainingError: the images cannot be read, or not be stored.
    """
    from index.folder import open_for_model  # noqa: PLC0415 - keeps `--help` quick

    encoder = open_encoder(model, device=device, runtime=runtime, threads=usable_cores())
    with open_for_model(gallery, encoder.manifest, model_folder=model) as opened:
        return fill(opened, encoder, source, prune=prune)


def preview_build(model: Path, gallery: Path, source: Source, *, prune: bool) -> "BuildReport":
    """Return what ``build_gallery`` would do to a gallery that is there.

    Raises:
        ModelFolderError, GalleryFolderError: as ``build_gallery``; or there is no gallery yet.
    """
    from index.gallery import Gallery  # noqa: PLC0415
    from index.preview import preview  # noqa: PLC0415
    from vision.manifest import read_manifest  # noqa: PLC0415

    fingerprint = read_manifest(model).fingerprint
    with (
        Gallery.open(gallery, fingerprint=fingerprint) as opened,
        items_shown("reading", source.count, "images") as show,
    ):
        return preview(
            opened, source.entries, source=source.identity, on_progress=show, prune=prune
        )


def fill(
    gallery: "Gallery", encoder: "ImageEncoder", source: Source, *, prune: bool = False
) -> "BuildReport":
    """Add the images of ``source`` to an open gallery, and show progress.

    Where many came, the search structure is built anew at the end.
    """
    from index.build import build as build_from  # noqa: PLC0415

    harden_pillow()
    with items_shown("indexing", source.count, "images") as show:
        report = build_from(
            gallery,
            source.entries,
            source=source.identity,
            encoder=encoder,
            limits=OWN_FILE_LIMITS,
            on_progress=show,
            prune=prune,
        )
    compact_if_due(gallery)
    return report


def compact_if_due(gallery: "Gallery") -> None:
    """Build the search structure anew where it pays; without one, searches only take longer."""
    if not gallery.upkeep.is_due:
        return
    say("building the search structure; interrupted, the items are kept all the same")
    try:
        gallery.upkeep.rebuild()
    except RebuildError as error:
        say(f"all items are stored, but: {error}")


def load_encoder_of(
    gallery: Path, model: Path | None, *, device: str, runtime: RuntimeName
) -> "ImageEncoder":
    """Return the encoder of ``model``, or else of the model folder the gallery remembers.

    Raises:
        ModelMismatchError: the gallery holds vectors of another model.
        GalleryFolderError, ModelFolderError, DeviceError: as opening them.
    """
    from index.store import read_binding  # noqa: PLC0415
    from vision.manifest import read_manifest  # noqa: PLC0415

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
    return open_encoder(folder, device=device, runtime=runtime, threads=usable_cores())


def usable_cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0))
