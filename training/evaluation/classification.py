"""Probabilities of test images and their labels in, how well the model names classes out.

Shape suffixes: N images, L labels.
"""

import numpy as np
from numpy.typing import NDArray

from training.evaluation.results import ClassFigures, ClassificationFigures
from training.statistics.calibration import (
    CalibrationFigures,
    calibration_error,
    measure_calibration,
    reliability,
    uncalibrated,
)
from training.statistics.significance import noticed_drop, share_interval


def classification_figures(
    probabilities_NL: NDArray[np.float32],
    labels_N: NDArray[np.int64],
    label_names: tuple[str, ...],
    *,
    temperature: float,
) -> tuple[ClassificationFigures, CalibrationFigures]:
    """Return the figures, and what the calibration error consists of.

    Args:
        probabilities_NL: calibrated, of at least one image.
        labels_N: positions in ``label_names``.
        label_names: the model's classes.
        temperature: that the probabilities were calibrated with.
    """
    predicted_N = probabilities_NL.argmax(axis=1)
    correct_N = predicted_N == labels_N
    confusion_LL = count_confusion(labels_N, predicted_N, len(label_names))
    classes = class_figures(confusion_LL, label_names)
    recalls = [figure.recall for figure in classes if figure.recall is not None]
    likelihoods_N = probabilities_NL[np.arange(len(labels_N)), labels_N]
    raw_NL = uncalibrated(probabilities_NL, temperature)
    calibration = measure_calibration(probabilities_NL, labels_N)
    figures = ClassificationFigures(
        accuracy=float(correct_N.mean()),
        accuracy_interval=share_interval(int(correct_N.sum()), len(labels_N)),
        noticed_drop=noticed_drop(len(labels_N)),
        balanced_accuracy=sum(recalls) / len(recalls),
        mean_loss=float(-np.log(np.maximum(likelihoods_N, np.finfo(np.float32).tiny)).mean()),
        calibration_error=calibration.error,
        calibration_error_honest=calibration.honest,
        calibration_error_honest_high=calibration.honest_high,
        calibration_error_beyond_chance=calibration.beyond_chance,
        calibration_error_beyond_chance_interval=calibration.interval,
        calibration_error_uncalibrated=calibration_error(raw_NL, labels_N),
        reliability=reliability(probabilities_NL, labels_N),
        reliability_uncalibrated=reliability(raw_NL, labels_N),
        classes=classes,
        confusion=tuple(tuple(row) for row in confusion_LL.tolist()),
    )
    return figures, calibration


def count_confusion(
    labels_N: NDArray[np.int64], predicted_N: NDArray[np.int64], num_labels: int
) -> NDArray[np.int64]:
    """Return counts (L, L): row the label an image has, column the label it was given."""
    pairs = np.bincount(labels_N * num_labels + predicted_N, minlength=num_labels**2)
    return pairs.reshape(num_labels, num_labels)


def class_figures(
    confusion_LL: NDArray[np.int64], label_names: tuple[str, ...]
) -> tuple[ClassFigures, ...]:
    """Return precision, recall and F1 of every class, also of those without an image."""
    right_L, images_L, predicted_L = (
        confusion_LL.diagonal(),
        confusion_LL.sum(1),
        confusion_LL.sum(0),
    )
    figures: list[ClassFigures] = []
    for label, right, images, given in zip(
        label_names, right_L.tolist(), images_L.tolist(), predicted_L.tolist(), strict=True
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
