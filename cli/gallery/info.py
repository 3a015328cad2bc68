"""`lookalike index info`: what a gallery holds, and for which model."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from cli.support.console import make_table, print_info, print_json, stdout
from cli.support.gallery_filling import SHOWN_DIGITS, open_gallery
from cli.support.options import GalleryArgument, JsonOption
from training.formatting import plural

if TYPE_CHECKING:
    from index.items.item import GalleryInfo
    from index.operations.statistics import GalleryStatistics

NO_LABEL = "(without a label)"
MOST_LABELS = 1000  # in a table for people; of a million, the table would take minutes


def info(
    gallery: GalleryArgument,
    labels: Annotated[
        bool,
        typer.Option("--labels", help="Also count items by label and by metadata."),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Show what a gallery holds, and for which model."""
    from index.operations.statistics import gallery_statistics  # noqa: PLC0415

    with open_gallery(gallery) as opened:
        facts = opened.info()
        model_folder = opened.binding.model_folder
        side = opened.thumbnail_side
        contents = gallery_statistics(gallery) if labels else None
    if as_json:
        counted = {} if contents is None else _to_json(contents)
        document = {**asdict(facts), "model_folder": model_folder, "thumbnail_side": side}
        print_json({**document, **counted})
        return
    rows = {
        "images": f"{facts.count:,}",
        "model": f"{facts.model_name} ({facts.fingerprint[:SHOWN_DIGITS]}…)",
        "model folder": model_folder or "not known",
        "vector": f"{facts.width} numbers",
        "pictures": f"up to {side} pixels",
        "index": f"{facts.structure}, generation {facts.generation}, seq {facts.seq}",
        "recall": _recall(facts),
        "recent": f"{facts.recent:,} stored since the index was built",
        "state": facts.state if facts.reason is None else f"{facts.state}: {facts.reason}",
        "on disk": f"{facts.bytes_on_disk / 2**20:,.1f} MiB",
    }
    stdout.print(make_table(facts.name, ("", ""), list(rows.items())))
    if contents is not None:
        _print_contents(contents)
    if facts.note:
        print_info(facts.note)


def _to_json(contents: "GalleryStatistics") -> dict[str, object]:
    return {
        "labels": dict(contents.labels),
        "unlabelled": contents.unlabelled,
        "metadata": {
            member.name: {
                "items": member.items,
                "values": member.values,
                "most": [{"value": value, "count": count} for value, count in member.most],
            }
            for member in contents.fields
        },
    }


def _print_contents(contents: "GalleryStatistics") -> None:
    shown = contents.labels[:MOST_LABELS]
    counts = [(label, f"{count:,}") for label, count in shown]
    if contents.unlabelled:
        counts.append((NO_LABEL, f"{contents.unlabelled:,}"))
    stdout.print(make_table(f"{len(contents.labels):,} labels", ("label", "images"), counts))
    if len(shown) < len(contents.labels):
        more = plural(len(contents.labels) - len(shown), "label")
        print_info(f"{more} more; --json gives all of them")
    if not contents.fields:
        return
    rows = [
        (
            member.name,
            f"{member.items:,}",
            f"{member.values:,}",
            # Where hardly any value comes twice, as with paths, examples say nothing.
            ", ".join(f"{value} ({count:,})" for value, count in member.most if count > 1),
        )
        for member in contents.fields
    ]
    stdout.print(make_table("metadata", ("member", "images", "values", "most frequent"), rows))


def _recall(facts: "GalleryInfo") -> str:
    if facts.recall is None:
        return "not known"
    if not facts.recall_queries or facts.recall_low is None or facts.recall_high is None:
        return f"{facts.recall:.4f}"
    return (
        f"{facts.recall:.4f}; at least {facts.recall_low:.4f} and at most {facts.recall_high:.4f}, "
        f"each with 95 % confidence ({facts.recall_queries:,} queries)"
    )
