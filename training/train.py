"""A recipe and a dataset in, a model folder out, as often as it is interrupted.

While it runs, its state lies in a folder beside the model folder, ``OUT.training``.
"""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch

from training.data.dataset import Dataset
from training.data.images.decode_files import LoadReport
from training.distributed import joined_world
from training.fit.callbacks import Observer, Observers
from training.fit.checkpoint import CheckpointFolder
from training.fit.initialization.predecessor_data import after_predecessor
from training.fit.preflight import check_processes, refuse_existing, refuse_unfinished, state_folder
from training.fit.prepare_network import prepare
from training.fit.train_step import refuse_endless
from training.fit.trainer import TrainingSession
from training.publish import finish, publish, trained_by
from training.recipes.recipe import Recipe
from vision.model.manifest import Manifest


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
        DataError: the model to go on from leaves nothing to measure with.
    """
    refuse_existing(out)
    dataset = after_predecessor(dataset, recipe)
    with joined_world(device) as world, reproducible(recipe.seed, world.device):
        recipe, network = prepare(recipe, dataset.label_names, world.device)
        subject = {"recipe": recipe.to_json(), "data": dataset.to_json()}
        check_processes(recipe, world.size)
        state = CheckpointFolder(state_folder(out))
        with state if world.is_first else nullcontext():
            refuse_unfinished(state, resume=resume)  # before a backbone embeds all images
            session = TrainingSession(
                *(recipe, network, dataset.train, dataset.validation),
                world=world,
                report=on_embedded,
            )
            watching = observer if observer is not None and world.is_first else Observers()
            run_session(session, state, subject, watching)
            finished = finish(trained_by(session, dataset.label_names), dataset, subject)
            refuse_endless(finished.manifest.metrics.values(), "a figure on the test images")
            manifest = finished.manifest
            if world.is_first:
                manifest = publish(finished, out)
                state.remove()
            world.wait()
    return manifest


@contextmanager
def reproducible(seed: int, device: torch.device) -> Iterator[None]:
    """Seed torch's global generators, choose repeatable kernels, and undo both on leaving."""
    devices = [device] if device.type == "cuda" else []
    with (
        torch.random.fork_rng(devices=devices),
        torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True),
    ):
        torch.manual_seed(seed)
        yield


def run_session(
    session: TrainingSession, folder: CheckpointFolder, subject: dict[str, Any], observer: Observer
) -> None:
    """Train to the end, from the folder's state on if there is one, saving after each epoch.

    Raises:
        CheckpointError: the state cannot be saved or read, or is of another ``subject``.
        DivergenceError: the loss is no longer a number.
    """
    if folder.exists():
        session.restore(folder.load(subject))
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
