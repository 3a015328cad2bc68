"""`lookalike evaluate`: measures a model folder on data it may not have seen, and reports."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from rich.table import Table

from cli.console import print_json, say, stdout
from cli.data import DATA_HELP, GroupOption, load_to_measure
from training.units import things
from vision.synced import replace_synced

if TYPE_CHECKING:
    from training.data import Dataset
    from training.evaluate import Evaluation, Measurement

REPORT_FIGURES: Final = "report.json"
REPORT_PAGE: Final = "report.html"


def evaluate(
    model: Annotated[Path, typer.Argument(help="Model folder.", show_default=False)],
    *,
    data: Annotated[str, typer.Option(help=DATA_HELP)] = "fashion-mnist",
    group: GroupOption = None,
    report: Annotated[
        Path | None,
        typer.Option(
            help="Folder for report.html and report.json; the model folder if not given.",
            show_default=False,
        ),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Measure a model on images that it has not learnt from: classes, confidence, and search.

    Of data with a test part, that is measured; of others, everything that is new to the model.
    Writes report.html, a page with the figures and the images behind them, and report.json.
    """
    # Here, because it keeps `--help` quick.
    from training.evaluate import measure  # noqa: PLC0415

    dataset = load_to_measure(data, model, group=group)
    measured = measure(model, dataset, device=device)
    if as_json:
        print_json(figures_of(measured, dataset))
    else:
        _print(measured.evaluation)
    # The figures are out: whatever becomes of the files, they are not lost.
    folder = report or model
    write_report(measured, dataset, folder)
    say(f"report: {folder / REPORT_PAGE}")


def figures_of(measured: "Measurement", dataset: "Dataset") -> dict[str, Any]:
    """Return what was measured, and what was found in the data, as JSON values."""
    return {**measured.evaluation.to_json(), "findings": dataset.findings.to_json()}


def write_report(measured: "Measurement", dataset: "Dataset", folder: Path) -> None:
    """Write report.json and then report.html, each whole or not at all.

    Raises:
        OSError: one of them cannot be written.
    """
    from training.evidence import gather_evidence  # noqa: PLC0415 - keeps `--help` quick
    from training.report import render_report  # noqa: PLC0415

    evidence = gather_evidence(
        measured.queries,
        dataset.test.labels_N,
        measured.outcome.retrieval.first_Q,
        measured.gallery.vectors_BD,
        lots=(dataset.test.lots_N, dataset.train.lots_N),
    )
    folder.mkdir(parents=True, exist_ok=True)
    figures = figures_of(measured, dataset)
    document = json.dumps(figures, ensure_ascii=False, indent=2, allow_nan=False) + "\n"
    replace_synced(folder / REPORT_FIGURES, document.encode())
    page = render_report(measured.evaluation, evidence, dataset)
    replace_synced(folder / REPORT_PAGE, page.encode())


def _print(evaluation: "Evaluation") -> None:
    stdout.print(_figures(evaluation))
    if evaluation.held_out:
        stdout.print(_held_out(evaluation))
    classes = Table()
    classes.add_column("class")
    for name in ("images", "precision", "recall", "95 % interval", "F1"):
        classes.add_column(name, justify="right")
    for figure in evaluation.classes:
        classes.add_row(
            figure.label,
            str(figure.images),
            _ratio(figure.precision),
            _ratio(figure.recall),
            _range(figure.recall_interval, digits=2),
            _ratio(figure.f1),
        )
    stdout.print(classes)
    for sentence in evaluation.in_words:
        stdout.print(sentence)


def _ratio(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _range(bounds: tuple[float, float] | None, *, digits: int = 4) -> str:
    return f"{bounds[0]:.{digits}f} to {bounds[1]:.{digits}f}" if bounds else ""


def _figures(evaluation: "Evaluation") -> Table:
    table = Table(title=things(evaluation.images, "test image"))
    table.add_column("figure")
    table.add_column("value", justify="right")
    table.add_column("95 % interval", justify="right")
    for name, value, interval in (
        ("accuracy", evaluation.accuracy, evaluation.accuracy_interval),
        ("balanced accuracy", evaluation.balanced_accuracy, None),
        ("mean loss, nats", evaluation.mean_loss, None),
        (
            "calibration error beyond chance",
            evaluation.calibration_error_beyond_chance,
            evaluation.calibration_error_beyond_chance_interval,
        ),
        ("  calibration error as it is", evaluation.calibration_error, None),
        ("  of honest probabilities", evaluation.calibration_error_honest, None),
        ("  before calibration", evaluation.calibration_error_uncalibrated, None),
        (
            f"nearest of {evaluation.gallery_images} is of its class",
            evaluation.r_at_1,
            evaluation.r_at_1_interval,
        ),
        ("share of the first 10 in its class", evaluation.precision_at_10, None),
        ("mean average precision", evaluation.map, evaluation.map_interval),
        ("mean average precision at R", evaluation.map_at_r, None),
    ):
        table.add_row(name, f"{value:.4f}", _range(interval))
    speed = evaluation.speed
    table.add_row(f"ms for one image, {speed.device}", f"{speed.ms_one_image:.1f}", "")
    table.add_row("images/s in batches", f"{speed.images_per_s:,.0f}", "")
    return table


def _held_out(evaluation: "Evaluation") -> Table:
    held_out = evaluation.held_out
    assert held_out is not None
    among_new, among_all = held_out.among_held_out, held_out.among_all
    table = Table(title=f"{held_out.images} images of {len(held_out.classes)} classes never seen")
    table.add_column("figure")
    table.add_column(f"among {among_new.gallery_images} of them", justify="right")
    table.add_column(f"among all {among_all.gallery_images}", justify="right")
    for name, new, everything in (
        ("nearest is of its class", among_new.r_at_1, among_all.r_at_1),
        (
            "share of the first 10 in its class",
            among_new.precision_at_10,
            among_all.precision_at_10,
        ),
        ("mean average precision", among_new.map, among_all.map),
        ("mean average precision at R", among_new.map_at_r, among_all.map_at_r),
    ):
        table.add_row(name, f"{new:.4f}", f"{everything:.4f}")
    return table
