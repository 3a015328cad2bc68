"""The recipe `auto` and what `--data` names in, the best model that the time allows out."""

from typing import TYPE_CHECKING

from cli.support.console import print_json, say
from cli.support.dataset_option import load_any
from cli.support.training_progress import TrainingProgress
from cli.training.bit_depth import bits_of
from cli.training.fit import Where, result_of, say_how_to_measure, say_what_is_resumed
from training.recipes.auto_recipe import AutoRecipe
from training.recipes.built_in import VGG19, published_weights
from vision.image.preprocessing import Preprocessing
from vision.model.manifest import Manifest

if TYPE_CHECKING:
    from training.data.dataset import Dataset
    from training.heads.model_choice import SelectionResult


def train_by_trying(recipe: AutoRecipe, where: Where, *, resume: bool, as_json: bool) -> None:
    """Try what the recipe says, and print what came of it.

    Raises:
        TrainingError, VisionError: as ``training.auto.train_auto.train_auto``.
        DatasetError: the data are missing or damaged.
    """
    if resume:
        say_what_is_resumed(where.out)
    manifest, comparison, dataset = run_auto(recipe, where, resume=resume)
    if as_json:
        print_json({**result_of(where.out, manifest, dataset), "tried": comparison.to_json()})
        return
    say(comparison.why)
    metrics = manifest.metrics
    if "test_accuracy" in metrics:
        say(f"{where.out}: test accuracy {metrics['test_accuracy']:.2%}")
    else:
        say(f"{where.out}: a model without classes, to search with")
    say_how_to_measure(where)


def run_auto(
    recipe: AutoRecipe, where: Where, *, resume: bool
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
    recipe = recipe.with_bits(where.bits or bits_of(where.data, recipe.preprocessing))
    recipe = recipe.adapted_to(*preview_source(where.data))
    if is_at_hand(VGG19, published_weights(VGG19)):
        recipe = recipe.with_vgg19()
    read: list[Dataset] = []

    def load(preprocessing: Preprocessing) -> "Dataset":
        dataset = load_any(
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
