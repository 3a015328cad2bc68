"""What `--data` names in, images with labels out, with progress and a word on what was found."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich import box
from rich.table import Table

from cli.support.console import print_info, text_lines
from cli.support.training_progress import TrainingProgress
from dataset.findings import Findings
from training.recipes.recipe import Recipe
from vision.image.decode import harden_pillow
from vision.image.preprocessing import Preprocessing
from vision.model.manifest import read_manifest

if TYPE_CHECKING:
    from training.data.dataset import Dataset


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
    from training.fit.initialization.predecessor_data import exclude_predecessor_images  # noqa: PLC0415

    harden_pillow()
    with TrainingProgress() as progress:
        dataset = load_dataset(
            data, recipe.preprocessing, hold_out=hold_out, group=group, progress=progress
        )
    dataset = exclude_predecessor_images(dataset, recipe)
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

    harden_pillow()
    with TrainingProgress() as progress:
        dataset = load_dataset(
            data,
            preprocessing,
            hold_out=hold_out,
            unlabelled=True,
            group=group,
            progress=progress,
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
    from training.data.images.training_record import read_training_record  # noqa: PLC0415 - keeps `--help` quick
    from training.data.unseen_images import load_unseen  # noqa: PLC0415

    manifest = read_manifest(model)
    learnt = [read_training_record(folder, read_manifest(folder)) for folder in (model, *others)]
    harden_pillow()
    with TrainingProgress() as progress:
        dataset = load_unseen(data, manifest, learnt, group=group, progress=progress)
    print_findings(dataset.findings)
    return dataset


def print_findings(findings: Findings, *, title: str = "found in the data") -> None:
    """Say on standard error, in one table, what was found: counts by reason, a few examples."""
    if not len(findings):
        return
    table = Table(title=title, box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("", justify="right", no_wrap=True)
    table.add_column("what", overflow="fold", ratio=1)
    table.add_column("such as", overflow="fold", ratio=1)
    for one in findings.most_frequent_first():
        table.add_row(f"{one.count:,}", one.reason, text_lines(one.examples))
    print_info(table)
