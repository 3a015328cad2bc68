"""Stated and true chances: how far apart they are, and the temperature that brings them together.

Shape suffixes: N images, L labels.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

CONFIDENCE_BINS: Final = 15  # as in Guo et al. 2017
COLDEST, HOTTEST = 0.05, 20.0  # temperatures; trained networks need about 0.5 to 5
AS_IT_IS: Final = 1.0  # the temperature that changes nothing


@dataclass(frozen=True, slots=True, kw_only=True)
class ReliabilityBin:
    """The images whose highest probability lies in [low, high); the last bin has 1 in it too."""

    low: float
    high: float
    images: int
    confidence: float | None  # mean highest probability; None without images
    accuracy: float | None  # share of the images that have the most probable label


def fit_temperature(logits_NL: NDArray[np.floating], labels_N: NDArray[np.int64]) -> float:
    """Return the temperature, 0.05 to 20, that gives the labels the least negative log-likelihood.

    As in Guo et al. 2017, section 4.2. The loss is convex in 1 / temperature: it has one minimum.
    Where every image is right it has none (the surer, the better), and 1 is returned.

    Args:
        logits_NL: of images that the network has not learnt from.
        labels_N: theirs, positions in the L labels.
    """
    from scipy.optimize import minimize_scalar  # noqa: PLC0415 - takes a second
    from scipy.special import logsumexp  # noqa: PLC0415

    below_NL = logits_NL.astype(np.float64)
    below_NL -= below_NL.max(axis=1, keepdims=True)
    labelled_N = below_NL[np.arange(len(labels_N)), labels_N]
    if (labelled_N == 0).all():
        return AS_IT_IS

    def loss(log_temperature: float) -> float:
        scale = np.exp(-log_temperature)
        return float((logsumexp(below_NL * scale, axis=1) - labelled_N * scale).mean())

    found = minimize_scalar(
        loss, bounds=(np.log(COLDEST), np.log(HOTTEST)), method="bounded", options={"xatol": 1e-6}
    )
    return float(np.exp(found.x)) if found.fun < loss(np.log(AS_IT_IS)) else AS_IT_IS


def uncalibrated(probabilities_NL: NDArray[np.float32], temperature: float) -> NDArray[np.float64]:
    """Return the probabilities (N, L) as they were before division by ``temperature``.

    softmax(z) is softmax(z / T) to the power of T, normalised. What had vanished in float32 stays
    at less than 1e-38 to that power.
    """
    tiny = np.finfo(np.float32).tiny
    powers_NL = np.log(np.maximum(probabilities_NL, tiny, dtype=np.float64)) * temperature
    powers_NL -= powers_NL.max(axis=1, keepdims=True)
    shares_NL: NDArray[np.float64] = np.exp(powers_NL)
    shares_NL /= shares_NL.sum(axis=1, keepdims=True)
    return shares_NL


def reliability(
    probabilities_NL: NDArray[np.floating], labels_N: NDArray[np.int64]
) -> tuple[ReliabilityBin, ...]:
    """Return the images in 15 equal bins of their highest probability, the lowest bin first."""
    confidences_N = probabilities_NL.max(axis=1).astype(np.float64)
    right_N = probabilities_NL.argmax(axis=1) == labels_N
    bins_N = np.minimum((confidences_N * CONFIDENCE_BINS).astype(np.int64), CONFIDENCE_BINS - 1)
    images, confidences, right = (
        np.bincount(bins_N, weights=weights_N, minlength=CONFIDENCE_BINS).tolist()
        for weights_N in (None, confidences_N, right_N)
    )
    return tuple(
        ReliabilityBin(
            low=number / CONFIDENCE_BINS,
            high=(number + 1) / CONFIDENCE_BINS,
            images=images[number],
            confidence=confidences[number] / images[number] if images[number] else None,
            accuracy=right[number] / images[number] if images[number] else None,
        )
        for number in range(CONFIDENCE_BINS)
    )


def calibration_error(probabilities_NL: NDArray[np.floating], labels_N: NDArray[np.int64]) -> float:
    """Return the expected calibration error: mean gap of confidence and accuracy over the bins.

    ECE of Guo et al. 2017, section 2; a bin counts as much as it has images.
    """
    gaps = (
        bin_.images * abs(bin_.confidence - bin_.accuracy)
        for bin_ in reliability(probabilities_NL, labels_N)
        if bin_.confidence is not None and bin_.accuracy is not None
    )
    return sum(gaps) / len(labels_N)
