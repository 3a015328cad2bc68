"""`lookalike index …`: an item replaced or edited, the structure kept up, duplicates found."""

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.support.console import (
    make_table,
    print_info,
    print_json,
    print_result,
    share_progress,
    stage_progress,
    stdout,
)
from cli.support.gallery_filling import load_gallery_encoder, open_gallery
from cli.support.image_argument import ImageArgument, load_image
from cli.support.options import (
    DeviceOption,
    GalleryArgument,
    GalleryModelOption,
    JsonOption,
    RuntimeOption,
    json_object_option,
)

if TYPE_CHECKING:
    from index.maintenance.compaction import Compaction
    from index.operations.duplicates import DuplicateItem

SHOWN_GROUPS = 20  # the rest is counted; --json lists all
SHOWN_MEMBERS = 6

ItemArgument = Annotated[str, typer.Argument(metavar="ID", help="Item id.", show_default=False)]
LabelOption = Annotated[
    str | None, typer.Option(help="New label; by default it stays.", show_default=False)
]
RecallOption = Annotated[
    float | None,
    typer.Option(
        min=0.5,
        max=1,
        help="Recall at 10 to reach; by default as before, or 0.99.",
        show_default=False,
    ),
]


def replace(
    gallery: GalleryArgument,
    item_id: ItemArgument,
    image: ImageArgument,
    *,
    label: LabelOption = None,
    metadata: Annotated[
        dict[str, Any] | None,
        json_object_option(help="New metadata, a JSON object; by default it stays."),
    ] = None,
    model: GalleryModelOption = None,
    device: DeviceOption = "auto",
    runtime: RuntimeOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Give an item of a gallery another image, and if you like another label and metadata."""
    encoder = load_gallery_encoder(gallery, model, device=device, runtime=runtime)
    from index.items.item import NewItem  # noqa: PLC0415

    with open_gallery(gallery, encoder.manifest.fingerprint) as opened:
        old = opened.get(item_id)
        picture = load_image(encoder, image)
        (result,) = opened.put(
            [
                NewItem(
                    id=item_id,
                    vector_D=picture.encode().vectors_BD[0],
                    label=old.label if label is None else label,
                    metadata=old.metadata if metadata is None else metadata,
                    thumbnail=picture.thumbnail(max_side=opened.thumbnail_side),
                    content_sha256=picture.content_sha256,
                )
            ]
        )
    print_result(asdict(result), f"{result.id}: {result.outcome}", as_json=as_json)


def edit(
    gallery: GalleryArgument,
    item_id: ItemArgument,
    *,
    label: LabelOption = None,
    no_label: Annotated[bool, typer.Option("--no-label", help="Remove the label.")] = False,
    metadata: Annotated[
        dict[str, Any] | None,
        json_object_option(help="JSON object to merge into the metadata; null removes a member."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Give an item of a gallery another label or metadata; its image and vector stay."""
    changes: dict[str, object] = {}
    if metadata is not None:
        changes["metadata"] = metadata
    if label is not None or no_label:
        changes["label"] = label
    if not changes or (label is not None and no_label):
        raise typer.BadParameter("name a --label or --no-label, or --metadata, or both")
    from index.query.editing import Patch  # noqa: PLC0415

    with open_gallery(gallery) as opened:
        item = opened.patch(item_id, Patch(changes))
    metadata_text = json.dumps(item.metadata, ensure_ascii=False)
    text = f"{item.id}: label {item.label or 'none'}, metadata {metadata_text}"
    print_result(asdict(item), text, as_json=as_json)


def rebuild(
    gallery: GalleryArgument, recall: RecallOption = None, as_json: JsonOption = False
) -> None:
    """Build a gallery's search structure anew, also while it is being served.

    Interrupted, the structure of before stays in use; the items are never touched.
    """

    with open_gallery(gallery) as opened, stage_progress() as show:
        made = opened.rebuild(target=recall, on_stage=show)
    print_result(made.to_json(), _summary(made), as_json=as_json)


def compact(gallery: GalleryArgument, as_json: JsonOption = False) -> None:
    """Fold recent items into the search structure, cut the log, and give room back to the disk.

    Where much was deleted, whoever writes waits for the end; searches go on. Meanwhile that takes
    twice the room of what is kept, in the gallery's own folder; it is checked before.
    """
    from index.store.vacuum import check_room_to_vacuum, vacuum  # noqa: PLC0415

    with open_gallery(gallery) as opened, stage_progress() as show:
        opened.check_writable()
        needed = check_room_to_vacuum(gallery)
        if needed:
            print_info(f"giving room back takes {needed / 2**20:,.1f} MiB in {gallery} for a while")
        made = opened.rebuild(on_stage=show)
        show("giving room back")
        saved = vacuum(gallery)
        on_disk = opened.info().bytes_on_disk
    document = {**made.to_json(), "bytes_saved": saved, "bytes_on_disk": on_disk}
    room = f"{saved / 2**20:,.1f} MiB given back, {on_disk / 2**20:,.1f} MiB on disk"
    print_result(document, f"{_summary(made)}\n{room}", as_json=as_json)


def tune(
    gallery: GalleryArgument, recall: RecallOption = None, as_json: JsonOption = False
) -> None:
    """Measure every search structure that is worth trying on the gallery's own items.

    Some items are held out and searched for. The quickest structure that finds the share asked for
    is built, used, and remembered for later rebuilds.
    """

    with open_gallery(gallery) as opened, stage_progress() as show:
        made = opened.rebuild(target=recall, tune=True, on_stage=show)
    if as_json:
        print_json(made.to_json())
        return
    if not made.trials:
        stdout.print(f"{made.count:,} items are too few to measure: all of them are looked at")
        return
    columns = ("structure", "effort", "recall@10", "µs per query", "build s", "")
    rows = [
        (
            f"{spec.kind} {spec.description}".strip(),
            str(spec.search_depth or ""),
            f"{spec.recall:.4f}" if spec.recall is not None else "",
            f"{spec.microseconds:,.0f}" if spec.microseconds is not None else "",
            f"{trial.build_s:.1f}",
            "chosen" if spec == made.spec else "" if trial.reached else "misses the recall",
        )
        for trial in made.trials
        for spec in [trial.spec]
    ]
    stdout.print(make_table(None, columns, rows))


def duplicates(
    gallery: GalleryArgument,
    min_score: Annotated[
        float, typer.Option(min=-1, max=1, help="Least cosine similarity of near duplicates.")
    ] = 0.99,
    near: Annotated[
        bool | None,
        typer.Option(
            "--near/--exact",
            help="Only items with near vectors, or only items of the same content; by default "
            "both.",
            show_default=False,
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """List items that are the same image, or nearly the same; nothing is changed."""
    from index.operations.duplicates import find_duplicates, find_same_content  # noqa: PLC0415

    if not -1 <= min_score <= 1:  # nan
        raise typer.BadParameter("not a cosine", param_hint="--min-score")
    found: dict[str, list[list[DuplicateItem]]] = {}
    with open_gallery(gallery) as opened:
        if near is False:
            found["exact"], complete = find_same_content(opened), True
        else:
            with share_progress("comparing") as show:
                answer = find_duplicates(opened, min_score=min_score, on_progress=show)
            found["near"], complete = answer.near, answer.complete
            if near is None:
                found = {"exact": answer.exact, **found}
    if as_json:
        listed = {
            kind: [[asdict(member) for member in group] for group in groups]
            for kind, groups in found.items()
        }
        print_json({**listed, "min_score": min_score, "complete": complete})
        return
    for kind, groups in found.items():
        _print_groups(kind, groups)
    if not complete:
        print_info(
            "so large a gallery is compared through its search structure, which may miss a few"
        )


def _print_groups(kind: str, groups: "list[list[DuplicateItem]]") -> None:
    what = "the same content" if kind == "exact" else "near vectors"
    if not groups:
        stdout.print(f"no items with {what}")
        return
    rows = []
    for group in groups[:SHOWN_GROUPS]:
        first, *others = group
        listed = [f"{member.id} ({member.score:.4f})" for member in others[:SHOWN_MEMBERS]]
        more = [f"… {len(others) - len(listed)} more"] if len(others) > len(listed) else []
        rows.append((str(len(group)), first.id, ", ".join([*listed, *more])))
    items = sum(map(len, groups))
    title = f"{items:,} items in {len(groups):,} groups with {what}"
    stdout.print(make_table(title, ("items", "oldest", "others (score to it)"), rows))
    if len(groups) > SHOWN_GROUPS:
        print_info(f"… and {len(groups) - SHOWN_GROUPS} groups more; --json lists all")


def _summary(made: "Compaction") -> str:
    recall = "" if made.spec.recall is None else f", recall {made.spec.recall:.4f}"
    summary = f"generation {made.generation}: {made.spec.kind}, {made.count:,} items{recall}"
    return f"{summary}\n{made.spec.note}" if made.spec.note else summary
