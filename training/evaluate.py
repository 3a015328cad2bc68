"""A model folder and a dataset in, its figures out: classes, confidence, retrieval and speed.

Shape suffixes: N images, C channels, H x W pixels, D vector width, L labels.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from training.batches import images_at_once
from training.belief import accuracy_in_words, calibration_in_words, classes_in_words
from training.calibration import (
    calibration_error,
    measure_calibration,
    reliability,
    uncalibrated,
)
from training.data import Dataset, HeldOut, LabelledImages
from training.errors import DataError
from training.evaluation import (
    ClassFigures,
    DataFacts,
    Evaluation,
    HeldOutFigures,
    ModelFacts,
    SearchFigures,
)
from training.evidence import Evidence
from training.retrieval import Retrieval, measure_retrieval
from training.significance import mean_interval, noticed_drop, share_interval
from training.speed import measure_speed
from training.units import listed
from vision import encoding
from vision.encoder import Encoder
from vision.encoding import Encoding
from vision.errors import ModelFolderError
from vision.manifest import WEIGHTS_NAME

__all__ = [
    "HISTORY_NAME",
    "Evaluation",
    "Evidence",
    "Measurement",
    "Outcome",
    "encode_all",
    "measure",
]

HISTORY_NAME: Final = "training.json"  # in a model folder: how its training went


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Outcome:
    """What became of each test image: what paired tests compare."""

    contents_N: NDArray[np.uint64]  # of the files: what models of other input sizes are paired by
    label_names: tuple[str, ...]
    labels_N: NDArray[np.int64]
    given_N: NDArray[np.int64]  # the labels they were given
    correct_N: NDArray[np.bool_]  # given the label it has
    retrieval: Retrieval  # what they found among the training images


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Measurement:
    """The figures, and what they were computed from."""

    evaluation: Evaluation
    outcome: Outcome
    queries: Encoding  # of the test images
    gallery: Encoding  # of the training images


def measure(model_folder: Path, dataset: Dataset, *, device: str = "auto") -> Measurement:
    """Measure a model on ``dataset``, loaded with the model's preprocessing.

    Raises:
        ModelFolderError: the folder is missing, damaged or of another version.
        DeviceError: there is no such device here.
        DataError: the dataset has other classes than the model.
    """
    encoder = load_encoder(model_folder, dataset, device=device)
    manifest = encoder.manifest
    history = read_history(model_folder)
    queries, gallery = encode_parts(encoder, dataset)
    outcome = find_outcome(queries, gallery, dataset)
    labels_N, correct_N, retrieval = outcome.labels_N, outcome.correct_N, outcome.retrieval
    confusion_LL = count_confusion(labels_N, outcome.given_N, len(dataset.label_names))
    classes = class_figures(confusion_LL, dataset.label_names)
    likelihoods_N = queries.probabilities_BL[np.arange(len(labels_N)), labels_N]
    raw_NL = uncalibrated(queries.probabilities_BL, manifest.temperature)
    calibration = measure_calibration(queries.probabilities_BL, labels_N)
    accuracy_interval = share_interval(int(correct_N.sum()), len(labels_N))
    recalls = [figure.recall for figure in classes if figure.recall is not None]

    evaluation = Evaluation(
        model=_model_facts(model_folder, encoder),
        data=DataFacts(
            name=dataset.name,
            train_images=len(dataset.train),
            test_images=len(dataset.test),
            test_fingerprint=dataset.test.fingerprint,
            selection=dataset.selection,
        ),
        images=len(dataset.test),
        gallery_images=len(dataset.train),
        accuracy=float(correct_N.mean()),
        accuracy_interval=accuracy_interval,
        noticed_drop=noticed_drop(len(labels_N)),
        balanced_accuracy=sum(recalls) / len(recalls),
        mean_loss=float(-np.log(np.maximum(likelihoods_N, np.finfo(np.float32).tiny)).mean()),
        temperature=manifest.temperature,
        calibration_error=calibration.error,
        calibration_error_honest=calibration.honest,
        calibration_error_honest_high=calibration.honest_high,
        calibration_error_beyond_chance=calibration.beyond_chance,
        calibration_error_beyond_chance_interval=calibration.interval,
        calibration_error_uncalibrated=calibration_error(raw_NL, labels_N),
        reliability=reliability(queries.probabilities_BL, labels_N),
        reliability_uncalibrated=reliability(raw_NL, labels_N),
        r_at_1=retrieval.r_at_1,
        r_at_1_interval=share_interval(int(retrieval.first_Q.sum()), len(labels_N)),
        precision_at_10=retrieval.precision_at_10,
        map=retrieval.map,
        map_interval=mean_interval(retrieval.average_precision_Q, low=0, high=1),
        map_at_r=retrieval.map_at_r,
        held_out=_held_out_figures(encoder, dataset.held_out, dataset.train, gallery)
        if dataset.held_out
        else None,
        classes=classes,
        confusion=tuple(tuple(row) for row in confusion_LL.tolist()),
        history=history,
        in_words=(
            *(dataset.selection.sentences() if dataset.selection else ()),
            accuracy_in_words(float(correct_N.mean()), len(labels_N), accuracy_interval),
            calibration_in_words(calibration),
            *classes_in_words(classes),
        ),
        speed=measure_speed(encoder),
    )
    return Measurement(evaluation=evaluation, outcome=outcome, queries=queries, gallery=gallery)


def load_encoder(model_folder: Path, dataset: Dataset, *, device: str) -> Encoder:
    """Return the encoder of a model that counts its classes as ``dataset`` does.

    Raises:
        ModelFolderError, DeviceError, DataError: as ``measure``.
    """
    encoder = Encoder.load(model_folder, device=device)
    if dataset.label_names != encoder.manifest.labels:
        raise DataError(
            f"{model_folder} knows the classes {listed(encoder.manifest.labels)}; "
            f"the data have {listed(dataset.label_names)}"
        )
    return encoder


def find_outcome(queries: Encoding, gallery: Encoding, dataset: Dataset) -> Outcome:
    """Return what became of the test images, given encodings of them and the training images."""
    labels_N, given_N = dataset.test.labels_N, queries.probabilities_BL.argmax(axis=1)
    return Outcome(
        contents_N=dataset.test.contents_N,
        label_names=dataset.label_names,
        labels_N=labels_N,
        given_N=given_N,
        correct_N=given_N == labels_N,
        retrieval=measure_retrieval(
            queries.vectors_BD,
            labels_N,
            gallery.vectors_BD,
            dataset.train.labels_N,
            lots=(dataset.test.lots_N, dataset.train.lots_N),
        ),
    )


def read_history(model_folder: Path) -> tuple[dict[str, Any], ...]:
    """Return how the training went, epoch by epoch; nothing where the folder does not say.

    Raises:
        ModelFolderError: the file is not JSON, or holds something else.
    """
    path = model_folder / HISTORY_NAME
    try:
        history = json.loads(path.read_bytes())["history"]
        return tuple(dict(epoch) for epoch in history)
    except FileNotFoundError:
        return ()
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ModelFolderError(f"{path} is damaged: no list of epochs called history") from error


def encode_all(encoder: Encoder, images_NCHW: NDArray[np.uint8]) -> Encoding:
    """Return vectors (N, D) and probabilities (N, L) of every image, in order."""
    batch = images_at_once(encoder.manifest.preprocessing.size)
    return encoding.encode_all(encoder, images_NCHW, batch=batch)


def encode_parts(encoder: Encoder, dataset: Dataset) -> tuple[Encoding, Encoding]:
    """Return what the network says of the test images and of those that are searched."""
    queries = encode_all(encoder, dataset.test.images_NCHW)
    if dataset.train is dataset.test:
        return queries, queries
    return queries, encode_all(encoder, dataset.train.images_NCHW)


def count_confusion(
    labels_N: NDArray[np.int64], given_N: NDArray[np.int64], num_labels: int
) -> NDArray[np.int64]:
    """Return counts (L, L): row the label an image has, column the label it was given."""
    pairs = np.bincount(labels_N * num_labels + given_N, minlength=num_labels**2)
    return pairs.reshape(num_labels, num_labels)


def class_figures(
    confusion_LL: NDArray[np.int64], label_names: tuple[str, ...]
) -> tuple[ClassFigures, ...]:
    """Return precision, recall and F1 of every class, also of those without an image."""
    right_L, images_L, given_L = confusion_LL.diagonal(), confusion_LL.sum(1), confusion_LL.sum(0)
    figures: list[ClassFigures] = []
    for label, right, images, given in zip(
        label_names, right_L.tolist(), images_L.tolist(), given_L.tolist(), strict=True
    ):
        figures.append(
            ClassFigures(
                label=label,
                images=images,
                precision=right / given if given else None,
                precision_interval=share_interval(right, given) if given else None,
                recall=right / images if images else None,
                recall_interval=share_interval(right, images) if images else None,
                f1=2 * right / (images + given) if images else None,
            )
        )
    return tuple(figures)


def _held_out_figures(
    encoder: Encoder, held_out: HeldOut, known: LabelledImages, known_gallery: Encoding
) -> HeldOutFigures:
    new_labels_K = held_out.train.labels_N + len(known.label_names)  # after those of the known
    new_labels_N = held_out.test.labels_N + len(known.label_names)
    queries_ND = encode_all(encoder, held_out.test.images_NCHW).vectors_BD
    gallery_KD = encode_all(encoder, held_out.train.images_NCHW).vectors_BD
    among_all = measure_retrieval(
        queries_ND,
        new_labels_N,
        np.concatenate([known_gallery.vectors_BD, gallery_KD]),
        np.concatenate([known.labels_N, new_labels_K]),
        lots=(held_out.test.lots_N, np.concatenate([known.lots_N, held_out.train.lots_N])),
    )
    among_held_out = measure_retrieval(
        queries_ND,
        new_labels_N,
        gallery_KD,
        new_labels_K,
        lots=(held_out.test.lots_N, held_out.train.lots_N),
    )
    return HeldOutFigures(
        classes=held_out.test.label_names,
        images=len(held_out.test),
        among_held_out=_search_figures(among_held_out, len(gallery_KD)),
        among_all=_search_figures(among_all, len(known) + len(gallery_KD)),
    )


def _search_figures(retrieval: Retrieval, gallery_images: int) -> SearchFigures:
    return SearchFigures(
        gallery_images=gallery_images,
        r_at_1=retrieval.r_at_1,
        precision_at_10=retrieval.precision_at_10,
        map=retrieval.map,
        map_at_r=retrieval.map_at_r,
    )


def _model_facts(model_folder: Path, encoder: Encoder) -> ModelFacts:
    manifest = encoder.manifest
    return ModelFacts(
        name=manifest.name,
        fingerprint=manifest.fingerprint,
        recipe=str(manifest.recipe.get("name", "unknown")),
        network=manifest.architecture.network,
        embedding_layer=manifest.architecture.embedding_layer,
        width=manifest.architecture.width,
        parameters=encoder.parameters,
        weights_bytes=(model_folder / WEIGHTS_NAME).stat().st_size,
        created=manifest.created,
    )
