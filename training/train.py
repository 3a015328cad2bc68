"""A recipe and a dataset in, a model folder out, as often as it is interrupted.

While it runs, its state lies in a folder beside the model folder, ``OUT.training``.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

import torch

from training.checkpoint import CheckpointFolder
from training.data import Dataset
from training.errors import CheckpointError
from training.evaluate import encode_all
from training.loop import StepReport
from training.recipes import Recipe
from training.session import EpochReport, TrainingSession
from vision.encoder import Encoder, pick_device
from vision.errors import ModelFolderError
from vision.manifest import Manifest
from vision.model import save_model


class Observer(Protocol):
    """Somebody who watches a training."""

    def started(self, *, epochs: int, epochs_done: int, steps_per_epoch: int) -> None:
        """A training begins, or goes on after ``epochs_done`` epochs."""

    def step(self, report: StepReport) -> None:
        """A step is done."""

    def epoch(self, report: EpochReport) -> None:
        """An epoch is done and safe on disk."""


class Unobserved:
    """Nobody watches."""

    def started(self, *, epochs: int, epochs_done: int, steps_per_epoch: int) -> None:
        """Ignore it."""

    def step(self, report: StepReport) -> None:
        """Ignore it."""

    def epoch(self, report: EpochReport) -> None:
        """Ignore it."""


def train(
    recipe: Recipe,
    dataset: Dataset,
    *,
    out: Path,
    device: str = "auto",
    resume: bool = False,
    observer: Observer | None = None,
) -> Manifest:
    """Train as ``recipe`` says, write the model folder ``out`` and return its manifest.

    The same recipe, data, device and number of threads give the same weights, byte for byte (on the
    CPU; on CUDA as far as its kernels are deterministic), whether or not the training was
    interrupted and resumed. The test images are looked at once, at the end.

    Args:
        recipe: the set-up; its preprocessing must be the one the dataset was loaded with.
        dataset: what to learn from and to measure with.
        out: the model folder to make; it appears whole or not at all.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        resume: go on from the last whole epoch of an interrupted call; begin if there is none.
        observer: told about progress, from this thread.

    Raises:
        ModelFolderError: ``out`` exists already, or cannot be written.
        DeviceError: there is no such device here.
        CheckpointError: another training is in the way, or its state cannot be saved or read.
        DivergenceError: the loss is no longer a number.
        ValueError: the recipe's network does not fit its preprocessing.
    """
    observer = observer or Unobserved()
    place = pick_device(device)
    if out.exists():
        raise ModelFolderError(f"{out} exists already; a model folder is never overwritten")
    subject = {"recipe": recipe.to_json(), "data": dataset.to_json()}

    with CheckpointFolder(_state_folder(out)) as folder, _reproducible(recipe.seed, place):
        session = TrainingSession(recipe, dataset.train, place)
        _go_on(session, folder, subject, resume=resume)
        observer.started(
            epochs=recipe.epochs,
            epochs_done=len(session.history),
            steps_per_epoch=session.steps_per_epoch,
        )
        while not session.finished:
            report = session.run_epoch(observer.step)
            folder.save(session.checkpoint(subject))
            observer.epoch(report)
        manifest = _save(session, dataset, subject, out)
        folder.remove()
    return manifest


def _state_folder(out: Path) -> Path:
    return out.with_name(f"{out.name}.training")


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


def _save(
    session: TrainingSession, dataset: Dataset, subject: dict[str, Any], out: Path
) -> Manifest:
    """Measure the network the way it will be served, and write the model folder."""
    weights = session.kept_weights
    session.network.load_state_dict(weights)
    manifest = Manifest(
        name=f"{dataset.name}-{session.recipe.name}",
        architecture=session.architecture,
        labels=dataset.label_names,
        preprocessing=session.recipe.preprocessing,
        weights_sha256="",  # save_model fills it in
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        recipe=subject["recipe"],
        data=subject["data"],
    )
    encoder = Encoder(manifest, session.network, session.device)
    predicted = encode_all(encoder, dataset.test.images_NCHW).probabilities_BL.argmax(axis=1)
    last = session.history[-1]
    metrics = {
        "test_accuracy": float((predicted == dataset.test.labels_N).mean()),
        "epochs": float(last.epoch),
        "kept_epoch": float(session.kept_epoch),
        "train_loss": last.loss,
        "train_accuracy": last.accuracy,
        "train_seconds": sum(report.seconds for report in session.history),
    }
    if last.validation_loss is not None and last.validation_accuracy is not None:
        metrics |= {
            "validation_loss": last.validation_loss,
            "validation_accuracy": last.validation_accuracy,
        }
    cpu_weights = {name: tensor.cpu() for name, tensor in weights.items()}
    return save_model(out, replace(manifest, metrics=metrics), cpu_weights)
