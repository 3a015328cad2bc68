"""`lookalike compare`: measures models on the same images, and can refuse a worse one."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich import box
from rich.table import Table

from cli.support.console import print_info, print_json, stdout
from cli.support.dataset_loading import load_to_evaluate
from cli.support.options import DataOption, DeviceOption, GroupOption, JsonOption
from dataset.findings import Findings
from training.errors import DataError
from training.formatting import plural
from vision.model.manifest import Manifest, read_manifest

if TYPE_CHECKING:
    from training.evaluation.compare import ComparedModel, Comparison

LOST = 1  # exit code: a figure that must not be lost was lost


def compare(
    base: Annotated[Path, typer.Argument(help="Model folder to compare with.", show_default=False)],
    new: Annotated[list[Path], typer.Argument(help="Model folders.", show_default=False)],
    *,
    data: DataOption = "fashion-mnist",
    group: GroupOption = None,
    must_not_lose: Annotated[
        str,
        typer.Option(
            help="Metrics, separated by commas: if a new model is worse in one of them, the exit "
            "code is 1.",
            show_default=False,
        ),
    ] = "",
    alpha: Annotated[
        float,
        typer.Option(
            min=0,
            max=1,
            help="Significance level: a metric is worse if it is lower at a one-sided p of at "
            "most this; 1: whenever it is lower.",
        ),
    ] = 0.05,
    margin: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            help="Non-inferiority margin: fail unless a loss of more than this share (0.01: one "
            "point) can be excluded at alpha.",
            show_default=False,
        ),
    ] = None,
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Measure models on the same images, each against the first, with significance.

    Images that one of the models has learnt from are left out. Accuracy and the figures of search,
    same_item among them, are tested file by file: McNemar's exact test for shares, a sign-flip
    permutation test for means.
    """
    # Here, because they keep `--help` quick.
    from training.evaluation.compare import (  # noqa: PLC0415
        TESTED,
        check_comparable,
        compare_models,
    )
    from training.evaluation.confidence_statements import guard_statement, points  # noqa: PLC0415

    guarded = tuple(name.strip() for name in must_not_lose.split(",") if name.strip())
    unknown = [name for name in guarded if name not in TESTED]
    if unknown:
        raise typer.BadParameter(
            f"{unknown[0]!r} cannot be tested; known are {', '.join(TESTED)}",
            param_hint="--must-not-lose",
        )
    if margin is not None and not guarded:
        raise typer.BadParameter("it needs --must-not-lose", param_hint="--margin")
    folders = [base, *new]
    manifests = [read_manifest(folder) for folder in folders]
    for folder, manifest in zip(new, manifests[1:], strict=True):
        check_comparable(str(base), manifests[0], str(folder), manifest)

    contenders, notes, findings = _measured(folders, manifests, data, group, device)
    comparisons = [
        compare_models(contenders[0], contender, alpha=alpha) for contender in contenders[1:]
    ]
    _check_measured(guarded, comparisons)
    lost = {
        comparison.new: figures
        for comparison in comparisons
        if (figures := comparison.lost(guarded, margin=margin))
    }
    could_see = {
        comparison.new: [
            guard_statement(
                figure, comparison.differences[figure], comparison.counts[figure], alpha
            )
            for figure in guarded
            if figure not in lost.get(comparison.new, ())
        ]
        for comparison in comparisons
    }
    if as_json:
        print_json(
            {
                "images": comparisons[0].images,
                "models": [contender.to_json() for contender in contenders],
                "comparisons": [comparison.to_json() for comparison in comparisons],
                "alpha": alpha,
                "margin": margin,
                "lost": {folder: list(figures) for folder, figures in lost.items()},
                "findings": findings.to_json(),
                "could_see": could_see,
                "in_words": list(notes),
            }
        )
    else:
        for contender, comparison in zip(contenders[1:], comparisons, strict=True):
            stdout.print(_table(contenders[0], contender, comparison))
        for note in notes:
            stdout.print(note)
    if margin is None and alpha < 1:
        for name, sentences in could_see.items():
            for sentence in sentences:
                print_info(f"{name}: {sentence}")
    if lost:
        worse = "; ".join(f"{folder}: {', '.join(figures)}" for folder, figures in lost.items())
        refused = (
            f"worse than {base} at alpha {alpha:g}"
            if margin is None
            else f"a loss of more than {points(margin)} against {base} cannot be excluded at alpha "
            f"{alpha:g}"
        )
        print_info(f"lookalike: {refused}: {worse}")
        raise typer.Exit(LOST)


def _check_measured(guarded: tuple[str, ...], comparisons: "list[Comparison]") -> None:
    """Check that what must not be lost was measured at all.

    Raises:
        DataError: it was not.
    """
    for comparison in comparisons:
        missing = [figure for figure in guarded if figure not in comparison.differences]
        if missing:
            raise DataError(
                f"{missing[0]} cannot be guarded: it was not measured of {comparison.base} and "
                f"{comparison.new}; that needs labelled data and, for accuracy, models with classes"
            )


def _measured(
    folders: list[Path], manifests: list[Manifest], data: str, group: str | None, device: str
) -> tuple[list["ComparedModel"], tuple[str, ...], Findings]:
    """Measure each model on the data as it wants them; read them again only if that changes.

    Also returns what a reader must know of the images that were chosen, and what was found in
    the data.
    """
    from training.evaluation.compare import measure_for_comparison  # noqa: PLC0415 - keeps `--help` quick

    contenders: list[ComparedModel] = []
    notes: dict[str, None] = {}  # in order, each once
    loaded_for = None
    for folder, manifest in zip(folders, manifests, strict=True):
        if (manifest.preprocessing, manifest.labels) != loaded_for:
            loaded_for = manifest.preprocessing, manifest.labels
            others = [other for other in folders if other != folder]
            dataset = load_to_evaluate(data, folder, others, group=group)
            if dataset.selection:
                notes |= dict.fromkeys(dataset.selection.sentences())
        contenders.append(measure_for_comparison(folder, dataset, device=device))
    return contenders, tuple(notes), dataset.findings


def _table(base: "ComparedModel", new: "ComparedModel", comparison: "Comparison") -> Table:
    table = Table(
        title=f"{new.folder} against {base.folder}, {plural(comparison.images, 'image')}",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        show_edge=False,
        collapse_padding=True,  # with it, the table fits a terminal of 80 columns
    )
    table.add_column("figure", no_wrap=True)
    for name in ("base", "new", "change", "95 % interval", "p worse"):
        table.add_column(name, justify="right", no_wrap=True)
    ours, theirs = base.figures(), new.figures()
    for name in (name for name in ours if name in theirs):
        row = [_formatted(name, ours[name]), _formatted(name, theirs[name])]
        if name in comparison.differences:
            paired = comparison.differences[name]
            row.append(f"{paired.difference:+.4f}")
            row.append(f"{paired.interval[0]:+.4f} to {paired.interval[1]:+.4f}")
            row.append(f"{paired.p_worse:.4f}")
        else:
            change = theirs[name] - ours[name]
            row.append(f"{'+' if change >= 0 else ''}{_formatted(name, change)}")
        table.add_row(name, *row)
    return table


def _formatted(name: str, value: float) -> str:
    formats = {"parameters": f"{value:,.0f}", "ms_one_image": f"{value:.2f}"}
    return formats.get(name, f"{value:.4f}")
