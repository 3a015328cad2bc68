"""`lookalike search` and `lookalike classify`: one image, without a server."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer
from rich.table import Table

from cli.console import print_json, say, stdout
from cli.index import (
    DeviceOption,
    GalleryArgument,
    JsonOption,
    ModelOption,
    RuntimeOption,
    load_encoder_of,
    usable_cores,
)
from cli.picks import (
    ExcludeCopiesOption,
    ExcludeOption,
    GroupByOption,
    GroupSizeOption,
    KindOption,
    OffsetOption,
    picking_of,
    weighed,
)
from cli.picture import ImageArgument, json_option, read_picture
from index.errors import FilterError
from vision.manifest import read_manifest
from vision.runtimes import open_encoder

if TYPE_CHECKING:
    from index.filter import Filter
    from index.items import Hit
    from index.vote import Vote


def search(
    gallery: GalleryArgument,
    image: ImageArgument,
    *,
    model: ModelOption = None,
    k: Annotated[int, typer.Option("-k", min=1, max=1000, help="Hits.")] = 10,
    filter_: Annotated[
        str | None,
        typer.Option(
            "--filter",
            metavar="JSON",
            help="Only items for which it holds: must, should and must_not, as over HTTP.",
            show_default=False,
        ),
    ] = None,
    min_score: Annotated[
        float | None,
        typer.Option(min=-1, max=1, help="Cosine that every hit reaches.", show_default=False),
    ] = None,
    exact: Annotated[
        bool, typer.Option("--exact", help="Look at every item, whatever the structure.")
    ] = False,
    everything: Annotated[
        bool, typer.Option("--all", help="Every item that reaches --min-score, not only k; exact.")
    ] = False,
    with_vote: Annotated[
        bool, typer.Option("--vote", help="Also say which label the hits speak for.")
    ] = False,
    kind: KindOption = None,
    group_by: GroupByOption = None,
    group_size: GroupSizeOption = 1,
    exclude: ExcludeOption = None,
    exclude_copies: ExcludeCopiesOption = False,
    offset: OffsetOption = 0,
    device: DeviceOption = "auto",
    runtime: RuntimeOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Find the images of a gallery that look most like one."""
    if everything and min_score is None:
        raise typer.BadParameter("--all needs a --min-score", param_hint="--all")
    from index.gallery import Gallery  # noqa: PLC0415
    from index.picking import Picking  # noqa: PLC0415
    from index.vote import vote  # noqa: PLC0415

    wanted = None if filter_ is None else _filter(filter_)
    encoder = load_encoder_of(gallery, model, device=device, runtime=runtime)
    picture = read_picture(encoder, image)
    picking = picking_of(
        group_by=group_by,
        group_size=group_size,
        exclude=exclude,
        exclude_content=picture.content_sha256 if exclude_copies else None,
        offset=offset,
    )
    if everything and picking != Picking():
        raise typer.BadParameter(
            "it goes without groups, exclusions and an offset", param_hint="--all"
        )
    queries_QD, (factor,) = weighed(
        picture.encode().vectors_BD, encoder.manifest.architecture, kind
    )
    with Gallery.open(gallery, fingerprint=encoder.manifest.fingerprint) as opened:
        if everything and min_score is not None:
            hits = opened.above(
                queries_QD[0], min_score=min_score, filter=wanted, factor=float(factor)
            ).hits
        else:
            hits = opened.search(
                queries_QD,
                k=k,
                filter=wanted,
                min_score=min_score,
                exact=exact,
                factor=float(factor),
                picking=picking,
            ).hits[0]
        holds_none = not opened.count
    votes = vote(hits) if with_vote else None
    if as_json:
        document: dict[str, Any] = {"hits": [_hit_json(hit) for hit in hits]}
        print_json(document if votes is None else {**document, "vote": list(map(asdict, votes))})
        return
    _print_hits(hits, holds_none=holds_none)
    if votes is not None and hits:
        _print_votes(votes)


def _print_hits(hits: "list[Hit]", *, holds_none: bool) -> None:
    if not hits:
        stdout.print("the gallery is empty" if holds_none else "no item matches")
        return
    table = Table("score", "label")
    table.add_column("id", overflow="fold")  # whole: other commands ask for it
    table.add_column("metadata")
    for hit in hits:
        members = ", ".join(f"{key}: {value}" for key, value in hit.metadata.items())
        table.add_row(f"{hit.score:.4f}", hit.label or "", hit.id, members)
    stdout.print(table)


def _print_votes(votes: "list[Vote]") -> None:
    if not votes:
        say("none of the hits has a label, so there is no vote")
        return
    table = Table("share of the votes", "label")
    for one in votes:
        table.add_row(f"{one.share:.4f}", one.label)
    stdout.print(table)


def _filter(text: str) -> "Filter":
    from index.filter import parse_filter  # noqa: PLC0415

    try:
        return parse_filter(json_option(text, "--filter"))
    except FilterError as error:
        raise typer.BadParameter(str(error), param_hint="--filter") from error


def classify(
    model: Annotated[Path, typer.Argument(help="Model folder.", show_default=False)],
    image: ImageArgument,
    *,
    k: Annotated[int, typer.Option("-k", min=1, max=1000, help="Labels.")] = 5,
    device: DeviceOption = "auto",
    runtime: RuntimeOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Say what an image shows, with calibrated probabilities."""
    if not read_manifest(model).labels:
        raise typer.BadParameter(
            "this model has learnt no classes; lookalike search --vote says what the labels of the "
            "nearest items speak for",
            param_hint="MODEL",
        )
    encoder = open_encoder(model, device=device, runtime=runtime, threads=usable_cores())
    probabilities_L = read_picture(encoder, image).encode().probabilities_BL[0]
    best = np.argsort(-probabilities_L, kind="stable")[:k].tolist()
    predictions = [(encoder.manifest.labels[row], float(probabilities_L[row])) for row in best]
    if as_json:
        label, probability = predictions[0]
        print_json(
            {
                "label": label,
                "probability": probability,
                "predictions": [{"label": name, "probability": p} for name, p in predictions],
            }
        )
        return
    table = Table("probability", "label")
    for name, share in predictions:
        table.add_row(f"{share:.4f}", name)
    stdout.print(table)


def _hit_json(hit: "Hit") -> dict[str, Any]:
    return {"id": hit.id, "score": hit.score, "label": hit.label, "metadata": hit.metadata}
