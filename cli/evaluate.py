"""`lookalike evaluate`: measures a model folder on data it may not have seen, and reports."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from rich.table import Table

from cli.support.console import make_table, print_info, print_json, stdout
from cli.support.dataset_loading import load_to_evaluate
from cli.support.options import (
    DataOption,
    DeviceOption,
    GroupOption,
    JsonOption,
    ModelArgument,
    RuntimeOption,
)
from files.durable import replace_file
from training.formatting import plural

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
    model: ModelArgument,
    *,
    data: DataOption = "fashion-mnist",
    group: GroupOption = None,
    report: Annotated[
        Path | None,
        typer.Option(
            help="Folder for report.html and report.json; by default the model folder.",
            show_default=False,
        ),
    ] = None,
    device: DeviceOption = "auto",
    runtime: RuntimeOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Measure a model on images that it has not learnt from: classes, confidence, and search.

    Of data with a test part, that is measured; of others, everything that is new to the model.
    A model with an export is measured as it is served on a CPU, with that.
    Writes report.html, a page with the figures and the images behind them, and report.json.
    """
    # Here, because it keeps `--help` quick.
    from training.evaluation.evaluate import evaluate_model  # noqa: PLC0415

    dataset = load_to_evaluate(data, model, group=group)
    measured = evaluate_model(model, dataset, device=device, runtime=runtime)
    if as_json:
        print_json(figures_of(measured, dataset))
    else:
        _print(measured.evaluation)
    # The figures are out: whatever becomes of the files, they are not lost.
    folder = report or model
    write_report(measured, dataset, folder)
    print_info(f"report: {folder / REPORT_PAGE}")


def figures_of(measured: "Measurement", dataset: "Dataset") -> dict[str, Any]:
    """Return what was measured, and what was found in the data, as JSON values."""
    return {**measured.evaluation.to_json(), "findings": dataset.findings.to_json()}


def write_report(measured: "Measurement", dataset: "Dataset", folder: Path) -> None:
    """Write report.json and then report.html, each whole or not at all.

    Raises:
        OSError: one of them cannot be written.
    """
    from training.evaluation.examples import choose_examples  # noqa: PLC0415 - keeps `--help` quick
    from training.report.html_report import render_report  # noqa: PLC0415

    retrieval = measured.predictions.retrieval
    examples = choose_examples(
        measured.queries,
        dataset.test.labels_N,
        None if retrieval is None else retrieval.first_Q,
        measured.gallery.vectors_BD,
        group_keys=(dataset.test.group_keys_N, dataset.train.group_keys_N),
    )
    folder.mkdir(parents=True, exist_ok=True)
    figures = figures_of(measured, dataset)
    document = json.dumps(figures, ensure_ascii=False, indent=2, allow_nan=False) + "\n"
    replace_file(folder / REPORT_FIGURES, document.encode())
    page = render_report(measured.evaluation, examples, dataset)
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
    columns = ("class", "images", "precision", "recall", "95 % interval", "F1")
    rows = [
        (
            figure.label,
            str(figure.images),
            _ratio(figure.precision),
            _ratio(figure.recall),
            _range(figure.recall_interval, digits=2),
            _ratio(figure.f1),
        )
        for figure in classification.classes
    ]
    return make_table(None, columns, rows, numbers=True)


def _by_kind(by_kind: "tuple[KindFigures, ...]") -> Table:
    columns = ("kind", "is the same item", "is of the same class")
    rows = [
        (
            f"{one.kind:.2f}{' (its own)' if one.own else ''}",
            f"{one.same_item:.4f}",
            _ratio(one.same_class, digits=4),
        )
        for one in by_kind
    ]
    title = "The nearest image, as the knob `kind` is turned"
    return make_table(title, columns, rows, numbers=True)


def _strangers(novelty: "NoveltyFigures") -> Table:
    shares = f"{novelty.refused:.1%} of the test images, {novelty.stated:.1%} stated"
    columns = ("pictures", "certain of a class", "certain and sure", "refused", "AUROC")
    rows = [
        (one.kind, *map(_ratio, (one.certain, one.certain_and_sure, one.refused, one.auroc)))
        for one in novelty.strangers
    ]
    title = f"Not sure of: {shares}; and of made pictures of other things"
    return make_table(title, columns, rows, numbers=True)


def _ratio(value: float | None, *, digits: int = 3) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _range(bounds: tuple[float, float] | None, *, digits: int = 4) -> str:
    return f"{bounds[0]:.{digits}f} to {bounds[1]:.{digits}f}" if bounds else ""


def _figures(evaluation: "Evaluation") -> Table:
    same, speed = evaluation.same_item, evaluation.speed
    figures: list[Row] = [
        *_class_rows(evaluation.classification),
        *_search_rows(evaluation.class_search, evaluation.gallery_images),
        (f"same item is the nearest of {same.gallery_images}", same.r_at_1, same.r_at_1_interval),
        ("same item is among the first 10", same.r_at_10, same.r_at_10_interval),
    ]
    rows = [
        *((name, f"{value:.4f}", _range(interval)) for name, value, interval in figures),
        (f"ms for one image, {speed.device}", f"{speed.ms_one_image:.1f}", ""),
        ("images/s in batches", f"{speed.images_per_s:,.0f}", ""),
    ]
    title = plural(evaluation.images, "test image")
    return make_table(title, ("figure", "value", "95 % interval"), rows, numbers=True)


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
    new, everything = held_out.among_held_out, held_out.among_all
    columns = (
        "figure",
        f"among {new.gallery_images} of them",
        f"among all {everything.gallery_images}",
    )
    figures = (
        ("nearest is of its class", new.r_at_1, everything.r_at_1),
        ("share of the first 10 in its class", new.precision_at_10, everything.precision_at_10),
        ("mean average precision", new.map, everything.map),
        ("mean average precision at R", new.map_at_r, everything.map_at_r),
    )
    rows = [(name, f"{first:.4f}", f"{second:.4f}") for name, first, second in figures]
    title = f"{held_out.images} images of {len(held_out.classes)} classes never seen"
    return make_table(title, columns, rows, numbers=True)
