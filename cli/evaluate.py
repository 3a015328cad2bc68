"""`lookalike evaluate`: measures a model folder on data it may not have seen, and reports."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from rich.table import Table

from cli.gallery.build import RuntimeOption
from cli.support.console import print_json, say, stdout
from cli.support.dataset_option import DATA_HELP, GroupOption, load_to_measure, that_is_named
from files.durable import replace_file
from training.formatting import things

if TYPE_CHECKING:
    from training.data.dataset import Dataset
    from training.evaluation.evaluate import Measurement
    from training.evaluation.results import (
        ClassificationFigures,
        ClassSearchFigures,
        Evaluation,
        HeldOutFigures,
        KindFigures,
        NoveltyFigures,
    )

REPORT_FIGURES: Final = "report.json"
REPORT_PAGE: Final = "report.html"

Row = tuple[str, float, tuple[float, float] | None]  # a figure's name, value and 95 % interval


def evaluate(
    model: Annotated[Path, typer.Argument(help="Model folder.", show_default=False)],
    *,
    data: Annotated[str, typer.Option(help=DATA_HELP, callback=that_is_named)] = "fashion-mnist",
    group: GroupOption = None,
    report: Annotated[
        Path | None,
        typer.Option(
            help="Folder for report.html and report.json; the model folder if not given.",
            show_default=False,
        ),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    runtime: RuntimeOption = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Measure a model on images that it has not learnt from: classes, confidence, and search.

    Of data with a test part, that is measured; of others, everything that is new to the model.
    A model with an export is measured as it is served on a CPU, with that.
    Writes report.html, a page with the figures and the images behind them, and report.json.
    """
    # Here, because it keeps `--help` quick.
    from training.evaluation.evaluate import measure  # noqa: PLC0415

    dataset = load_to_measure(data, model, group=group)
    measured = measure(model, dataset, device=device, runtime=runtime)
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
    from training.evaluation.examples import gather_evidence  # noqa: PLC0415 - keeps `--help` quick
    from training.report.html_report import render_report  # noqa: PLC0415

    retrieval = measured.outcome.retrieval
    evidence = gather_evidence(
        measured.queries,
        dataset.test.labels_N,
        None if retrieval is None else retrieval.first_Q,
        measured.gallery.vectors_BD,
        lots=(dataset.test.lots_N, dataset.train.lots_N),
    )
    folder.mkdir(parents=True, exist_ok=True)
    figures = figures_of(measured, dataset)
    document = json.dumps(figures, ensure_ascii=False, indent=2, allow_nan=False) + "\n"
    replace_file(folder / REPORT_FIGURES, document.encode())
    page = render_report(measured.evaluation, evidence, dataset)
    replace_file(folder / REPORT_PAGE, page.encode())


def _print(evaluation: "Evaluation") -> None:
    stdout.print(_figures(evaluation))
    if evaluation.same_item.by_kind:
        stdout.print(_by_kind(evaluation.same_item.by_kind))
    if evaluation.held_out:
        stdout.print(_held_out(evaluation.held_out))
    if evaluation.novelty:
        stdout.print(_strangers(evaluation.novelty))
    if evaluation.classification:
        stdout.print(_classes(evaluation.classification))
    stdout.print(f"Same item: a query is to find {evaluation.same_item.in_words}.")
    for sentence in evaluation.in_words:
        stdout.print(sentence)


def _classes(classification: "ClassificationFigures") -> Table:
    classes = Table()
    classes.add_column("class")
    for name in ("images", "precision", "recall", "95 % interval", "F1"):
        classes.add_column(name, justify="right")
    for figure in classification.classes:
        classes.add_row(
            figure.label,
            str(figure.images),
            _ratio(figure.precision),
            _ratio(figure.recall),
            _range(figure.recall_interval, digits=2),
            _ratio(figure.f1),
        )
    return classes


def _by_kind(by_kind: "tuple[KindFigures, ...]") -> Table:
    table = Table(title="The nearest image, as the knob `kind` is turned")
    for name in ("kind", "is the same item", "is of the same class"):
        table.add_column(name, justify="right")
    for one in by_kind:
        shown = f"{one.kind:.2f}{' (its own)' if one.own else ''}"
        table.add_row(shown, f"{one.same_item:.4f}", _ratio(one.same_class, digits=4))
    return table


def _strangers(novelty: "NoveltyFigures") -> Table:
    shown = f"{novelty.refused:.1%} of the test images, {novelty.stated:.1%} stated"
    table = Table(title=f"Not sure of: {shown}; and of made pictures of other things")
    table.add_column("pictures")
    for name in ("certain of a class", "certain and sure", "refused", "AUROC"):
        table.add_column(name, justify="right")
    for one in novelty.strangers:
        shares = (one.certain, one.certain_and_sure, one.refused, one.auroc)
        table.add_row(one.kind, *map(_ratio, shares))
    return table


def _ratio(value: float | None, *, digits: int = 3) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _range(bounds: tuple[float, float] | None, *, digits: int = 4) -> str:
    return f"{bounds[0]:.{digits}f} to {bounds[1]:.{digits}f}" if bounds else ""


def _figures(evaluation: "Evaluation") -> Table:
    table = Table(title=things(evaluation.images, "test image"))
    table.add_column("figure")
    table.add_column("value", justify="right")
    table.add_column("95 % interval", justify="right")
    for name, value, interval in (
        *_class_rows(evaluation.classification),
        *_search_rows(evaluation.class_search, evaluation.gallery_images),
        (
            f"same item is the nearest of {evaluation.same_item.gallery_images}",
            evaluation.same_item.r_at_1,
            evaluation.same_item.r_at_1_interval,
        ),
        (
            "same item is among the first 10",
            evaluation.same_item.r_at_10,
            evaluation.same_item.r_at_10_interval,
        ),
    ):
        table.add_row(name, f"{value:.4f}", _range(interval))
    speed = evaluation.speed
    table.add_row(f"ms for one image, {speed.device}", f"{speed.ms_one_image:.1f}", "")
    table.add_row("images/s in batches", f"{speed.images_per_s:,.0f}", "")
    return table


def _class_rows(figures: "ClassificationFigures | None") -> list[Row]:
    if figures is None:
        return []
    return [
        ("accuracy", figures.accuracy, figures.accuracy_interval),
        ("balanced accuracy", figures.balanced_accuracy, None),
        ("mean loss, nats", figures.mean_loss, None),
        (
            "calibration error beyond chance",
            figures.calibration_error_beyond_chance,
            figures.calibration_error_beyond_chance_interval,
        ),
        ("  calibration error as it is", figures.calibration_error, None),
        ("  of honest probabilities", figures.calibration_error_honest, None),
        ("  before calibration", figures.calibration_error_uncalibrated, None),
    ]


def _search_rows(figures: "ClassSearchFigures | None", gallery_images: int) -> list[Row]:
    if figures is None:
        return []
    return [
        (f"nearest of {gallery_images} is of its class", figures.r_at_1, figures.r_at_1_interval),
        ("share of the first 10 in its class", figures.precision_at_10, None),
        ("mean average precision", figures.map, figures.map_interval),
        ("mean average precision at R", figures.map_at_r, None),
    ]


def _held_out(held_out: "HeldOutFigures") -> Table:
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
