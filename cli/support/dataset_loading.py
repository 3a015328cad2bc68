"""What `--data` names in, images with labels out, with progress and a word on what was found."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rich import box
from rich.table import Table

from cli.support.console import print_info, progress, text_lines
from dataset.findings import Findings
from training.recipes.recipe import Recipe
from vision.image.decode import harden_pillow
from vision.image.preprocessing import Preprocessing
from vision.model.manifest import read_manifest

if TYPE_CHECKING:
    from training.data.dataset import Dataset
    from training.data.images.decode_files import LoadReport


def data_arguments(data: str, group: str | None) -> list[str]:
    """Return the options that name the same data in another command."""
    return ["--data", data, *([] if group is None else ["--group", group])]


def load_to_train(
    data: str, recipe: Recipe, *, hold_out: Sequence[str] = (), group: str | None = None
) -> "Dataset":
    """Return the dataset to train on, showing progress and saying what was found in it.

    Raises:
        DatasetError, DataError: the data are missing, damaged, or not what can be learnt from.
        ModelFolderError: the model to go on from is damaged.
    """
    from training.data.dataset import load_dataset  # noqa: PLC0415 - keeps `--help` quick
    from training.fit.initialization.predecessor_data import after_predecessor  # noqa: PLC0415

    with _reading() as report:
        dataset = load_dataset(
            data, recipe.preprocessing, hold_out=hold_out, group=group, report=report
        )
    dataset = after_predecessor(dataset, recipe)
    print_findings(dataset.findings)
    return dataset


def load_all(
    data: str,
    preprocessing: Preprocessing,
    *,
    hold_out: Sequence[str] = (),
    group: str | None = None,
    quiet: bool = False,
) -> "Dataset":
    """Return the dataset to train on, images without a class too; what was found is said once.

    Raises:
        DatasetError, DataError: the data are missing, damaged, or not what can be learnt from.
    """
    from training.data.dataset import load_dataset  # noqa: PLC0415 - keeps `--help` quick

    with _reading() as report:
        dataset = load_dataset(
            data,
            preprocessing,
            hold_out=hold_out,
            unlabelled=True,
            group=group,
            report=report,
        )
    if not quiet:
        print_findings(dataset.findings)
    return dataset


def load_to_evaluate(
    data: str, model: Path, others: Sequence[Path] = (), *, group: str | None = None
) -> "Dataset":
    """Return what the data have to measure a model with: nothing that it or ``others`` learnt from.

    Raises:
        ModelFolderError: a model folder is missing or damaged.
        DatasetError, DataError: the data are missing or damaged, or nothing is left to measure.
    """
    from training.data.images.trained_on import read_learnt  # noqa: PLC0415 - keeps `--help` quick
    from training.data.unseen_images import load_unlearnt  # noqa: PLC0415

    manifest = read_manifest(model)
    learnt = [read_learnt(folder, read_manifest(folder)) for folder in (model, *others)]
    with _reading() as report:
        dataset = load_unlearnt(data, manifest, learnt, group=group, report=report)
    print_findings(dataset.findings)
    return dataset


@contextmanager
def _reading() -> Iterator["LoadReport"]:
    """Show how many images were read."""
    harden_pillow()
    with progress() as display:
        task = display.add_task("reading images", total=None, note="")
        yield lambda done, total: display.update(task, completed=done, total=total)


def print_findings(findings: Findings, *, title: str = "found in the data") -> None:
    """Say on standard error, in one table, what was found: counts by reason, a few examples."""
    if not len(findings):
        return
    table = Table(title=title, box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("", justify="right", no_wrap=True)
    table.add_column("what", overflow="fold", ratio=1)
    table.add_column("such as", overflow="fold", ratio=1)
    for one in findings.frequent_first():
        table.add_row(f"{one.count:,}", one.reason, text_lines(one.examples))
    print_info(table)
