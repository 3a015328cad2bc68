"""A finished training in, a measured model folder out.

Beside the manifest and the weights lie ``training.json`` (how it went), ``learnt.safetensors``
(what it has learnt from), ``references.safetensors`` (what new pictures are compared with) and
``README.md`` (the model card).
"""

import hashlib
import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from training.data.dataset import Dataset
from training.data.images.training_record import (
    TRAINING_RECORD_NAME,
    TRAINING_RECORD_SHA256,
    TrainingRecord,
)
from training.evaluation.classification import classification_figures
from training.evaluation.item_retrieval import search_items
from training.evaluation.novelty import choose_references, references_of
from training.evaluation.results import ClassFigures, ClassificationFigures, SameItemFigures
from training.evaluation.views import VIEWS
from training.fit.trainer import Trainer
from training.report.model_card import model_card
from training.training_history import HISTORY_NAME
from vision.image.preprocessing import Preprocessing
from vision.inference.bulk_encoder import fastest_encoder
from vision.inference.encoder import Encoding, ImageEncoder, encode_all
from vision.inference.torch_encoder import TorchEncoder
from vision.model.manifest import Architecture, Manifest
from vision.model.open_set import REFERENCES_NAME, REFERENCES_SHA256
from vision.networks.network import Network
from vision.networks.saved_model import save_model

CARD_NAME: Final = "README.md"
ITEM_PHOTOS: Final = 100  # that views are made of: `evaluate` takes more, and more time


@dataclass(frozen=True, slots=True)
class Finished:
    """All that becomes a model folder."""

    manifest: Manifest  # not yet bound to the weights
    weights: Mapping[str, Tensor]  # on the CPU
    classes: Mapping[str, ClassFigures]  # by name: those that have test images
    tried: dict[str, Any] | None  # as ``SelectionResult.to_json``; None: it was not `auto`
    documents: dict[str, bytes]  # by the names of their files: all but the model card


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """A network whose training is over, calibrated but not measured."""

    recipe: str  # its name
    architecture: Architecture
    preprocessing: Preprocessing
    network: Network
    device: torch.device
    temperature: float
    figures: dict[str, float]  # of the training
    history: dict[str, Any]  # JSON values: how it went, under ``history`` epoch by epoch
    vectors_ND: NDArray[np.float32] | None = None  # of the training images, if they are known


def trained_by(trainer: Trainer, label_names: Sequence[str]) -> Trained:
    """Return the network of a training that is over, with the weights that are kept."""
    recipe = trainer.recipe
    temperature = trainer.temperature()
    return Trained(
        recipe=recipe.name,
        architecture=recipe.architecture(len(label_names)),
        preprocessing=recipe.preprocessing,
        network=trainer.network,
        device=trainer.processes.device,
        temperature=temperature,
        figures=_training_figures(trainer),
        history={
            "history": [asdict(epoch) for epoch in trainer.history],
            "environment": environment(trainer.processes.device, processes=trainer.processes.size),
        },
    )


def finish(trained: Trained, dataset: Dataset, run_identity: dict[str, Any]) -> Finished:
    """Measure a network on the test images the way it will be served, and describe it.

    Args:
        trained: what a training has made.
        dataset: what it was trained on; its test images are looked at here for the first time.
        run_identity: recipe and data as JSON values.
    """
    record = TrainingRecord.of(*dataset.training_parts)
    record = record.union(dataset.predecessor_record or TrainingRecord.empty())
    documents = {
        HISTORY_NAME: json.dumps(trained.history, indent=1, allow_nan=False).encode(),
        TRAINING_RECORD_NAME: record.to_bytes(),
    }
    manifest = Manifest(
        name=f"{dataset.name}-{trained.recipe}",
        architecture=trained.architecture,
        labels=dataset.label_names,
        preprocessing=trained.preprocessing,
        weights_sha256="",  # save_model fills it in
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        temperature=trained.temperature,
        recipe=run_identity["recipe"],
        data=run_identity["data"]
        | {TRAINING_RECORD_SHA256: _sha256(documents[TRAINING_RECORD_NAME])},
    )
    encoder = fastest_encoder(
        TorchEncoder(manifest, trained.network, trained.device),
        images=len(dataset.test) + VIEWS * min(ITEM_PHOTOS, len(dataset.test)),
    )
    test_encoding = encode_all(encoder, dataset.test.images_NCHW)
    searched, known = _known(encoder, dataset, trained.vectors_ND)
    items = search_items(encoder, searched, test_encoding, known, most=ITEM_PHOTOS).figures
    test_figures = {"test_images": float(len(dataset.test)), **_item_figures(items)}
    classes: tuple[ClassFigures, ...] = ()
    if dataset.label_names:
        figures, _ = classification_figures(
            test_encoding.probabilities_BL,
            dataset.test.labels_N,
            dataset.label_names,
            temperature=manifest.temperature,
        )
        classes = figures.classes
        test_figures |= _test_figures(figures)
        references = references_of(searched.train, known, test_encoding, trained.architecture)
        documents[REFERENCES_NAME] = references.to_bytes()
        sha256 = _sha256(documents[REFERENCES_NAME])
        manifest = replace(manifest, data=manifest.data | {REFERENCES_SHA256: sha256})
    return Finished(
        replace(manifest, metrics=test_figures | trained.figures),
        {name: tensor.cpu() for name, tensor in trained.network.state_dict().items()},
        {one.label: one for one in classes if one.images},
        trained.history.get("tried"),
        documents,
    )


def _sha256(document: bytes) -> str:
    return hashlib.sha256(document).hexdigest()


def _known(
    encoder: ImageEncoder, dataset: Dataset, vectors_ND: NDArray[np.float32] | None
) -> tuple[Dataset, Encoding]:
    """Return what is searched, and its vectors: all training images, or those worth encoding."""
    if vectors_ND is None:
        train = dataset.train.take(
            choose_references(dataset.train.labels_N, dataset.train.contents_N)
        )
        return replace(dataset, train=train), encode_all(encoder, train.images_NCHW)
    return dataset, Encoding(vectors_ND, np.empty((len(vectors_ND), 0), np.float32))


def publish(finished: Finished, folder: Path) -> Manifest:
    """Write the model folder, whole or not at all, and return its manifest.

    Raises:
        ModelFolderError: ``folder`` exists already, or cannot be written.
    """

    def describe(manifest: Manifest) -> dict[str, bytes]:
        card = model_card(manifest, classes=finished.classes, tried=finished.tried)
        return {**finished.documents, CARD_NAME: card.encode()}

    return save_model(folder, finished.manifest, finished.weights, describe)


def _item_figures(items: SameItemFigures) -> dict[str, float]:
    low, high = items.r_at_1_interval
    return {
        "same_item": items.r_at_1,
        "same_item_low": low,
        "same_item_high": high,
        "same_item_queries": float(items.queries),
        "same_item_gallery": float(items.gallery_images),
        "same_item_of_groups": float(items.setup == "groups"),
    }


def _test_figures(figures: ClassificationFigures) -> dict[str, float]:
    low, high = figures.accuracy_interval
    beyond_low, beyond_high = figures.calibration_error_beyond_chance_interval
    return {
        "test_accuracy": figures.accuracy,
        "test_accuracy_low": low,
        "test_accuracy_high": high,
        "calibration_error": figures.calibration_error,
        "calibration_error_honest": figures.calibration_error_honest,
        "calibration_error_honest_high": figures.calibration_error_honest_high,
        "calibration_error_beyond_chance": figures.calibration_error_beyond_chance,
        "calibration_error_beyond_chance_low": beyond_low,
        "calibration_error_beyond_chance_high": beyond_high,
        "calibration_error_uncalibrated": figures.calibration_error_uncalibrated,
    }


def _training_figures(trainer: Trainer) -> dict[str, float]:
    last = trainer.history[-1]
    figures = {
        "epochs": float(last.epoch),
        "kept_epoch": float(trainer.kept_epoch),
        "parameters": float(sum(p.numel() for p in trainer.network.parameters())),
        "train_loss": last.loss,
        "train_accuracy": last.accuracy,
        "train_seconds": sum(epoch.seconds for epoch in trainer.history),
    }
    if last.validation_loss is not None and last.validation_accuracy is not None:
        figures |= {
            "validation_loss": last.validation_loss,
            "validation_accuracy": last.validation_accuracy,
        }
    return figures


def environment(device: torch.device, *, processes: int = 1) -> dict[str, Any]:
    """Return what a training ran on, as JSON values."""
    on_gpu = device.type == "cuda"
    return {
        "device": torch.cuda.get_device_name(device) if on_gpu else "cpu",
        "processes": processes,
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }
