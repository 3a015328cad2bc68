"""A manifest in, a model card out: what the model is, what it is for, and what was measured.

The sections are those of Mitchell et al. 2019, "Model Cards for Model Reporting", as far as there
are facts for them. Names of classes and data are other people's input: all text is escaped.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from training.belief import accuracy_in_words
from training.evaluation import ClassFigures
from training.units import count, day, decimal, duration, interval, percent, things
from vision.manifest import MANIFEST_NAME, WEIGHTS_NAME, Manifest

FRONT_MATTER: Final = """\
---
library_name: lookalike
pipeline_tag: image-classification
tags:
- image-classification
- image-feature-extraction
- visual-search
---
"""
MOST_LABELS: Final = 200  # classes that are listed one by one
WEAK_RECALL: Final = 0.8  # below it a class is named as weak
FEWEST_WEAK: Final = 3  # classes that are named even if none is below
MOST_WEAK: Final = 10

# Everything that Markdown may read as more than text, but for what only counts where a line begins.
SPECIAL: Final = re.compile(r"([\\`*_{}\[\]|#~!$@]|(?<=:)//|(?<=www)\.)")

DATA: Final = {  # what the manifest keeps of the data, in words
    "name": "Name",
    "train_images": "Training images",
    "validation_images": "Validation images of their own part",
    "test_images": "Test images",
    "held_out_classes": "Classes left out of the training",
    "unreadable": "Files left out because they could not be read",
    "leaked": "Training images left out because they are among the test images",
    "contradictions": "Copies of one photo that have two labels, and were kept",
    "learnt_sha256": "SHA-256 of the list of images it has learnt from",
    "train_fingerprint": "SHA-256 of the training images",
    "validation_fingerprint": "SHA-256 of the held-out images",
    "test_fingerprint": "SHA-256 of the test images",
}


def model_card(manifest: Manifest, *, classes: Mapping[str, ClassFigures]) -> str:
    """Return the card as Markdown with YAML front matter.

    Args:
        manifest: of the model; where its weights are not yet known, their SHA-256 is not told.
        classes: by label, the figures of those that have test images; may be empty.
    """
    sections = (
        _introduction(manifest),
        _details(manifest),
        _intended_use(manifest),
        _data(manifest.data),
        _training(manifest),
        _figures(manifest),
        _recalls(classes),
        _use(),
        _files(),
    )
    return FRONT_MATTER + "\n" + "\n\n".join("\n\n".join(section) for section in sections) + "\n"


def _introduction(manifest: Manifest) -> Iterator[str]:
    labels, width = len(manifest.labels), manifest.architecture.width
    yield f"# {plain(manifest.name)}"
    yield (
        f"A {plain(manifest.architecture.network)} network that says which of "
        f"{things(labels, 'class', 'classes')} an image shows, how probable that is, and "
        f"turns it into a vector of {count(width)} numbers to find look-alikes by."
    )


def _details(manifest: Manifest) -> Iterator[str]:
    architecture, preprocessing = manifest.architecture, manifest.preprocessing
    colours = "grey" if preprocessing.channels == 1 else "RGB"
    rows: list[tuple[str, str]] = [
        ("Network", architecture.network),
        ("Layer the vector is taken from", architecture.embedding_layer),
        ("Vector width", f"{count(architecture.width)} numbers"),
        ("Classes", count(architecture.num_labels)),
        ("Input", f"{preprocessing.size} x {preprocessing.size} pixels, {colours}"),
        ("Temperature of the probabilities", decimal(manifest.temperature)),
        ("Created", day(manifest.created)),
    ]
    if "parameters" in manifest.metrics:
        rows.append(("Parameters", count(int(manifest.metrics["parameters"]))))
    if manifest.weights_sha256:
        rows.append(("SHA-256 of the weights", manifest.weights_sha256))
        rows.append(("Fingerprint", manifest.fingerprint))
    yield "## Model details"
    yield _table(("Fact", "Value"), rows)
    shown = ", ".join(plain(label) for label in manifest.labels[:MOST_LABELS])
    more = len(manifest.labels) - MOST_LABELS
    yield f"Classes: {shown}" + (
        f" and {count(more)} more, in `{MANIFEST_NAME}`." if more > 0 else "."
    )


def _intended_use(manifest: Manifest) -> Iterator[str]:
    labels = things(len(manifest.labels), "class", "classes")
    yield "## Intended use"
    yield "Naming images of the classes above, and finding images that look alike."
    yield "### Limits"
    yield "\n".join(
        (
            f"- It was trained on these {labels} only and always answers with one of them. An "
            "image of anything else gets a wrong answer, at times with a high probability; a least "
            "probability filters many of these answers, not all.",
            "- Its probabilities hold for images like the test images; of others they say little.",
            f"- It sees {manifest.preprocessing.size} x {manifest.preprocessing.size} pixels: what "
            "cannot be told at that size cannot be told by it.",
            "- It was measured on the test images below and on nothing else. Measure it on your "
            "own before you rely on it.",
        )
    )


def _data(data: Mapping[str, Any]) -> Iterator[str]:
    yield "## Training data"
    told = {key: value for key, value in data.items() if value not in (None, [], "")}
    if not told:
        yield "The model does not say what it was trained on."
        return
    known = [(words, told.pop(key)) for key, words in DATA.items() if key in told]
    yield _table(("Fact", "Value"), known + _flat(told))


def _training(manifest: Manifest) -> Iterator[str]:
    recipe, metrics = manifest.recipe, manifest.metrics
    yield "## Training"
    if not recipe:
        yield "The model does not say how it was trained."
        return
    if "epochs" in metrics and "train_seconds" in metrics:
        kept = ""
        if metrics.get("kept_epoch", metrics["epochs"]) != metrics["epochs"]:
            kept = f", of which the weights of epoch {metrics['kept_epoch']:.0f} were kept"
        yield (
            f"It took {things(int(metrics['epochs']), 'epoch')} and "
            f"{duration(metrics['train_seconds'])}{kept}."
        )
    if recipe.get("predecessor"):
        yield (
            f"It goes on from the model {plain(str(recipe['weights']))}, fingerprint "
            f"`{plain(str(recipe['predecessor']))}`, and knows what that model had learnt."
        )
    elif recipe.get("weights"):
        digest = recipe.get("weights_sha256")
        yield f"It began with pretrained weights: {plain(str(recipe['weights']))}" + (
            f", SHA-256 `{plain(str(digest))}`." if digest else "."
        )
    elif "weights" in recipe:
        yield "It began with random weights."
    yield _table(("Setting of the recipe", "Value"), _flat(recipe))


def _figures(manifest: Manifest) -> Iterator[str]:
    metrics = manifest.metrics
    rows: list[tuple[str, str]] = []
    if "test_accuracy" in metrics:
        rows.append(("Accuracy", percent(metrics["test_accuracy"])))
    if {"test_accuracy_low", "test_accuracy_high"} <= metrics.keys():
        bounds = (metrics["test_accuracy_low"], metrics["test_accuracy_high"])
        rows.append(("95% interval of the accuracy", interval(bounds)))
    if "calibration_error_beyond_chance" in metrics:
        beyond = percent(metrics["calibration_error_beyond_chance"])
        rows.append(("Calibration error beyond chance", beyond))
    if "calibration_error" in metrics:
        rows.append(("Calibration error (ECE, 15 bins)", percent(metrics["calibration_error"])))
    if "calibration_error_honest" in metrics:
        honest = percent(metrics["calibration_error_honest"])
        rows.append(("The same of honest probabilities, on this many images", honest))
    if "calibration_error_uncalibrated" in metrics:
        before = percent(metrics["calibration_error_uncalibrated"])
        rows.append(("The same before calibration", before))
    yield "## Test figures"
    if not rows:
        yield "The model does not say how it was measured."
        return
    yield _table(("Figure", "Test images"), rows)
    yield (
        "Accuracy is the share of test images that get the right class; the calibration error is "
        "the mean distance between the stated probability and the share that is right."
    )
    if {"test_images", "test_accuracy_low", "test_accuracy_high"} <= metrics.keys():
        bounds = (metrics["test_accuracy_low"], metrics["test_accuracy_high"])
        yield accuracy_in_words(metrics["test_accuracy"], int(metrics["test_images"]), bounds)


def _recalls(classes: Mapping[str, ClassFigures]) -> Iterator[str]:
    measured = [
        (label, one.recall, one.recall_interval, one.images)
        for label, one in classes.items()
        if one.recall is not None and one.recall_interval is not None
    ]
    if not measured:
        return
    measured.sort(key=lambda row: row[1])
    weak = [row for row in measured if row[1] < WEAK_RECALL] or measured[:FEWEST_WEAK]
    named = ", ".join(
        f"{plain(label)} ({percent(recall)})" for label, recall, *_ in weak[:MOST_WEAK]
    )
    more = len(weak) - MOST_WEAK
    yield "### Recall of each class"
    yield (
        "Of the test images that have a class, the share that was given it, and the shares that so "
        "many images cannot tell from it (95%)."
    )
    yield f"Weakest: {named}" + (f" and {count(more)} more." if more > 0 else ".")
    yield _table(
        ("Class", "Recall"),
        [
            (label, f"{percent(recall)} ({interval(bounds)}; {things(images, 'image')})")
            for label, recall, bounds, images in measured[:MOST_LABELS]
        ],
    )


def _use() -> Iterator[str]:
    yield "## How to use it"
    yield (
        "```sh\n"
        "lookalike classify MODEL image.jpg                # which class, how probable\n"
        "lookalike evaluate MODEL --data FOLDER            # measure it on your own images\n"
        "lookalike index build MODEL --data FOLDER --out GALLERY\n"
        "lookalike serve --model MODEL --gallery GALLERY   # search over HTTP\n"
        "```"
    )
    yield "`MODEL` is this folder, `FOLDER` one with a folder of images per class."


def _files() -> Iterator[str]:
    yield "## Files"
    yield "\n".join(
        (
            f"- `{MANIFEST_NAME}`: the facts above but the recalls, and the SHA-256 of the weights "
            "and of itself.",
            f"- `{WEIGHTS_NAME}`: the weights; they hold numbers only and cannot run code.",
            "- `learnt.safetensors`: 16 bytes for each image it has learnt from, so that it is not "
            "measured with them; no picture can be made of them.",
            "- `training.json`: how the training went, epoch by epoch.",
            "- `README.md`: this card.",
        )
    )
    yield (
        "Manifest and weights are checked by SHA-256 whenever the model is loaded: one changed "
        "byte is refused; so is the list, when the model is measured. The other two files are for "
        "people, and nothing checks them."
    )


# -- Markdown


def plain(text: str) -> str:
    """Return ``text`` so that Markdown shows it as it is, within a line.

    >>> plain("T-shirt/top"), plain("<b>|*x*")
    ('T-shirt/top', '&lt;b&gt;\\\\|\\\\*x\\\\*')
    """
    printable = "".join(letter if letter.isprintable() else " " for letter in text)
    entities = printable.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return SPECIAL.sub(r"\\\1", entities)


def _table(head: tuple[str, str], rows: Iterable[tuple[str, Any]]) -> str:
    lines = [f"| {head[0]} | {head[1]} |", "|---|---|"]
    lines += [f"| {plain(name)} | {plain(_said(value))} |" for name, value in rows]
    return "\n".join(lines)


def _flat(settings: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Return the settings without nesting: ``preprocessing.size`` instead."""
    rows: list[tuple[str, Any]] = []
    for name, value in settings.items():
        if isinstance(value, Mapping):
            rows += _flat(value, f"{prefix}{name}.")
        else:
            rows.append((prefix + name, value))
    return rows


def _said(value: object) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return count(value)
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(_said(part) for part in value)
    return str(value)
