"""What was measured of a model in, one HTML page about it out: no script, no request.

Class names are other people's input: every text is escaped by the templates in ``templates``.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from training import formatting
from training.heads.model_choice import candidate_rows
from training.report.charts import Line, line_chart, reliability_diagram
from training.report.embedding_plot import embedding_plot, symbol
from training.report.inline_images import example_image

if TYPE_CHECKING:
    from training.data.dataset import Dataset
    from training.evaluation.examples import Examples
    from training.evaluation.results import Evaluation

PAGE: Final = Path(__file__).with_name("templates")
MOST_CELLS: Final = 30  # classes that a confusion matrix can show and still be read
MOST_PAIRS: Final = 30  # confused pairs that are listed in its place


def render_report(evaluation: "Evaluation", examples: "Examples", dataset: "Dataset") -> str:
    """Return the page: some 100 kB, and some kB for each of its about 150 pictures.

    Args:
        evaluation: the figures.
        examples: the images behind them, by their positions in ``dataset``.
        dataset: the one that was measured on.
    """
    figures = evaluation.to_json()
    names = dataset.label_names
    classes, confusion = figures["classes"] or [], figures["confusion"] or []
    return (
        _environment()
        .get_template("report.html")
        .render(
            style=Markup((PAGE / "report.css").read_text(encoding="utf-8")),
            figures=figures,
            names=names,
            classified=bool(classes),
            searched=_searched(figures),
            guessing=math.log(len(names) or 1),  # the mean loss of equal probabilities, in nats
            hardest_first=sorted(classes, key=_hardness),
            matrix=confusion if len(names) <= MOST_CELLS else None,
            pairs=confused_pairs(confusion)[:MOST_PAIRS],
            curves=_curves(figures["history"]),
            before=_reliability("before", figures["reliability_uncalibrated"]),
            after=_reliability("after", figures["reliability"]),
            examples=examples,
            test_image=partial(example_image, dataset.test),
            gallery_image=partial(example_image, dataset.train),
            map=_map(examples, dataset, names),
            findings=dataset.findings.to_json(),
            symbols=[symbol(label) for label in range(len(names))],
        )
    )


def _reliability(when: str, bins: list[dict[str, Any]] | None) -> Markup | None:
    if bins is None:
        return None
    return reliability_diagram(f"Accuracy by stated probability, {when} calibration", bins)


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(PAGE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    said = (
        candidate_rows,
        *(
            formatting.percent,
            formatting.interval,
            formatting.score,
            formatting.count,
            formatting.plural,
            formatting.decimal,
        ),
        *(formatting.megabytes, formatting.milliseconds, formatting.duration, formatting.day),
    )
    environment.filters |= {say.__name__: say for say in said}
    return environment


def _searched(figures: dict[str, Any]) -> str:
    """Return in words what the measured images were searched among."""
    among = (figures["data"]["selection"] or {}).get("among", "training part")
    if among == "measured images":
        return f"the other {formatting.plural(figures['gallery_images'] - 1, 'test image')}"
    kind = "training image" if among == "training part" else "image that the model has learnt from"
    many = None if among == "training part" else "images that the model has learnt from"
    return f"the {formatting.plural(figures['gallery_images'], kind, many)}"


def _hardness(figure: dict[str, Any]) -> float:
    """Return what classes are sorted by: their F1, those that were not measured last."""
    return math.inf if figure["f1"] is None else figure["f1"]


# -- confusion


@dataclass(frozen=True, slots=True)
class Pair:
    """A class that was taken for another one."""

    label: int  # the one the images have
    predicted: int
    images: int
    share: float  # of the images that have the class


def confused_pairs(confusion: Sequence[Sequence[int]]) -> list[Pair]:
    """Return every pair of classes that was confused, the one of the most images first."""
    pairs = [
        Pair(label, predicted, images, images / sum(row))
        for label, row in enumerate(confusion)
        for predicted, images in enumerate(row)
        if predicted != label and images
    ]
    return sorted(pairs, key=lambda pair: (-pair.images, -pair.share))


# -- learning curves


@dataclass(frozen=True, slots=True)
class Curve:
    """A drawing and what it is called."""

    heading: str
    meaning: str
    drawing: Markup


def _curves(history: Sequence[dict[str, Any]]) -> list[Curve]:
    """Return loss, accuracy and learning rate over the epochs; nothing without a history."""
    if not history:
        return []
    epochs = [report["epoch"] for report in history]

    def line(name: str, style: str, key: str) -> list[Line]:
        values = tuple(report[key] for report in history)
        return [Line(name, style, values)] if any(value is not None for value in values) else []

    def curve(
        heading: str, meaning: str, lines: list[Line], say: Callable[[float], str], **axis: Any
    ) -> Curve:
        drawing = line_chart(f"{heading} by epoch", epochs, lines, say=say, **axis)
        return Curve(heading, meaning, drawing)

    learnt, held_out = ("training images", "training"), ("held-out images", "held-out")
    return [
        curve(
            "Loss, nats",
            "How surprised the network was by the right answers; lower is better.",
            line(*learnt, "loss") + line(*held_out, "validation_loss"),
            formatting.decimal,
            from_zero=True,
        ),
        curve(
            "Accuracy",
            "The share of images that got the right class; higher is better.",
            line(*learnt, "accuracy") + line(*held_out, "validation_accuracy"),
            formatting.percent,
            from_zero=False,
            highest=1.0,
        ),
        curve(
            "Learning rate, per step",
            "How far a step at the end of the epoch moved the weights.",
            line("learning rate", "training", "learning_rate"),
            formatting.decimal,
            from_zero=True,
        ),
    ]


# -- map


def _map(examples: "Examples", dataset: "Dataset", names: Sequence[str]) -> Markup | None:
    points = examples.plot_points
    if not len(points.xy):
        return None
    labels_M = dataset.test.labels_N[points.indexes] if names else points.predicted
    return embedding_plot(points.xy, labels_M, points.predicted, names or ("an image",))
