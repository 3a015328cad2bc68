"""A recipe and a dataset in, a model folder out, as often as it is interrupted.

While it runs, its state lies in a folder beside the model folder, ``OUT.training``.
"""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from training.checkpoint import CheckpointFolder
from training.data import Dataset
from training.decoding import LoadReport
from training.distributed import World, joined_world
from training.errors import CheckpointError, RecipeError
from training.observer import Observer, Observers
from training.optimization import pick_precision
from training.publish import finish, publish
from training.recipe import Recipe
from training.session import TrainingSession
from training.weights import load_pretrained
from vision.backbone import Backbone
from vision.errors import ModelFolderError
from vision.manifest import Manifest
from vision.network import Network, build_network


def train(
    recipe: Recipe,
    dataset: Dataset,
    *,
    out: Path,
    device: str = "auto",
    resume: bool = False,
    observer: Observer | None = None,
    on_embedded: LoadReport = lambda _done, _all: None,
) -> Manifest:
    """Train as ``recipe`` says, write the model folder ``out`` and return its manifest.

    The same recipe, data, device and number of threads give the same weights, byte for byte (on the
    CPU; on CUDA as far as its kernels are deterministic), whether or not the training was
    interrupted and resumed. The test images are looked at once, at the end.

    Started by ``torchrun``, all processes call this alike; the first one writes and reports.

    Args:
        recipe: the set-up; its preprocessing must be the one the dataset was loaded with.
        dataset: what to learn from and to measure with.
        out: the model folder to make; it appears whole or not at all.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        resume: go on from the last whole epoch of an interrupted call; begin if there is none.
        observer: told about progress, from this thread.
        on_embedded: told how many images a frozen backbone has embedded, before the first epoch.

    Raises:
        ModelFolderError: ``out`` exists already, or cannot be written.
        DeviceError: there is no such device here.
        WeightsError: the pretrained weights cannot be had, or are of another network.
        CheckpointError: another training is in the way, or its state cannot be saved or read.
        DivergenceError: the loss is no longer a number.
        RecipeError: the recipe does not fit its network, the device or the data.
    """
    if out.exists():
        raise ModelFolderError(f"{out} exists already; a model folder is never overwritten")
    with joined_world(device) as world, _reproducible(recipe.seed, world.device):
        recipe, network = _prepare(recipe, len(dataset.label_names), world)
        subject = {"recipe": recipe.to_json(), "data": dataset.to_json()}
        state_folder = CheckpointFolder(out.with_name(f"{out.name}.training"))
        with state_folder if world.is_first else nullcontext():
            session = TrainingSession(
                *(recipe, network, dataset.train, dataset.validation),
                world=world,
                report=on_embedded,
            )
            _go_on(session, state_folder, subject, resume=resume)
            watching = observer if observer is not None and world.is_first else Observers()
            _run(session, state_folder, subject, watching)
            finished = finish(session, dataset, subject)
            manifest = finished.manifest
            if world.is_first:
                manifest = publish(finished, out)
                state_folder.remove()
            world.wait()
    return manifest


def _prepare(recipe: Recipe, num_labels: int, world: World) -> tuple[Recipe, Network]:
    """Return the recipe with all that was left open, and the network it begins with."""
    try:
        network = build_network(recipe.architecture(num_labels), recipe.preprocessing)
    except ValueError as error:
        raise RecipeError(str(error)) from error
    if recipe.weights is not None:
        pretrained = load_pretrained(
            network.features, recipe.network, recipe.weights, sha256=recipe.weights_sha256
        )
        recipe = replace(recipe, weights=pretrained.source, weights_sha256=pretrained.sha256)
    side = recipe.augmentation.side(recipe.preprocessing.size)
    if isinstance(network.features, Backbone) and not network.features.takes(side):
        recipe = replace(recipe, augmentation=replace(recipe.augmentation, scale=1.0))
    grouped = any(isinstance(m, nn.Conv2d) and m.groups > 1 for m in network.modules())
    precision = pick_precision(
        recipe.precision, world.device, depthwise=grouped and not recipe.frozen
    )
    return replace(recipe, precision=precision), network


@contextmanager
def _reproducible(seed: int, device: torch.device) -> Iterator[None]:
    """Seed torch's global generators, choose repeatable kernels, and undo both on leaving."""
    devices = [device] if device.type == "cuda" else []
    with (
        torch.random.fork_rng(devices=devices),
        torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True),
    ):
        torch.manual_seed(seed)
        yield


def _go_on(
    session: TrainingSession, folder: CheckpointFolder, subject: dict[str, Any], *, resume: bool
) -> None:
    """Restore the session from the folder if that is wanted; never pass over a state in silence."""
    if not folder.exists():
        return
    if not resume:
        raise CheckpointError(
            f"{folder.folder} holds an interrupted training; resume it, or remove that folder"
        )
    session.restore(folder.load(subject))


def _run(
    session: TrainingSession, folder: CheckpointFolder, subject: dict[str, Any], observer: Observer
) -> None:
    """Train to the end, saving after each epoch."""
    observer.started(
        epochs=session.recipe.epochs,
        epochs_done=len(session.history),
        steps_per_epoch=session.steps_per_epoch,
    )
    while not session.finished:
        report = session.run_epoch(observer.step)
        if session.world.is_first:
            folder.save(session.checkpoint(subject))
        observer.epoch(report)
