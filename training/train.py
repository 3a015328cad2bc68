"""A recipe and a dataset in, a model folder out, as often as it is interrupted.

While it runs, its state lies in a folder beside the model folder, ``OUT.training``.
"""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch

from training.data.dataset import Dataset
from training.distributed import join_process_group
from training.fit.checkpoint import CheckpointFolder
from training.fit.initialization.predecessor_data import exclude_predecessor_images
from training.fit.preflight import check_processes, refuse_existing, refuse_unfinished, state_folder
from training.fit.prepare_network import prepare
from training.fit.train_step import refuse_non_finite
from training.fit.trainer import Trainer
from training.progress import Progress, TrainingStarted, ignore
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
    progress: Progress = ignore,
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
        progress: told what is done, by the first process.

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
    dataset = exclude_predecessor_images(dataset, recipe)
    with join_process_group(device) as processes, reproducible(recipe.seed, processes.device):
        recipe, network = prepare(recipe, dataset.label_names, processes.device)
        run_identity = {"recipe": recipe.to_json(), "data": dataset.to_json()}
        check_processes(recipe, processes.size)
        state = CheckpointFolder(state_folder(out))
        with state if processes.is_first else nullcontext():
            refuse_unfinished(state, resume=resume)  # before a backbone embeds all images
            trainer = Trainer(
                *(recipe, network, dataset.train, dataset.validation),
                processes=processes,
                progress=progress if processes.is_first else ignore,
            )
            run_trainer(trainer, state, run_identity)
            finished = finish(trained_by(trainer, dataset.label_names), dataset, run_identity)
            refuse_non_finite(finished.manifest.metrics.values(), "a figure on the test images")
            manifest = finished.manifest
            if processes.is_first:
                manifest = publish(finished, out)
                state.remove()
            processes.barrier()
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


def run_trainer(trainer: Trainer, folder: CheckpointFolder, run_identity: dict[str, Any]) -> None:
    """Train to the end, from the folder's state on if there is one, saving after each epoch.

    Raises:
        CheckpointError: the state cannot be saved or read, or is of another ``run_identity``.
        DivergenceError: the loss is no longer a number.
    """
    if folder.exists():
        trainer.restore(folder.load(run_identity))
    done = len(trainer.history)
    trainer.progress(TrainingStarted(trainer.recipe.epochs, done, trainer.steps_per_epoch))
    while not trainer.finished:
        epoch = trainer.run_epoch()
        if trainer.processes.is_first:
            folder.save(trainer.checkpoint(run_identity))
        trainer.progress(epoch)
