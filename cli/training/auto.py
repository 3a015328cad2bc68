"""The recipe `auto` and what `--data` names in, the best model that the time allows out."""

from typing import TYPE_CHECKING

from cli.support.console import print_info, print_json
from cli.support.dataset_loading import load_all
from cli.support.training_progress import TrainingProgress
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
    from training.heads.model_choice import SelectionResult


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
) -> "tuple[Manifest, SelectionResult, Dataset]":
    """Try with progress; return the manifest, what was tried, and the data as first read.

    Raises:
        TrainingError, VisionError: as ``training.auto.train_auto.train_auto``.
        DatasetError: the data are missing or damaged.
    """
    from training.auto.train_auto import check_auto, train_auto  # noqa: PLC0415 - keeps `--help` quick
    from training.data.source_preview import preview_source  # noqa: PLC0415
    from training.fit.initialization.pretrained import is_at_hand  # noqa: PLC0415

    check_auto(recipe, out=where.out, device=where.device, resume=resume)
    recipe = recipe.with_bits(where.bits or detect_bit_depth(where.data, recipe.preprocessing))
    recipe = recipe.adapted_to(*preview_source(where.data))
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

    with TrainingProgress() as progress:
        manifest, comparison = train_auto(
            recipe,
            load,
            out=where.out,
            device=where.device,
            resume=resume,
            progress=progress,
        )
    return manifest, comparison, read[0]
