"""`lookalike evaluate`: measures a model folder on data it may not have seen."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from cli.console import print_json, stdout
from cli.train import load
from vision.manifest import read_manifest

if TYPE_CHECKING:
    from training.evaluate import Evaluation


def evaluate(
    model: Annotated[Path, typer.Argument(help="Model folder.", show_default=False)],
    data: Annotated[
        str, typer.Option(help="`fashion-mnist` or a folder of class folders.")
    ] = "fashion-mnist",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Measure a model on the test images: classes, confidence, and search among training images."""
    from training.evaluate import evaluate as evaluate_model  # noqa: PLC0415 - keeps `--help` quick

    dataset = load(data, read_manifest(model).preprocessing)
    evaluation = evaluate_model(model, dataset, device=device)
    if as_json:
        print_json(evaluation.to_json())
    else:
        _print(evaluation)


def _print(evaluation: "Evaluation") -> None:
    figures = Table(title=f"{evaluation.images} test images")
    figures.add_column("figure")
    figures.add_column("value", justify="right")
    for name, value in (
        ("accuracy", evaluation.accuracy),
        ("mean loss, nats", evaluation.mean_loss),
        ("calibration error", evaluation.calibration_error),
        (f"right class at rank 1 of {evaluation.gallery_images}", evaluation.r_at_1),
        ("right class among the first 10", evaluation.precision_at_10),
        ("mean average precision", evaluation.map),
    ):
        figures.add_row(name, f"{value:.4f}")
    stdout.print(figures)

    classes = Table()
    classes.add_column("class")
    for name in ("images", "precision", "recall"):
        classes.add_column(name, justify="right")
    for figure in evaluation.classes:
        precision = "-" if figure.precision is None else f"{figure.precision:.3f}"
        classes.add_row(figure.label, str(figure.images), precision, f"{figure.recall:.3f}")
    stdout.print(classes)
