"""A finished training in, a measured model folder out.

Beside the manifest and the weights lie ``training.json`` (how it went), ``learnt.safetensors``
(what it has learnt from), ``references.safetensors`` (what new pictures are compared with) and
``README.md`` (the model card).
"""

import hashlib
import json
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from training.calibration import calibration_error, measure_calibration, uncalibrated
from training.card import model_card
from training.classification import class_figures, count_confusion
from training.data import Dataset
from training.evaluate import HISTORY_NAME, encode_all
from training.evaluation import ClassFigures
from training.learnt import LEARNT_NAME, LEARNT_SHA256, Learnt
from training.novelty import references_of
from training.session import TrainingSession
from training.significance import share_interval
from vision.encoder import Encoder
from vision.encoding import Encoding
from vision.manifest import Manifest
from vision.model import save_model
from vision.references import REFERENCES_NAME, REFERENCES_SHA256

CARD_NAME: Final = "README.md"


@dataclass(frozen=True, slots=True)
class Finished:
    """All that becomes a model folder."""

    manifest: Manifest  # not yet bound to the weights
    weights: Mapping[str, Tensor]  # on the CPU
    classes: Mapping[str, ClassFigures]  # by name: those that have test images
    learnt: bytes  # what the training looked at
    references: bytes  # what new pictures are compared with
    history: bytes  # JSON: how the training went, epoch by epoch, and where


def finish(session: TrainingSession, dataset: Dataset, subject: dict[str, Any]) -> Finished:
    """Calibrate the network, measure it on the test images the way it will be served, describe it.

    Args:
        session: a training that is over.
        dataset: what it was trained on; its test images are looked at here for the first time.
        subject: recipe and data as JSON values.
    """
    recipe = session.recipe
    record = Learnt.of(*filter(None, (dataset.train, dataset.validation)))
    learnt = record.joined(dataset.learnt_before or Learnt.nothing()).to_bytes()
    manifest = Manifest(
        name=f"{dataset.name}-{recipe.name}",
        architecture=recipe.architecture(len(dataset.label_names)),
        labels=dataset.label_names,
        preprocessing=recipe.preprocessing,
        weights_sha256="",  # save_model fills it in
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        temperature=session.temperature(),
        recipe=subject["recipe"],
        data=subject["data"] | {LEARNT_SHA256: hashlib.sha256(learnt).hexdigest()},
    )
    encoder = Encoder(manifest, session.network, session.world.device)
    encoding = encode_all(encoder, dataset.test.images_NCHW)
    references = references_of(encoder, dataset.train, encoding).to_bytes()
    labels_N, given_N = dataset.test.labels_N, encoding.probabilities_BL.argmax(axis=1)
    classes = class_figures(
        count_confusion(labels_N, given_N, len(dataset.label_names)), dataset.label_names
    )
    test_figures = _test_figures(encoding, labels_N, given_N == labels_N, manifest.temperature)
    manifest = replace(
        manifest,
        metrics=test_figures | _training_figures(session),
        data=manifest.data | {REFERENCES_SHA256: hashlib.sha256(references).hexdigest()},
    )
    history = {
        "history": [asdict(report) for report in session.history],
        "environment": _environment(session),
    }
    return Finished(
        manifest,
        {name: tensor.cpu() for name, tensor in session.network.state_dict().items()},
        {one.label: one for one in classes if one.images},
        learnt,
        references,
        json.dumps(history, indent=1, allow_nan=False).encode(),
    )


def publish(finished: Finished, folder: Path) -> Manifest:
    """Write the model folder, whole or not at all, and return its manifest.

    Raises:
        ModelFolderError: ``folder`` exists already, or cannot be written.
    """

    def describe(manifest: Manifest) -> dict[str, bytes]:
        card = model_card(manifest, classes=finished.classes)
        return {
            HISTORY_NAME: finished.history,
            LEARNT_NAME: finished.learnt,
            REFERENCES_NAME: finished.references,
            CARD_NAME: card.encode(),
        }

    return save_model(folder, finished.manifest, finished.weights, describe)


def _test_figures(
    encoding: Encoding,
    labels_N: NDArray[np.int64],
    right_N: NDArray[np.bool_],
    temperature: float,
) -> dict[str, float]:
    low, high = share_interval(int(right_N.sum()), len(right_N))
    before_NL = uncalibrated(encoding.probabilities_BL, temperature)
    calibration = measure_calibration(encoding.probabilities_BL, labels_N)
    return {
        "test_accuracy": float(right_N.mean()),
        "test_accuracy_low": low,
        "test_accuracy_high": high,
        "calibration_error": calibration.error,
        "calibration_error_honest": calibration.honest,
        "calibration_error_honest_high": calibration.honest_high,
        "calibration_error_beyond_chance": calibration.beyond_chance,
        "calibration_error_beyond_chance_low": calibration.interval[0],
        "calibration_error_beyond_chance_high": calibration.interval[1],
        "test_images": float(len(labels_N)),
        "calibration_error_uncalibrated": calibration_error(before_NL, labels_N),
    }


def _training_figures(session: TrainingSession) -> dict[str, float]:
    last = session.history[-1]
    figures = {
        "epochs": float(last.epoch),
        "kept_epoch": float(session.kept_epoch),
        "parameters": float(sum(p.numel() for p in session.network.parameters())),
        "train_loss": last.loss,
        "train_accuracy": last.accuracy,
        "train_seconds": sum(report.seconds for report in session.history),
    }
    if last.validation_loss is not None and last.validation_accuracy is not None:
        figures |= {
            "validation_loss": last.validation_loss,
            "validation_accuracy": last.validation_accuracy,
        }
    return figures


def _environment(session: TrainingSession) -> dict[str, Any]:
    device = session.world.device
    on_gpu = device.type == "cuda"
    return {
        "device": torch.cuda.get_device_name(device) if on_gpu else "cpu",
        "processes": session.world.size,
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }
