"""`lookalike search`: what looks like an image, or like each of a folder, without a server."""

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray

from cli.support.console import make_table, print_info, print_json, stdout
from cli.support.gallery_filling import load_gallery_encoder, open_gallery
from cli.support.image_argument import load_image
from cli.support.image_collection import (
    JSONL,
    Document,
    ImagesArgument,
    OutOption,
    ResultFormat,
    check_results_file,
    write_results,
)
from cli.support.options import (
    DeviceOption,
    GalleryArgument,
    GalleryModelOption,
    JsonOption,
    RuntimeOption,
    json_object_option,
)
from cli.support.search_options import (
    ExcludeCopiesOption,
    ExcludeOption,
    GroupByOption,
    GroupSizeOption,
    KindOption,
    OffsetOption,
    result_selection,
    weighed,
)
from index.errors import FilterError

if TYPE_CHECKING:
    from index.gallery import Gallery
    from index.items.filter import Filter
    from index.items.item import Hit
    from index.query.knn_vote import Vote
    from index.query.result_selection import ResultSelection
    from vision.inference.encoder import Encoding
    from vision.model.manifest import Architecture


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchOptions:
    """How a gallery is searched, the same for every picture."""

    k: int
    filter: "Filter | None"
    min_score: float | None
    exact: bool
    everything: bool  # that reaches min_score
    kind: float | None
    selection: "ResultSelection"

    def hits(
        self, gallery: "Gallery", vectors_QD: NDArray[np.float32], architecture: "Architecture"
    ) -> "list[list[Hit]]":
        """Return the hits of each vector, best first."""
        queries_QD, factors_Q = weighed(vectors_QD, architecture, self.kind)
        if self.everything and self.min_score is not None:
            return [
                gallery.range_search(
                    query_D, min_score=self.min_score, filter=self.filter, factor=float(factor)
                ).hits
                for query_D, factor in zip(queries_QD, factors_Q, strict=True)
            ]
        return gallery.search(
            queries_QD,
            k=self.k,
            filter=self.filter,
            min_score=self.min_score,
            exact=self.exact,
            factor=float(factors_Q[0]),  # a network's vectors all have the same
            selection=self.selection,
        ).hits


def search(
    gallery: GalleryArgument,
    image: ImagesArgument,
    *,
    out: OutOption = None,
    model: GalleryModelOption = None,
    k: Annotated[int, typer.Option("-k", min=1, max=1000, help="Number of hits.")] = 10,
    filter_: Annotated[
        dict[str, Any] | None,
        json_object_option(
            "--filter",
            help="Only items that match this filter: must, should and must_not, as over HTTP.",
        ),
    ] = None,
    min_score: Annotated[
        float | None,
        typer.Option(min=-1, max=1, help="Least cosine similarity of a hit.", show_default=False),
    ] = None,
    exact: Annotated[
        bool,
        typer.Option(
            "--exact", help="Compare with every item instead of using the search structure."
        ),
    ] = False,
    everything: Annotated[
        bool,
        typer.Option(
            "--all", help="Return every item that reaches --min-score, not only k; exact."
        ),
    ] = False,
    with_vote: Annotated[
        bool, typer.Option("--vote", help="Also print the labels that the hits vote for.")
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
    """Find the images of a gallery that look most like one, or like each of a folder."""
    if everything and min_score is None:
        raise typer.BadParameter("--all needs a --min-score", param_hint="--all")
    check_results_file(image, out)
    if out is not None and with_vote and out.suffix.lower() != JSONL:
        raise typer.BadParameter("votes are written to .jsonl files only", param_hint="--vote")
    if out is not None and exclude_copies:
        raise typer.BadParameter("it is for one image", param_hint="--exclude-copies")
    from index.query.knn_vote import vote  # noqa: PLC0415
    from index.query.result_selection import ResultSelection  # noqa: PLC0415

    parsed_filter = None if filter_ is None else _filter(filter_)
    encoder = load_gallery_encoder(gallery, model, device=device, runtime=runtime)
    architecture = encoder.manifest.architecture
    picture = None if out is not None else load_image(encoder, image)
    options = SearchOptions(
        k=k,
        filter=parsed_filter,
        min_score=min_score,
        exact=exact,
        everything=everything,
        kind=kind,
        selection=result_selection(
            group_by=group_by,
            group_size=group_size,
            exclude=exclude,
            exclude_content=picture.content_sha256 if picture and exclude_copies else None,
            offset=offset,
        ),
    )
    if everything and options.selection != ResultSelection():
        raise typer.BadParameter(
            "it goes without groups, exclusions and an offset", param_hint="--all"
        )
    if picture is None and out is not None:
        with open_gallery(gallery, encoder.manifest.fingerprint) as opened:
            result_format = _hits_of_many(opened, options, architecture, with_vote=with_vote)
            write_results(image, out, encoder, result_format, as_json=as_json)
        return
    assert picture is not None  # one image, or a place for the answers
    vectors_BD = picture.encode().vectors_BD
    with open_gallery(gallery, encoder.manifest.fingerprint) as opened:
        (hits,) = options.hits(opened, vectors_BD, architecture)
        holds_none = not opened.count
    votes = vote(hits) if with_vote else None
    if as_json:
        print_json(_hits_json(hits, votes))
        return
    _print_hits(hits, holds_none=holds_none)
    if votes is not None and hits:
        _print_votes(votes)


def _hits_of_many(
    gallery: "Gallery", options: SearchOptions, architecture: "Architecture", *, with_vote: bool
) -> ResultFormat:
    """Return how the hits of many pictures are written."""
    from index.query.knn_vote import vote  # noqa: PLC0415

    def documents(encoding: "Encoding") -> list[Document]:
        found = options.hits(gallery, encoding.vectors_BD, architecture)
        return [_hits_json(hits, vote(hits) if with_vote else None) for hits in found]

    def rows(document: Document) -> list[Document]:
        return [
            {**hit, "rank": rank, "metadata": json.dumps(hit["metadata"], ensure_ascii=False)}
            for rank, hit in enumerate(document["hits"], start=1)
        ]

    columns = ("rank", "id", "score", "label", "metadata")
    return ResultFormat(doing="searching", documents=documents, columns=columns, rows=rows)


def _print_hits(hits: "list[Hit]", *, holds_none: bool) -> None:
    if not hits:
        stdout.print("the gallery is empty" if holds_none else "no item matches")
        return
    rows = [
        (
            f"{hit.score:.4f}",
            hit.label or "",
            hit.id,
            ", ".join(f"{key}: {value}" for key, value in hit.metadata.items()),
        )
        for hit in hits
    ]
    stdout.print(make_table(None, ("score", "label", "id", "metadata"), rows))


def _print_votes(votes: "list[Vote]") -> None:
    if not votes:
        print_info("none of the hits has a label, so there is no vote")
        return
    rows = [(f"{one.share:.4f}", one.label) for one in votes]
    stdout.print(make_table(None, ("share of the votes", "label"), rows))


def _filter(conditions: dict[str, Any]) -> "Filter":
    from index.items.filter import parse_filter  # noqa: PLC0415

    try:
        return parse_filter(conditions)
    except FilterError as error:
        raise typer.BadParameter(str(error), param_hint="--filter") from error


def _hits_json(hits: "list[Hit]", votes: "list[Vote] | None") -> dict[str, Any]:
    document: dict[str, Any] = {
        "hits": [
            {"id": hit.id, "score": hit.score, "label": hit.label, "metadata": hit.metadata}
            for hit in hits
        ]
    }
    return document if votes is None else {**document, "vote": list(map(asdict, votes))}
