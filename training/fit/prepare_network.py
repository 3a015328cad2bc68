"""A recipe in, the network that it begins with out, and the recipe with all that was left open.

Nothing here needs an image: what contradicts itself is found before thousands of them are read.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import nn

from training.errors import RecipeError, WeightsError
from training.fit.initialization.predecessor import Predecessor
from training.fit.initialization.pretrained import load_pretrained
from training.fit.optimizer import pick_precision
from training.recipes.recipe import Recipe
from vision.networks.backbone import Backbone
from vision.networks.network import Network, build_network


def prepare(recipe: Recipe, labels: Sequence[str], device: torch.device) -> tuple[Recipe, Network]:
    """Return the recipe with all that was left open, and the network it begins with.

    Raises:
        RecipeError: the recipe does not fit its network or the device.
        WeightsError: the weights cannot be had, or are of another network.
        ModelFolderError: the folder that it goes on from holds no model, or a damaged one.
    """
    try:
        network = build_network(recipe.architecture(len(labels)), recipe.preprocessing)
    except ValueError as error:
        raise RecipeError(str(error)) from error
    if recipe.weights is not None:
        recipe = _filled(recipe, recipe.weights, network, tuple(labels))
    side = recipe.augmentation.side(recipe.preprocessing.size)
    if isinstance(network.features, Backbone) and not network.features.accepts_size(side):
        recipe = replace(recipe, augmentation=replace(recipe.augmentation, scale=1.0))
    grouped = any(isinstance(m, nn.Conv2d) and m.groups > 1 for m in network.modules())
    precision = pick_precision(recipe.precision, device, depthwise=grouped and not recipe.frozen)
    return replace(recipe, precision=precision), network


def _filled(recipe: Recipe, source: str, network: Network, labels: tuple[str, ...]) -> Recipe:
    """Fill the network with the weights called ``source``; return the recipe that names them."""
    earlier = Predecessor.at(source)
    if earlier is None:
        pretrained = load_pretrained(
            network.features, recipe.network, source, sha256=recipe.weights_sha256
        )
        return replace(recipe, weights=pretrained.source, weights_sha256=pretrained.sha256)
    theirs = replace(earlier.manifest.architecture, num_labels=len(labels))
    if theirs != recipe.architecture(len(labels)):
        raise WeightsError(
            f"{source} holds a model of another network: {theirs.network}, layer "
            f"{theirs.embedding_layer}, width {theirs.width}, reduction {theirs.reduction}; "
            f"this training has {recipe.network}, {recipe.embedding_layer}, {recipe.width}, "
            f"{recipe.reduction}"
        )
    earlier.warm_start(network, labels, sha256=recipe.weights_sha256)
    return replace(
        recipe,
        weights=earlier.folder.resolve().name,
        weights_sha256=earlier.manifest.weights_sha256,
        predecessor=earlier.manifest.fingerprint,
    )
