"""What was measured and tried in, sections of the model card about it out: Markdown."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from training.evaluation.confidence_statements import accuracy_statement
from training.evaluation.results import ClassFigures
from training.formatting import count, interval, percent, plural
from training.heads.model_choice import candidate_rows
from training.report.markdown import plain, table
from vision.model.manifest import Manifest

CLASSES_ORIGIN: Final = "classes"  # in the manifest's data: what classes were learnt from later
MOST_LABELS: Final = 200  # classes that are listed one by one
WEAK_RECALL: Final = 0.8  # below it a class is named as weak
FEWEST_WEAK: Final = 3  # classes that are named even if none is below
MOST_WEAK: Final = 10

FIGURES: Final = (  # what the manifest keeps of the test images, in words
    ("test_accuracy", "Accuracy"),
    ("calibration_error_beyond_chance", "Calibration error beyond chance"),
    ("calibration_error", "Calibration error (ECE, 15 bins)"),
    ("calibration_error_honest", "The same of honest probabilities, on this many images"),
    ("calibration_error_uncalibrated", "The same before calibration"),
)


def tried_section(tried: Mapping[str, Any] | None) -> Iterator[str]:
    """Yield what was tried, and why the best of it was taken."""
    if tried is None:
        return
    titles, *rows = candidate_rows(tried)
    yield "## What was tried"
    yield plain(str(tried["why"]))
    yield table(titles, rows)


def figures_section(manifest: Manifest) -> Iterator[str]:
    """Yield the figures of the test images' classes."""
    metrics = manifest.metrics
    rows = [(title, percent(metrics[name])) for name, title in FIGURES if name in metrics]
    bounds: tuple[float, float] | None = None
    if {"test_accuracy_low", "test_accuracy_high"} <= metrics.keys():
        bounds = (metrics["test_accuracy_low"], metrics["test_accuracy_high"])
        rows.insert(1, ("95% interval of the accuracy", interval(bounds)))
    yield "## Test figures"
    if not rows:
        if "same_item" not in metrics:
            yield "The model does not say how it was measured."
        return
    yield table(("Figure", "Test images"), rows)
    yield (
        "Accuracy is the share of test images that get the right class; the calibration error is "
        "the mean distance between the stated probability and the share that is right."
    )
    if bounds is not None and "test_images" in metrics:
        yield accuracy_statement(metrics["test_accuracy"], int(metrics["test_images"]), bounds)


def same_item_section(metrics: Mapping[str, float]) -> Iterator[str]:
    """Yield how well the very same things are found."""
    if "same_item" not in metrics:
        return
    bounds = (metrics["same_item_low"], metrics["same_item_high"])
    what = (
        "another photo of the same group"
        if metrics["same_item_of_groups"]
        else "the photo it was made of: cropped, turned, in other light, half of them mirrored"
    )
    yield "### The very same thing"
    yield (
        f"{percent(metrics['same_item'])} ({interval(bounds)}, 95%) of "
        f"{plural(int(metrics['same_item_queries']), 'query', 'queries')} found first, among "
        f"{plural(int(metrics['same_item_gallery']), 'image')}, {what}."
    )


def later_classes_section(manifest: Manifest) -> Iterator[str]:
    """Yield where classes come from that were given to a model later, and how good they are."""
    origin, metrics = manifest.data.get(CLASSES_ORIGIN), manifest.metrics
    if origin is None:
        return
    bounds = (metrics["held_out_accuracy_low"], metrics["held_out_accuracy_high"])
    yield "## Classes that came later"
    yield (
        f"The {plural(origin['classes'], 'class', 'classes')} were learnt from the labels of "
        f"{plural(origin['items'], 'item')} of a gallery ({plain(str(origin['gallery']))}): a "
        f"linear layer on the vectors, linear discriminants with a shrinkage of "
        f"{origin['shrinkage']:g}. The network has stayed as it was."
    )
    flattering = alone = ""
    if not origin["all_new"]:
        flattering = (
            " The network had learnt from labels of these photos before, so that the figure is "
            "flattering."
        )
    if origin["classes_of_one_photo"]:
        classes = plural(origin["classes_of_one_photo"], "class", "classes")
        alone = f" {classes} of one photo or one group could not be measured."
    yield (
        f"{percent(metrics['held_out_accuracy'])} ({interval(bounds)}, 95%) of "
        f"{plural(origin['measured'], 'item')} get their class from what was fitted without them."
        f"{flattering}{alone}"
    )


def recalls_section(classes: Mapping[str, ClassFigures]) -> Iterator[str]:
    """Yield each class's recall, the weak ones named first."""
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
    yield table(
        ("Class", "Recall"),
        [
            (label, f"{percent(recall)} ({interval(bounds)}; {plural(images, 'image')})")
            for label, recall, bounds, images in measured[:MOST_LABELS]
        ],
    )
