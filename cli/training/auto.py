"""The recipe `auto` and what `--data` names in, the best model that the time allows out."""

from typing import TYPE_CHECKING

from rich.progress import Progress, TaskID

from cli.support.console import print_info, print_json, progress
from cli.support.dataset_loading import load_all
from cli.training.bit_depth import detect_bit_depth
from cli.training.fit import (
    RunOptions,
    print_evaluate_command,
    training_result,
    warn_if_nothing_to_resume,
)
from training.recipes.auto_recipe import AutoRecipe
from training.recipes.built_in import VGG19, published_weights
from vision.image.preprocessing import Preprocessing
from vision.model.manifest import Manifest

if TYPE_CHECKING:
    from training.data.dataset import Dataset
    from training.heads.trial_results import Comparison, Tried


def train_auto_recipe(
    recipe: AutoRecipe, where: RunOptions, *, resume: bool, as_json: bool
) -> None:
    """Try what the recipe says, and print what came of it.

    Raises:
        TrainingError, VisionError: as ``training.auto.train_auto.train_auto``.
        DatasetError: the data are missing or damaged.
    """
    if resume:
        warn_if_nothing_to_resume(where.out)
    manifest, comparison, dataset = fit_auto(recipe, where, resume=resume)
    if as_json:
        print_json({**training_result(where.out, manifest, dataset), "tried": comparison.to_json()})
        return
    print_info(comparison.why)
    metrics = manifest.metrics
    if "test_accuracy" in metrics:
        print_info(f"{where.out}: test accuracy {metrics['test_accuracy']:.2%}")
    else:
        print_info(f"{where.out}: a model without classes, to search with")
    print_evaluate_command(where)


def fit_auto(
    recipe: AutoRecipe, where: RunOptions, *, resume: bool
) -> "tuple[Manifest, Comparison, Dataset]":
    """Try with progress; return the manifest, what was tried, and the data as first read.

    Raises:
        TrainingError, VisionError: as ``training.auto.train_auto.train_auto``.
        DatasetError: the data are missing or damaged.
    """
    from training.auto.train_auto import check_auto, train_auto  # noqa: PLC0415 - keeps `--help` quick
    from training.data.first_look import first_look  # noqa: PLC0415
    from training.fit.initialization.pretrained import is_at_hand  # noqa: PLC0415

    check_auto(recipe, out=where.out, device=where.device, resume=resume)
    recipe = recipe.seeing(where.bits or detect_bit_depth(where.data, recipe.preprocessing))
    recipe = recipe.suited(*first_look(where.data))
    if is_at_hand(VGG19, published_weights(VGG19)):
        recipe = recipe.with_vgg19()
    read: list[Dataset] = []

    def load(preprocessing: Preprocessing) -> "Dataset":
        dataset = load_all(
            where.data, preprocessing, hold_out=where.hold_out, group=where.group, quiet=bool(read)
        )
        if not read:
            read.append(dataset)
        return dataset

    with AutoProgress() as watching:
        manifest, comparison = train_auto(
            recipe,
            load,
            out=where.out,
            device=where.device,
            resume=resume,
            observer=watching,
        )
    return manifest, comparison, read[0]


class AutoProgress:
    """Shows on standard error what is being tried, and leaves a line about each candidate."""

    def __init__(self) -> None:
        self._display: Progress | None = None
        self._task: TaskID | None = None

    def __enter__(self) -> "AutoProgress":
        return self

    def __exit__(self, *exception: object) -> None:
        self._stop()

    def embedding(self, name: str, done: int, total: int) -> None:
        """Show how far the network called ``name`` is with the images."""
        if self._display is None:
            self._display = progress()
            self._display.start()
            self._task = self._display.add_task("embedding images", total=total, note="")
        assert self._task is not None
        elapsed_s = self._display.tasks[0].elapsed or 0.0
        rate = f"{done / elapsed_s:,.0f} images/s" if elapsed_s else ""
        self._display.update(self._task, completed=done, note=rate)

    def learning(self, name: str, done: int, epochs: int, loss: float) -> None:
        """Leave a line about each epoch of a network that learns on."""
        self._stop()
        print_info(f"{name}: epoch {done}/{epochs}, loss {loss:.4f}")

    def tried(self, one: "Tried") -> None:
        """Say what a candidate is worth."""
        self._stop()
        print_info(str(one))

    def _stop(self) -> None:
        if self._display is not None:
            self._display.stop()
            self._display = None
