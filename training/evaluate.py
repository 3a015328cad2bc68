"""A model folder and a dataset in, its figures out: classes, confidence and retrieval.

Shape suffixes: N images, C channels, H x W pixels, D vector width, L labels.
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from training.data import Dataset
from training.errors import DataError
from training.retrieval import measure_retrieval
from vision.encoder import Encoder
from vision.encoding import Encoding

BATCH: Final = 512  # images through the network at once
CONFIDENCE_BINS: Final = 15  # as in Guo et al. 2017


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassFigures:
    """One class of the test images. A ratio is None where nothing was predicted to divide by."""

    label: str
    images: int
    precision: float | None  # of the images given this label, the share that has it
    recall: float  # of the images that have this label, the share given it


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """Figures on the test images; ratios in [0, 1]. The gallery is the training images."""

    images: int
    gallery_images: int
    accuracy: float
    mean_loss: float  # negative log-likelihood in nats, calibrated probabilities
    calibration_error: float  # ECE, 15 equal bins (Guo et al. 2017, section 2)
    r_at_1: float
    precision_at_10: float
    map: float
    classes: tuple[ClassFigures, ...]
    confusion: tuple[tuple[int, ...], ...]  # images; row: the label they have, column: were given

    def to_json(self) -> dict[str, Any]:
        """Return the figures as JSON values."""
        return asdict(self)


def evaluate(model_folder: Path, dataset: Dataset, *, device: str = "auto") -> Evaluation:
    """Return the figures of a model on ``dataset``, loaded with the model's preprocessing.

    Raises:
        ModelFolderError: the folder is missing, damaged or of another version.
        DeviceError: there is no such device here.
        DataError: the dataset has other classes than the model.
    """
    encoder = Encoder.load(model_folder, device=device)
    if dataset.label_names != encoder.manifest.labels:
        raise DataError(
            f"{model_folder} knows the classes {_listed(encoder.manifest.labels)}; "
            f"the data have {_listed(dataset.label_names)}"
        )
    gallery = encode_all(encoder, dataset.train.images_NCHW)
    queries = encode_all(encoder, dataset.test.images_NCHW)
    labels_N = dataset.test.labels_N
    retrieval = measure_retrieval(
        queries.vectors_BD, labels_N, gallery.vectors_BD, dataset.train.labels_N
    )
    confusion_LL = count_confusion(
        labels_N, queries.probabilities_BL.argmax(axis=1), len(dataset.label_names)
    )
    likelihoods_N = queries.probabilities_BL[np.arange(len(labels_N)), labels_N]
    return Evaluation(
        images=len(dataset.test),
        gallery_images=len(dataset.train),
        accuracy=float(np.trace(confusion_LL) / confusion_LL.sum()),
        mean_loss=float(-np.log(np.maximum(likelihoods_N, np.finfo(np.float32).tiny)).mean()),
        calibration_error=calibration_error(queries.probabilities_BL, labels_N),
        r_at_1=retrieval.r_at_1,
        precision_at_10=retrieval.precision_at_10,
        map=retrieval.map,
        classes=class_figures(confusion_LL, dataset.label_names),
        confusion=tuple(tuple(int(count) for count in row) for row in confusion_LL),
    )


def encode_all(encoder: Encoder, images_NCHW: NDArray[np.uint8]) -> Encoding:
    """Return vectors (N, D) and probabilities (N, L) of every image, in order."""
    parts = [
        encoder.encode(np.ascontiguousarray(images_NCHW[start : start + BATCH]))
        for start in range(0, len(images_NCHW), BATCH)
    ]
    return Encoding(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))


def count_confusion(
    labels_N: NDArray[np.int64], given_N: NDArray[np.int64], num_labels: int
) -> NDArray[np.int64]:
    """Return counts (L, L): row the label an image has, column the label it was given."""
    pairs = np.bincount(labels_N * num_labels + given_N, minlength=num_labels**2)
    return pairs.reshape(num_labels, num_labels)


def class_figures(
    confusion_LL: NDArray[np.int64], label_names: tuple[str, ...]
) -> tuple[ClassFigures, ...]:
    """Return precision and recall of every class; each has at least one image."""
    right_L, images_L, given_L = confusion_LL.diagonal(), confusion_LL.sum(1), confusion_LL.sum(0)
    return tuple(
        ClassFigures(
            label=label,
            images=int(images),
            precision=float(right / given) if given else None,
            recall=float(right / images),
        )
        for label, right, images, given in zip(label_names, right_L, images_L, given_L, strict=True)
    )


def calibration_error(probabilities_NL: NDArray[np.float32], labels_N: NDArray[np.int64]) -> float:
    """Return the expected calibration error: mean gap of confidence and accuracy over the bins."""
    confidences_N = probabilities_NL.max(axis=1)
    right_N = probabilities_NL.argmax(axis=1) == labels_N
    bins_N = np.minimum((confidences_N * CONFIDENCE_BINS).astype(np.int64), CONFIDENCE_BINS - 1)
    gaps = np.bincount(bins_N, weights=confidences_N - right_N, minlength=CONFIDENCE_BINS)
    return float(np.abs(gaps).sum() / len(labels_N))


def _listed(labels: tuple[str, ...]) -> str:
    shown = ", ".join(labels[:5])
    return f"{shown} and {len(labels) - 5} more" if len(labels) > 5 else shown  # noqa: PLR2004
