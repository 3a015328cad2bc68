"""Stated and true chances: how far apart they are, and the temperature that brings them together.

Shape suffixes: N images, L labels, K bins, S simulations.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from training.statistics.significance import Interval, share_interval

CONFIDENCE_BINS: Final = 15  # as in Guo et al. 2017
COLDEST, HOTTEST = 0.05, 20.0  # temperatures; trained networks need about 0.5 to 5
AS_IT_IS: Final = 1.0  # the temperature that changes nothing
FOLDS: Final = 5
FEWEST_FOR_TEMPERATURE: Final = 20  # with fewer images even the check of a temperature is luck
SIMULATIONS: Final = 1000
SIMULATED_BYTES: Final = 64 * 2**20  # at a time


@dataclass(frozen=True, slots=True, kw_only=True)
class ReliabilityBin:
    """The images whose highest probability lies in [low, high); the last bin has 1 in it too."""

    low: float
    high: float
    images: int
    confidence: float | None  # mean highest probability; None without images
    accuracy: float | None  # share of the images that have the most probable label


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationFigures:
    """How far stated chances are from true ones, and how much of that is luck. All in [0, 1].

    With few images even honest chances lie apart from the shares that are right: ``error`` cannot
    be read without ``honest``, and ``beyond_chance`` is what is left of it.
    """

    error: float  # ECE, 15 equal bins (Guo et al. 2017, section 2)
    honest: float  # the mean ECE that these chances would have on so many images, were they true
    honest_high: float  # one that only a twentieth of honest models would exceed
    beyond_chance: float  # the error less what chance explains: each gap shrunk as by James & Stein
    interval: Interval  # 95 %, of the error beyond chance: bootstrap

    @property
    def shown(self) -> bool:
        """Whether the error is more than luck, at 5 %."""
        return self.error > self.honest_high


def choose_temperature(logits_NL: NDArray[np.floating], labels_N: NDArray[np.int64]) -> float:
    """Return the temperature to keep: the fitted one where it helps out of sample, else 1.

    It is fitted on four fifths of the images and tried on the rest, five times; the mean gain in
    negative log-likelihood must exceed its standard error. Simulated with honest chances, one that
    is always fitted makes 90 of 100 networks worse with 30 images; this one, none.

    Args:
        logits_NL: of images that the network has not learnt from.
        labels_N: theirs, positions in the L labels.
    """
    count = len(labels_N)
    if count < FEWEST_FOR_TEMPERATURE:
        return AS_IT_IS
    gains_N = np.empty(count)
    order_N = np.random.default_rng(0).permutation(count)
    for fold in np.array_split(order_N, FOLDS):
        rest = np.setdiff1d(order_N, fold)
        temperature = fit_temperature(logits_NL[rest], labels_N[rest])
        gains_N[fold] = _losses(logits_NL[fold], labels_N[fold], AS_IT_IS) - _losses(
            logits_NL[fold], labels_N[fold], temperature
        )
    helps = gains_N.mean() > gains_N.std(ddof=1) / np.sqrt(count)
    return fit_temperature(logits_NL, labels_N) if helps else AS_IT_IS


def _losses(
    logits_NL: NDArray[np.floating], labels_N: NDArray[np.int64], temperature: float
) -> NDArray[np.float64]:
    """Return the negative log-likelihood (N,) of each label, nats."""
    from scipy.special import log_softmax  # noqa: PLC0415 - takes a second

    chances_NL = log_softmax(logits_NL.astype(np.float64) / temperature, axis=1)
    losses_N: NDArray[np.float64] = -chances_NL[np.arange(len(labels_N)), labels_N]
    return losses_N


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


def fitted_loss(logits_NL: NDArray[np.floating], labels_N: NDArray[np.int64]) -> float:
    """Return the mean negative log-likelihood of the labels at the fitted temperature, nats.

    It tells classifiers apart that are right equally often: by how sure they are, and where.
    """
    temperature = fit_temperature(logits_NL, labels_N)
    return float(_losses(logits_NL, labels_N, temperature).mean())


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


def measure_calibration(
    probabilities_NL: NDArray[np.floating], labels_N: NDArray[np.int64]
) -> CalibrationFigures:
    """Return the calibration error beside the one that honest probabilities would have here.

    The honest one is simulated: a thousand times each image is right with the very chance that was
    stated. The interval reaches as far to both sides as 95 % of bootstrap samples of the images do
    upwards (downwards they stop at 0, where they say nothing), and as far as the accuracy itself is
    uncertain: where all images are wrong, samples of them do not differ.
    """
    confidences_N = probabilities_NL.max(axis=1).astype(np.float64)
    right_N = probabilities_NL.argmax(axis=1) == labels_N
    bins_N = np.minimum((confidences_N * CONFIDENCE_BINS).astype(np.int64), CONFIDENCE_BINS - 1)
    generator = np.random.default_rng(0)
    members_NK = np.eye(CONFIDENCE_BINS)[bins_N]
    variances_K = (confidences_N * (1 - confidences_N)) @ members_NK
    gaps_NK = members_NK * (right_N - confidences_N)[:, None]
    honest: list[NDArray[np.float64]] = []
    resampled: list[NDArray[np.float64]] = []
    count = len(labels_N)
    rows = max(1, SIMULATED_BYTES // (8 * count))
    for start in range(0, SIMULATIONS, rows):
        size = (min(rows, SIMULATIONS - start), count)
        surprises_SN = (generator.random(size) < confidences_N) - confidences_N
        honest.append(np.abs(surprises_SN @ members_NK).sum(axis=1) / count)
        weights_SN = generator.multinomial(count, np.full(count, 1 / count), size=size[0])
        variances_SK = weights_SN @ (members_NK * (confidences_N * (1 - confidences_N))[:, None])
        resampled.append(_beyond_chance(weights_SN @ gaps_NK, variances_SK, count))
    honest_S = np.concatenate(honest)
    beyond = float(_beyond_chance(gaps_NK.sum(axis=0)[None], variances_K[None], count)[0])
    low, high = share_interval(int(right_N.sum()), count)
    reach = max((high - low) / 2, float(np.quantile(np.concatenate(resampled), 0.975)) - beyond)
    return CalibrationFigures(
        error=calibration_error(probabilities_NL, labels_N),
        honest=float(honest_S.mean()),
        honest_high=float(np.quantile(honest_S, 0.95)),
        beyond_chance=beyond,
        interval=(max(0.0, beyond - reach), min(1.0, beyond + reach)),
    )


def _beyond_chance(
    gaps_SK: NDArray[np.float64], variances_SK: NDArray[np.float64], count: int
) -> NDArray[np.float64]:
    """Return the error (S,) with every bin's gap shrunk by the share of it that chance explains.

    Args:
        gaps_SK: right answers less the sum of their stated chances.
        variances_SK: of that sum, were the chances true.
        count: images in all.
    """
    squares_S = (gaps_SK**2).sum(axis=1)
    luck_S = variances_SK.sum(axis=1)
    kept_S = np.clip(1 - luck_S / np.maximum(squares_S, np.finfo(np.float64).tiny), 0, 1)
    beyond_S: NDArray[np.float64] = kept_S * np.abs(gaps_SK).sum(axis=1) / count
    return beyond_S
