"""What can be known to go wrong with a training before its work starts, each with a sentence."""

import os
from pathlib import Path

import numpy as np
import torch
from torch import nn

from training.data.images.labelled_images import LabelledImages
from training.distributed import world_size
from training.errors import CheckpointError, RecipeError
from training.fit.checkpoint import CheckpointFolder
from training.fit.objective import layer_groups
from training.fit.prepare_network import prepare
from training.recipes.recipe import Recipe
from vision.errors import ModelFolderError
from vision.inference.torch_encoder import pick_device
from vision.networks.backbone import Backbone
from vision.networks.network import Network

ANY_LABELS = ("one", "another")  # what stands for the data's labels before these are known
FEWEST_NORMALISED = 2  # images in a batch that can be normalised by their own mean and deviation
PAIR = 2  # images of one class in a batch, for a loss that compares them


def state_folder(out: Path) -> Path:
    """Return where the state of a training of ``out`` lies until it has ended."""
    return out.with_name(f"{out.name}.training")


def check_call(recipe: Recipe, *, out: Path, device: str, resume: bool) -> None:
    """Refuse what no data could make right: takes seconds, and leaves nothing behind.

    Raises:
        ModelFolderError: ``out`` exists already; or the folder to go on from holds no model.
        CheckpointError: an interrupted training is in the way, or nothing can be written there.
        DeviceError: there is no such device here.
        RecipeError: the recipe does not fit its network, the device or the number of processes.
        WeightsError: the weights cannot be had, or are of another network.
    """
    refuse_existing(out)
    if os.environ.get("RANK", "0") == "0":  # the others wait for what the first one finds
        with CheckpointFolder(state_folder(out)) as state:
            refuse_unfinished(state, resume=resume)
    place = pick_device(device)
    check_processes(recipe, world_size())
    with torch.random.fork_rng(devices=[]):
        _, network = prepare(recipe, ANY_LABELS, place)
    layer_groups(network.features, recipe.fine_tuning)
    check_batch(recipe, network, recipe.batch_size)
    check_pairs(recipe, most=recipe.batch_size)


def check_data(recipe: Recipe, network: Network, images: LabelledImages, *, size: int) -> None:
    """Refuse data that the recipe cannot learn from, before a step is taken.

    Args:
        recipe: the set-up.
        network: the one it trains.
        images: what is learnt from, without what is held out.
        size: processes that train together.

    Raises:
        RecipeError: too few images for what is asked of them.
    """
    count = len(images)
    if count < size:
        raise RecipeError(f"{count} images to learn from cannot be shared by {size} processes")
    batch = min(recipe.batch_size, count) // size * size
    check_batch(recipe, network, batch)
    check_pairs(recipe, most=min(batch, int(np.bincount(images.labels_N).max(initial=0))))
    if recipe.fits_components:
        assert isinstance(network.features, Backbone)
        most = min(count - 1, network.features.width)
        if recipe.width > most:
            raise RecipeError(
                f"{count} images to learn from and {network.features.width} numbers of each have "
                f"up to {most} principal components; asked for {recipe.width}: take a smaller "
                "width, or the reduction `projection`"
            )


def check_processes(recipe: Recipe, size: int) -> None:
    """Refuse a batch that cannot be shared out.

    Raises:
        RecipeError: the batch size is no multiple of the number of processes.
    """
    if recipe.batch_size % size:
        raise RecipeError(
            f"a batch of {recipe.batch_size} images cannot be shared by {size} processes: the "
            "batch size must be a multiple of their number"
        )


def check_batch(recipe: Recipe, network: Network, images: int) -> None:
    """Refuse batches of so few images that the network's normalisation has nothing to go by.

    Raises:
        RecipeError: a batch of one for a network that normalises batches.
    """
    learning = [network.embedding, network.classifier]
    if not recipe.frozen:
        learning.append(network.features)
    normalises = any(
        isinstance(module, nn.modules.batchnorm._BatchNorm)
        for part in learning
        for module in part.modules()
    )
    if normalises and images < FEWEST_NORMALISED:
        raise RecipeError(
            f"the network {recipe.network} normalises over the images of a batch, and this one "
            f"would have {images} image: it needs a batch size of at least {FEWEST_NORMALISED} "
            "and as many images to learn from"
        )


def check_pairs(recipe: Recipe, *, most: int) -> None:
    """Refuse a loss on pairs of images where a batch has ``most`` images of one class, too few.

    Raises:
        RecipeError: no batch could ever hold a pair.
    """
    if recipe.metric_loss == "supervised-contrastive" and most < PAIR:
        raise RecipeError(
            "the metric loss supervised-contrastive compares images of one class within a batch, "
            "and no batch would hold two of one: take another metric loss, or none, or larger "
            "batches and more images"
        )


def refuse_existing(out: Path) -> None:
    """Raise where there is something at ``out`` already.

    Raises:
        ModelFolderError: it exists.
    """
    if not out.exists():
        return
    left = state_folder(out)
    hint = f"; {left} is left over from its training and can be removed" if left.exists() else ""
    raise ModelFolderError(f"{out} exists already; a model folder is never overwritten{hint}")


def refuse_unfinished(state: CheckpointFolder, *, resume: bool) -> None:
    """Raise where a training could be gone on with and that is not asked for.

    Raises:
        CheckpointError: so it is.
    """
    if state.exists() and not resume:
        raise CheckpointError(
            f"{state.folder} holds an interrupted training; resume it, or remove that folder"
        )
