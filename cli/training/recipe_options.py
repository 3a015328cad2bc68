"""The options of `lookalike train` in, the recipe that they ask for out."""

from dataclasses import replace
from typing import Any, Final

from training.recipes.auto_recipe import AUTO, AutoRecipe, auto_recipe
from training.recipes.built_in import BACKBONE_RECIPES, is_of_library, pick_recipe, recipes_of
from training.recipes.recipe import Recipe
from vision.model.manifest import Manifest

RANDOM_WEIGHTS: Final = "none"
FIXED_BY_MODEL: Final = {  # fields of a recipe that a model folder decides, by their options
    "embedding_layer": "--layer",
    "width": "--width",
    "reduction": "--reduction",
}


def choose_recipe(
    name: str,
    data: str,
    *,
    backbone: str | None,
    weights: str | None,
    preprocessing: dict[str, Any],
    augmentation: dict[str, Any],
    frozen_groups: int | None,
    **settings: Any,
) -> Recipe:
    """Return the recipe called ``name`` with the requested settings, where it is not None.

    Where ``weights`` names a model folder, its network, layer, width, reduction and preprocessing
    replace the recipe's.

    Raises:
        ValueError: there is no such recipe or network, or the settings contradict one another.
        ModelFolderError: the folder that ``weights`` names holds no model, or a damaged one.
    """
    earlier = _model_in(weights)
    if earlier is not None and backbone is None:
        backbone = _backbone_of(name, earlier)
    recipe = pick_recipe(name, data, backbone=backbone, weights=weights)
    if frozen_groups is not None:
        if recipe.fine_tuning is None:
            raise ValueError(f"{recipe.name} is no fine-tuning: it has no groups of layers")
        tuning = replace(recipe.fine_tuning, frozen_groups=frozen_groups)
        recipe = replace(recipe, fine_tuning=tuning)
    if weights is not None:
        recipe = replace(recipe, weights=None if weights == RANDOM_WEIGHTS else weights)
    requested, base = _without_none(settings), recipe.preprocessing
    if earlier is not None:
        requested, base = (
            {**requested, **_settings_of_model(recipe, earlier, requested)},
            earlier.preprocessing,
        )
    return replace(
        recipe,
        preprocessing=replace(base, **_without_none(preprocessing)),
        augmentation=replace(recipe.augmentation, **_without_none(augmentation)),
        **requested,
    )


def choose_auto_recipe(
    others: dict[str, Any], *, weights: str | None, **settings: Any
) -> AutoRecipe:
    """Return the recipe `auto` with the requested settings.

    Args:
        others: options of recipes that learn step by step: none of them may be given.
        weights: of the network that ``backbone`` in ``settings`` names.
        settings: arguments of ``training.recipes.auto_recipe.auto_recipe``.

    Raises:
        ValueError: an option is not for `auto`, or the settings contradict one another.
        ModelFolderError: the folder that ``weights`` names holds a damaged model.
    """
    given = [name for name, value in others.items() if value is not None]
    if given:
        option = f"--{given[0].replace('_', '-')}"
        raise ValueError(
            f"{option} is for recipes that learn step by step, and {AUTO} decides that itself, "
            "within --budget: name such a recipe, too, as in --recipe cnn"
        )
    earlier = _model_in(weights)
    if earlier is not None:
        fitting = " or ".join(f"--recipe {one}" for one in recipes_of(earlier.architecture.network))
        raise ValueError(f"{AUTO} does not go on from a model folder: go on with {fitting}")
    return auto_recipe(weights=weights, **settings)


def _model_in(weights: str | None) -> Manifest | None:
    """Return the manifest of the model folder that ``weights`` names, if it names a folder."""
    if weights is None:
        return None
    from training.fit.initialization.predecessor import Predecessor  # noqa: PLC0415 - keeps `--help` quick

    earlier = Predecessor.at(weights)
    return None if earlier is None else earlier.manifest


def _backbone_of(recipe: str, earlier: Manifest) -> str | None:
    """Return the network that a recipe for backbones goes on with; others bring their own."""
    network = earlier.architecture.network
    if recipe not in BACKBONE_RECIPES:
        return None
    if not is_of_library(network):
        raise ValueError(_other_network(recipe, "a network of torchvision or timm", network))
    return network


def _settings_of_model(
    recipe: Recipe, earlier: Manifest, requested: dict[str, Any]
) -> dict[str, Any]:
    """Return the settings that the earlier model decides."""
    theirs = earlier.architecture
    if theirs.network != recipe.network:
        raise ValueError(_other_network(recipe.name, recipe.network, theirs.network))
    for field, option in FIXED_BY_MODEL.items():
        kept = getattr(theirs, field)
        if requested.get(field, kept) != kept:
            raise ValueError(
                f"the model to go on from has {field.replace('_', ' ')} {kept!r}, which "
                f"{option} {requested[field]} cannot change: leave {option} out"
            )
    decided: dict[str, Any] = {field: getattr(theirs, field) for field in FIXED_BY_MODEL}
    if recipe.frozen and theirs.reduction != "projection":
        decided["metric_loss"] = requested.get(
            "metric_loss", "none"
        )  # it would have nothing to move
    return decided


def _other_network(recipe: str, ours: str, theirs: str) -> str:
    fitting = " or ".join(f"--recipe {name}" for name in recipes_of(theirs))
    return (
        f"the model to go on from is a {theirs!r} network, and {recipe} trains {ours}: "
        f"go on with {fitting}"
    )


def _without_none(settings: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in settings.items() if value is not None}
