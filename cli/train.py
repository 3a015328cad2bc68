"""`lookalike train`: fits a network and writes a model folder."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import Progress, TaskID

from cli.console import print_json, progress, say
from training.recipes import RECIPES, Recipe, pick_recipe
from vision.image import harden_pillow
from vision.manifest import Manifest
from vision.preprocess import Preprocessing

if TYPE_CHECKING:
    from training.data import Dataset
    from training.loop import StepReport
    from training.session import EpochReport

SHOWN_UNREADABLE = 5  # files named one by one; the rest are counted
SMOOTHING = 0.05  # weight of a new step in the shown loss and accuracy


def train(
    *,
    out: Annotated[Path, typer.Option(help="Model folder to make.", show_default=False)],
    recipe: Annotated[str, typer.Option(help=f"Set-up: {', '.join(RECIPES)}.")] = "cnn",
    data: Annotated[
        str, typer.Option(help="`fashion-mnist` or a folder of class folders.")
    ] = "fashion-mnist",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with an interrupted training of this model.")
    ] = False,
    seed: Annotated[int, typer.Option(min=0, help="Of everything random.")] = 0,
    epochs: Annotated[
        int | None, typer.Option(min=1, help="At most so many; the recipe's number if not given.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Train a network on labelled images and write a model folder.

    It can be interrupted at any time; with --resume it goes on after the last whole epoch and ends
    with the very same weights.
    """
    if recipe not in RECIPES:
        raise typer.BadParameter(f"known are {', '.join(RECIPES)}", param_hint="--recipe")
    chosen = replace(pick_recipe(recipe, data), seed=seed)
    if epochs is not None:
        chosen = replace(chosen, epochs=epochs)
    manifest = run_training(chosen, data, out, device=device, resume=resume)
    if as_json:
        print_json(
            {
                "model": str(out),
                "fingerprint": manifest.fingerprint,
                "data": manifest.data,
                "metrics": manifest.metrics,
            }
        )
    else:
        say(
            f"{out}: test accuracy {manifest.metrics['test_accuracy']:.2%} after "
            f"{manifest.metrics['epochs']:.0f} epochs, "
            f"{manifest.metrics['train_seconds']:.0f} s of training"
        )


def run_training(recipe: Recipe, data: str, out: Path, *, device: str, resume: bool) -> Manifest:
    """Train with progress on standard error and return the manifest of the new model folder.

    Raises:
        TrainingError, VisionError: as ``training.train.train`` and ``training.data.load_dataset``.
    """
    from training.train import train as train_model  # noqa: PLC0415 - keeps `--help` quick

    dataset = load(data, recipe.preprocessing)
    with TrainingProgress() as watching:
        return train_model(
            recipe, dataset, out=out, device=device, resume=resume, observer=watching
        )


def load(data: str, preprocessing: Preprocessing) -> "Dataset":
    """Return the dataset, showing progress and naming the files that were left out.

    Raises:
        DataError: the data are missing, damaged, or not what can be learnt from.
    """
    from training.data import load_dataset  # noqa: PLC0415 - keeps `--help` quick

    harden_pillow()
    with progress() as display:
        task = display.add_task("reading images", total=None, note="")
        dataset = load_dataset(
            data,
            preprocessing,
            report=lambda done, total: display.update(task, completed=done, total=total),
        )
    for path, reason in dataset.unreadable[:SHOWN_UNREADABLE]:
        say(f"left out {path}: {reason}")
    if len(dataset.unreadable) > SHOWN_UNREADABLE:
        say(f"left out {len(dataset.unreadable) - SHOWN_UNREADABLE} more unreadable files")
    return dataset


class TrainingProgress:
    """Shows a training on standard error."""

    def __init__(self) -> None:
        self._epochs = 0
        self._display: Progress = progress()
        self._task: TaskID | None = None
        self._loss = 0.0
        self._accuracy = 0.0
        self._steps = 0  # in this epoch
        self._images = 0  # since this process began to train

    def __enter__(self) -> "TrainingProgress":
        self._display.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._display.stop()

    def started(self, *, epochs: int, epochs_done: int, steps_per_epoch: int) -> None:
        """Show what was done before, and what there is to do."""
        self._epochs = epochs
        self._task = self._display.add_task(
            f"epoch {min(epochs_done + 1, epochs)}/{epochs}",
            total=epochs * steps_per_epoch,
            completed=epochs_done * steps_per_epoch,
            note="",
        )

    def step(self, report: "StepReport") -> None:
        """Show the running loss and accuracy, and the rate."""
        weight = max(SMOOTHING, 1 / (self._steps + 1))
        self._loss += weight * (report.loss - self._loss)
        self._accuracy += weight * (report.correct / report.images - self._accuracy)
        self._steps += 1
        self._images += report.images
        if self._task is not None:
            elapsed_s = self._display.tasks[self._task].elapsed or 0.0
            rate = self._images / elapsed_s if elapsed_s else 0.0
            self._display.update(
                self._task,
                advance=1,
                note=f"loss {self._loss:.3f}, acc {self._accuracy:.1%}, {rate:,.0f} images/s",
            )

    def epoch(self, report: "EpochReport") -> None:
        """Leave one line about the epoch."""
        self._steps = 0
        held_out = ""
        if report.validation_loss is not None and report.validation_accuracy is not None:
            held_out = (
                f", held out: loss {report.validation_loss:.4f}, "
                f"accuracy {report.validation_accuracy:.2%}"
            )
        self._display.console.print(
            f"epoch {report.epoch}: loss {report.loss:.4f}, accuracy {report.accuracy:.2%}"
            f"{held_out}, {report.seconds:.0f} s"
        )
        if self._task is not None:
            self._display.update(
                self._task,
                description=f"epoch {min(report.epoch + 1, self._epochs)}/{self._epochs}",
            )
