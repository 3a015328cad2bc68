"""A model folder and a gallery with labels in, the same model with these labels as classes out.

Network, preprocessing and embedding stay byte for byte, so the fingerprint does, and galleries of
the old model folder are served with the new one.
"""

import hashlib
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import numpy as np

from index.store.schema import Binding
from training.data.gallery_labels import LabelledItems, read_labelled_items
from training.data.images.photo_hashes import NO_PHASH
from training.data.images.training_record import (
    TRAINING_RECORD_NAME,
    TRAINING_RECORD_SHA256,
    TrainingRecord,
    read_training_record,
)
from training.errors import DataError
from training.heads.vector_classifier import FittedClassifier, fit_classes
from training.publish import CARD_NAME
from training.report.model_card import model_card
from training.report.model_card_figures import CLASSES_ORIGIN
from training.training_history import HISTORY_NAME, read_history
from vision.errors import ModelFolderError
from vision.inference.openvino_encoder import RUNTIME
from vision.model.export_folder import has_export, read_export, rebind
from vision.model.manifest import Manifest, read_manifest, read_weights
from vision.model.open_set import REFERENCES_NAME, REFERENCES_SHA256
from vision.model.vector_classifier import CLASSIFIER_NAME
from vision.networks.saved_model import write_model

# Figures of the classes that the network itself has learnt; they are not those of the new ones.
OF_CLASSES: Final = ("test_accuracy", "calibration_", "held_out_")


@dataclass(frozen=True, slots=True)
class ClassedModel:
    """A new model folder, and what it came of."""

    manifest: Manifest
    before: tuple[str, ...]  # labels of the model that it was made of
    items: LabelledItems
    fitted: FittedClassifier


def add_classes(gallery: Path, model: Path, out: Path) -> ClassedModel:
    """Write a model folder whose classes are the labels of a gallery's items.

    Raises:
        ModelMismatchError: the gallery holds vectors of another model.
        DataError: it has too few labels.
        GalleryFolderError, StorageError: the gallery cannot be read.
        ModelFolderError: the model cannot be read, or ``out`` is there already or cannot be
            written; nothing is left behind.
    """
    base = read_manifest(model)
    if out.exists():
        raise ModelFolderError(f"{out} exists already; a model folder is never overwritten")
    weights = read_weights(model, base)
    items = read_labelled_items(gallery)
    facts = items.facts
    binding = Binding(model_name=facts.model_name, fingerprint=facts.fingerprint, width=facts.width)
    binding.check(base.fingerprint, gallery)
    record = read_training_record(model, base)
    learnt_N = np.zeros(len(items), np.bool_)
    if base.architecture.num_labels:  # without classes, it has learnt from no label
        learnt_N = (
            np.ones(len(items), np.bool_)
            if record is None
            else np.isin(items.contents_N, record.contents_K)
        )
    try:
        fitted = fit_classes(items, learnt_N, base.architecture)
    except DataError as error:
        raise DataError(f"{gallery}: {error}") from error
    documents = {
        CLASSIFIER_NAME: fitted.classes.to_bytes(),
        REFERENCES_NAME: fitted.references.to_bytes(),
    }
    data = dict(base.data)
    if record is not None:
        documents[TRAINING_RECORD_NAME] = _extended_record(record, items).to_bytes()
        data[TRAINING_RECORD_SHA256] = hashlib.sha256(documents[TRAINING_RECORD_NAME]).hexdigest()
    data[REFERENCES_SHA256] = hashlib.sha256(documents[REFERENCES_NAME]).hexdigest()
    data[CLASSES_ORIGIN] = _origin(gallery, items, fitted)
    manifest = replace(
        base,
        labels=items.names,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        temperature=fitted.temperature,
        data=data,
        metrics=_metrics(base, fitted),
        classes_sha256=hashlib.sha256(documents[CLASSIFIER_NAME]).hexdigest(),
    )
    history = model / HISTORY_NAME
    if history.is_file():
        documents[HISTORY_NAME] = history.read_bytes()
    tried = read_history(model).tried
    documents[CARD_NAME] = model_card(manifest, classes={}, tried=tried).encode()
    export = read_export(model, base, RUNTIME) if has_export(model, RUNTIME) else None
    write_model(
        out, manifest, weights, documents, None if export is None else rebind(export, manifest)
    )
    return ClassedModel(manifest, base.labels, items, fitted)


def _extended_record(record: TrainingRecord, items: LabelledItems) -> TrainingRecord:
    """Return what the model has learnt from, with the items, whose looks are not known."""
    phashes_N = np.full(len(items), NO_PHASH, np.uint64)
    return record.union(TrainingRecord(contents_K=items.contents_N, phashes_K=phashes_N))


def _origin(gallery: Path, items: LabelledItems, fitted: FittedClassifier) -> dict[str, object]:
    return {
        "gallery": gallery.resolve().name,
        "items": len(items),
        "classes": len(items.names),
        "measured": fitted.measured,
        "all_new": fitted.all_new,
        "classes_of_one_photo": fitted.alone,
        "shrinkage": fitted.shrinkage,
    }


def _metrics(base: Manifest, fitted: FittedClassifier) -> dict[str, float]:
    kept = {name: value for name, value in base.metrics.items() if not name.startswith(OF_CLASSES)}
    low, high = fitted.interval
    return kept | {
        "held_out_images": float(fitted.measured),
        "held_out_accuracy": fitted.accuracy,
        "held_out_accuracy_low": low,
        "held_out_accuracy_high": high,
    }
