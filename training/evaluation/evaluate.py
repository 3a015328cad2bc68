"""A model folder and a dataset in, its figures out: classes, confidence, search and speed.

Shape suffixes: N images, C channels, H x W pixels, D vector width, L labels.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from training.data.dataset import Dataset
from training.errors import DataError
from training.evaluation.class_retrieval import class_search_figures, held_out_figures
from training.evaluation.classification import classification_figures
from training.evaluation.confidence_statements import (
    accuracy_statement,
    calibration_statement,
    class_statements,
)
from training.evaluation.item_retrieval import ItemSearch, search_items
from training.evaluation.novelty import measure_novelty
from training.evaluation.results import (
    ClassificationFigures,
    DataInfo,
    Evaluation,
    ModelInfo,
    NoveltyFigures,
)
from training.evaluation.views import VIEWS
from training.formatting import listed
from training.statistics.latency import measure_speed
from training.statistics.retrieval import Retrieval, measure_retrieval
from training.statistics.same_item import MOST_PHOTOS
from training.training_history import read_history
from vision.inference.bulk_encoder import fastest_encoder
from vision.inference.encoder import Encoding, ImageEncoder, encode_all
from vision.inference.open_encoder import open_encoder, takes_export
from vision.inference.runtime_name import RuntimeName
from vision.inference.torch_encoder import TorchEncoder
from vision.model.manifest import WEIGHTS_NAME, Manifest
from vision.model.open_set import read_detector
from vision.networks.saved_model import load_model


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Predictions:
    """What became of each test image: what paired tests compare."""

    contents_N: NDArray[np.uint64]  # of the files: what models of other input sizes are paired by
    label_names: tuple[str, ...]  # none: the data have no labels
    labels_N: NDArray[np.int64]
    predicted_N: NDArray[np.int64] | None  # the labels they were given; None: there are no classes
    retrieval: Retrieval | None  # what they found of their class among the training images
    items: ItemSearch  # whether they found themselves, or others of their group

    @property
    def correct_N(self) -> NDArray[np.bool_] | None:
        """Whether each was given the label it has."""
        return None if self.predicted_N is None else self.predicted_N == self.labels_N

    @property
    def per_image(self) -> dict[str, NDArray[np.bool_] | NDArray[np.float64]]:
        """A number in [0, 1] for each image, or NaN, by the name of the figure it is the mean of.

        What was not measured is missing.
        """
        numbers: dict[str, NDArray[np.bool_] | NDArray[np.float64]] = {}
        if self.correct_N is not None:
            numbers["accuracy"] = self.correct_N
        if self.retrieval is not None:
            numbers |= self.retrieval.per_query
        return {**numbers, "same_item": self.items.first_N}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Measurement:
    """The figures, and what they were computed from."""

    evaluation: Evaluation
    predictions: Predictions
    queries: Encoding  # of the test images
    gallery: Encoding  # of the training images


def evaluate_model(
    model_folder: Path, dataset: Dataset, *, device: str = "auto", runtime: RuntimeName = "auto"
) -> Measurement:
    """Measure a model on ``dataset``, loaded with the model's preprocessing.

    It is measured as it is served: with its export, where servers would take that.

    Raises:
        ModelFolderError: the folder is missing, damaged or of another version.
        DeviceError: there is no such device here.
        DataError: the dataset has other classes than the model.
    """
    served = _open(model_folder, device=device, runtime=runtime)
    manifest = served.manifest
    check_classes(model_folder, manifest, dataset)
    encoder = fastest_encoder(served, images=images_to_encode(dataset))
    history = read_history(model_folder)
    queries, gallery = encode_parts(encoder, dataset)
    predictions = predict_test_images(encoder, queries, gallery, dataset)
    classification: ClassificationFigures | None = None
    words: tuple[str, ...] = ()
    if manifest.labels and dataset.label_names:
        classification, calibration = classification_figures(
            queries.probabilities_BL,
            predictions.labels_N,
            dataset.label_names,
            temperature=manifest.temperature,
        )
        words = (
            accuracy_statement(
                classification.accuracy, len(dataset.test), classification.accuracy_interval
            ),
            calibration_statement(calibration),
            *class_statements(classification.classes),
        )
    evaluation = Evaluation(
        model=_model_info(model_folder),
        data=DataInfo(
            name=dataset.name,
            train_images=len(dataset.train),
            test_images=len(dataset.test),
            test_fingerprint=dataset.test.fingerprint,
            selection=dataset.selection,
        ),
        images=len(dataset.test),
        gallery_images=len(dataset.train),
        classification=classification,
        class_search=class_search_figures(predictions.retrieval) if predictions.retrieval else None,
        same_item=predictions.items.figures,
        novelty=_novelty(model_folder, encoder, queries, predictions),
        held_out=held_out_figures(encoder, dataset.held_out, dataset.train, gallery)
        if dataset.held_out
        else None,
        temperature=manifest.temperature,
        history=history.epochs,
        tried=history.tried,
        in_words=(
            *(dataset.selection.sentences() if dataset.selection else ()),
            *words,
            *_runtime_statement(served),
        ),
        computed_by=f"{encoder.runtime.name}, {encoder.runtime.precision}",
        speed=measure_speed(served),
    )
    return Measurement(
        evaluation=evaluation, predictions=predictions, queries=queries, gallery=gallery
    )


def encode_parts(encoder: ImageEncoder, dataset: Dataset) -> tuple[Encoding, Encoding]:
    """Return what the network says of the test images and of those that are searched."""
    queries = encode_all(encoder, dataset.test.images_NCHW)
    if dataset.train is dataset.test:
        return queries, queries
    return queries, encode_all(encoder, dataset.train.images_NCHW)


def images_to_encode(dataset: Dataset) -> int:
    """Return about how many images a measurement encodes, made views included."""
    searched = 0 if dataset.train is dataset.test else len(dataset.train)
    return len(dataset.test) + searched + VIEWS * min(MOST_PHOTOS, len(dataset.test))


def _novelty(
    model_folder: Path, encoder: ImageEncoder, queries: Encoding, predictions: Predictions
) -> NoveltyFigures | None:
    references = read_detector(model_folder, encoder.manifest)
    if references is None or predictions.correct_N is None:
        return None
    return measure_novelty(encoder, references, queries, predictions.correct_N)


def _open(model_folder: Path, *, device: str, runtime: RuntimeName) -> ImageEncoder:
    if takes_export(model_folder, device=device, runtime=runtime):
        return open_encoder(
            model_folder, device=device, runtime=runtime, threads=torch.get_num_threads()
        )
    return TorchEncoder.load(model_folder, device=device)


def check_classes(model_folder: Path, manifest: Manifest, dataset: Dataset) -> None:
    """Refuse a model that counts its classes otherwise than ``dataset`` does, if both have any.

    Raises:
        DataError: it does.
    """
    known = manifest.labels
    if known and dataset.label_names and dataset.label_names != known:
        raise DataError(
            f"{model_folder} knows the classes {listed(known)}; "
            f"the data have {listed(dataset.label_names)}"
        )


def _runtime_statement(served: ImageEncoder) -> tuple[str, ...]:
    """Return what the figures are of, where that is not the network in full precision."""
    runtime = served.runtime
    if runtime.precision == "fp32":
        return ()
    return (
        f"The figures are those of the export that servers on a CPU use: {runtime.name} in "
        f"{runtime.precision}.",
    )


def predict_test_images(
    encoder: ImageEncoder, queries: Encoding, gallery: Encoding, dataset: Dataset
) -> Predictions:
    """Return what became of the test images, given encodings of them and the training images."""
    labels_N, predicted_N = dataset.test.labels_N, None
    if encoder.manifest.labels and dataset.label_names:
        predicted_N = queries.probabilities_BL.argmax(axis=1)
    retrieval = None
    if dataset.label_names:
        retrieval = measure_retrieval(
            queries.vectors_BD,
            labels_N,
            gallery.vectors_BD,
            dataset.train.labels_N,
            group_keys=(dataset.test.group_keys_N, dataset.train.group_keys_N),
        )
    return Predictions(
        contents_N=dataset.test.contents_N,
        label_names=dataset.label_names,
        labels_N=labels_N,
        predicted_N=predicted_N,
        retrieval=retrieval,
        items=search_items(encoder, dataset, queries, gallery),
    )


def _model_info(model_folder: Path) -> ModelInfo:
    manifest, network = load_model(model_folder)
    return ModelInfo(
        name=manifest.name,
        fingerprint=manifest.fingerprint,
        recipe=str(manifest.recipe.get("name", "unknown")),
        network=manifest.architecture.network,
        embedding_layer=manifest.architecture.embedding_layer,
        width=manifest.architecture.width,
        parameters=sum(parameter.numel() for parameter in network.parameters()),
        weights_bytes=(model_folder / WEIGHTS_NAME).stat().st_size,
        created=manifest.created,
    )
