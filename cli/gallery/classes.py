"""`lookalike index classes`: labels that items were given in a gallery become a model's classes."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.support.console import print_info, print_json, stdout
from cli.support.gallery_filling import find_model_folder
from cli.support.options import GalleryArgument, GalleryModelOption, JsonOption

if TYPE_CHECKING:
    from training.gallery_classes import ClassedModel


def classes(
    gallery: GalleryArgument,
    *,
    out: Annotated[
        Path, typer.Option(help="Model folder to make; it must not exist.", show_default=False)
    ],
    model: GalleryModelOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make the labels of a gallery's items the classes of a model, in a new model folder.

    Vectors stay what they are: serve the new folder with the same gallery, nothing is indexed anew.
    What the model knew as classes before is replaced.
    """
    folder = find_model_folder(gallery, model)
    from training.gallery_classes import add_classes  # noqa: PLC0415 - keeps `--help` quick

    made = add_classes(gallery, folder, out)
    if as_json:
        print_json(_to_json(made, out))
        return
    for sentence in _in_words(made):
        stdout.print(sentence)
    print_info(
        f"{out} is ready, also for this gallery: lookalike serve --model {out} --gallery {gallery}"
    )


def _to_json(made: "ClassedModel", out: Path) -> dict[str, Any]:
    fitted, items = made.fitted, made.items
    return {
        "out": str(out),
        "fingerprint": made.manifest.fingerprint,
        "classes_before": len(made.before),
        "classes": len(items.names),
        "labels": list(items.names),
        "items": items.facts.count,
        "labelled": len(items),
        "classes_of_one_photo": fitted.alone,
        "measured": fitted.measured,
        "measured_all_new": fitted.all_new,
        "accuracy": fitted.accuracy,
        "accuracy_interval": list(fitted.interval),
        "temperature": fitted.temperature,
        "refused": fitted.references.refused,
    }


def _in_words(made: "ClassedModel") -> list[str]:
    from training.formatting import interval, percent, plural  # noqa: PLC0415

    fitted, items = made.fitted, made.items
    count = plural(len(items.names), "class", "classes")
    before = plural(len(made.before), "class", "classes") if made.before else "no classes"
    replaced = ", which these replace" if made.before else ""
    sentences = [
        f"{count} learnt from {len(items):,} labelled of {plural(items.facts.count, 'item')}; the "
        f"model had {before}{replaced}",
        f"accuracy {percent(fitted.accuracy)} ({interval(fitted.interval)}, 95%) on "
        f"{plural(fitted.measured, 'item')}, each held out of what judged it",
    ]
    if not fitted.all_new:
        sentences.append(
            "the network had learnt from labels of these photos before, so that this accuracy is "
            "flattering: measure it on new ones with lookalike evaluate"
        )
    if fitted.alone:
        alone = plural(fitted.alone, "class", "classes")
        sentences.append(
            f"{alone} of one photo or one group: learnt, but not measured; give each a second one"
        )
    return sentences
