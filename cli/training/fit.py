"""A recipe that learns step by step and what `--data` names in, a model folder out."""

import shlex
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cli.support.console import print_info, print_json
from cli.support.dataset_loading import data_arguments, load_to_train
from cli.support.training_progress import TrainingProgress
from cli.training.bit_depth import with_bit_depth
from training.formatting import plural
from training.progress import Event
from training.recipes.recipe import Recipe
from vision.model.manifest import Manifest

if TYPE_CHECKING:
    from training.data.dataset import Dataset
    from training.fit.tensorboard import TensorBoard


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """What a training reads and writes, and where it computes."""

    data: str
    out: Path
    group: str | None = None  # what says which photos show one thing, as in ``dataset.source``
    hold_out: tuple[str, ...] = ()  # classes
    bits: int | None = None  # of gray with 16; None: found out
    device: str = "auto"


def train_recipe(
    recipe: Recipe, where: RunOptions, *, resume: bool, curves: Path | None, as_json: bool
) -> None:
    """Train, and print what came of it; curves for TensorBoard are written to a folder.

    Raises:
        TrainingError, VisionError: as ``training.train.train``.
        DatasetError: the data are missing or damaged.
    """
    from training.fit.preflight import check_call  # noqa: PLC0415 - keeps `--help` quick

    out = where.out
    if resume:
        warn_if_nothing_to_resume(out)
    check_call(recipe, out=out, device=where.device, resume=resume)
    with _curves(curves) as watching:  # first: a place that cannot be written to is said at once
        if not where.bits:
            recipe = with_bit_depth(where.data, recipe)
        dataset = load_to_train(where.data, recipe, hold_out=where.hold_out, group=where.group)
        manifest = fit_with_progress(
            recipe, dataset, out, device=where.device, resume=resume, curves=watching
        )
    if as_json:
        print_json(training_result(out, manifest, dataset))
        return
    print_info(
        f"{out}: test accuracy {manifest.metrics['test_accuracy']:.2%} after "
        f"{plural(int(manifest.metrics['epochs']), 'epoch')}, "
        f"{manifest.metrics['train_seconds']:.0f} s of training"
    )
    print_evaluate_command(where)


def fit_with_progress(
    recipe: Recipe,
    dataset: "Dataset",
    out: Path,
    *,
    device: str,
    resume: bool,
    curves: "TensorBoard | None" = None,
) -> Manifest:
    """Train with progress, also told to ``curves``, and return the new model folder's manifest.

    Raises:
        TrainingError, VisionError: as ``training.train.train``.
    """
    from training.train import train as train_model  # noqa: PLC0415

    with TrainingProgress() as shown:

        def progress(event: Event) -> None:
            shown(event)
            if curves is not None:
                curves(event)

        return train_model(
            recipe,
            dataset,
            out=out,
            device=device,
            resume=resume,
            progress=progress,
        )


def training_result(out: Path, manifest: Manifest, dataset: "Dataset") -> dict[str, object]:
    """Return what a training has made, as JSON values."""
    return {
        "model": str(out),
        "fingerprint": manifest.fingerprint,
        "data": manifest.data,
        "metrics": manifest.metrics,
        "findings": dataset.findings.to_json(),
    }


def print_evaluate_command(where: RunOptions) -> None:
    """Say the next command."""
    command = ["lookalike", "evaluate", str(where.out), *data_arguments(where.data, where.group)]
    print_info(f"measure it: {shlex.join(command)}")


def warn_if_nothing_to_resume(out: Path) -> None:
    """Say so where there is nothing to go on with: the path may be mistyped."""
    from training.fit.preflight import state_folder  # noqa: PLC0415

    if not out.exists() and not state_folder(out).exists():
        print_info(
            f"{state_folder(out)} is not there: there is nothing to resume, the training begins"
        )


@contextmanager
def _curves(folder: Path | None) -> "Iterator[TensorBoard | None]":
    """Give the block a callback that writes curves to ``folder``, if there is one.

    Raises:
        TrainingError: TensorBoard is not installed, or the folder cannot be written.
    """
    if folder is None:
        yield None
        return
    from training.fit.tensorboard import TensorBoard  # noqa: PLC0415 - keeps `--help` quick

    with closing(TensorBoard(folder)) as curves:
        yield curves
