"""Figures of a sample of images in, what is certain of them out: intervals and paired tests.

Shape suffixes: N images, measured by the base and the new model alike; F flips.
"""

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

CONFIDENCE: Final = 0.95  # of every interval
Z: Final = 1.959963984540054  # the standard normal lies within +-Z with that probability
FLIPS: Final = 10_000  # so that a p is known to about 0.004, and is never below 0.0001
FLIPPED_BYTES: Final = 32 * 2**20  # at a time
FEWEST_FOR_SPREAD: Final = 2

Interval = tuple[float, float]  # low, high


def share_interval(right: int, images: int) -> Interval:
    """Return the 95 % interval of a share (Wilson 1927), within [0, 1]; ``images`` at least 1."""
    share, weight = right / images, Z**2 / images
    centre = (share + weight / 2) / (1 + weight)
    half = Z / (1 + weight) * math.sqrt(share * (1 - share) / images + weight / (4 * images))
    return max(0.0, min(centre - half, share)), min(1.0, max(centre + half, share))


def mean_interval(values_N: NDArray[np.floating], *, low: float, high: float) -> Interval:
    """Return the 95 % interval of the mean (Student 1908), within [low, high]: all of it for one.

    It takes the values to be independent and the mean to be normal, which needs some 30 of them.
    """
    from scipy.stats import t  # noqa: PLC0415 - takes a second

    if len(values_N) < FEWEST_FOR_SPREAD:
        return low, high
    mean, error = values_N.mean(), values_N.std(ddof=1) / math.sqrt(len(values_N))
    half = t.ppf((1 + CONFIDENCE) / 2, len(values_N) - 1) * error
    return max(low, float(mean - half)), min(high, float(mean + half))


@dataclass(frozen=True, slots=True, kw_only=True)
class PairedDifference:
    """The new model's figure less the base's, on the same images."""

    difference: float
    interval: Interval  # 95 %
    p_worse: float  # chance of a difference as low as this one or lower, were both models as good
    p_two_sided: float  # chance of one as far from 0 or farther


def compare_shares(base_N: NDArray[np.bool_], new_N: NDArray[np.bool_]) -> PairedDifference:
    """Compare two models by a yes or no per image: McNemar's test, exact (binomial)."""
    from scipy.stats import binomtest  # noqa: PLC0415 - takes a second

    lost, won = int((base_N & ~new_N).sum()), int((new_N & ~base_N).sum())
    change_N = new_N.astype(np.float64) - base_N
    return PairedDifference(
        difference=(won - lost) / len(base_N),
        interval=mean_interval(change_N, low=-1, high=1),
        p_worse=float(binomtest(lost, lost + won, alternative="greater").pvalue)
        if lost + won
        else 1.0,
        p_two_sided=float(binomtest(lost, lost + won).pvalue) if lost + won else 1.0,
    )


def compare_means(
    base_N: NDArray[np.float64], new_N: NDArray[np.float64], *, seed: int = 0
) -> PairedDifference:
    """Compare two models by a number per image: a sign-flip permutation test, 10,000 flips.

    Were both models as good, each image's change could as well have had the other sign. The
    observed signs count as one of the flips, so that no p is 0 (Phipson & Smyth 2010).
    """
    change_N = new_N - base_N
    sums_F = _flipped_sums(change_N[change_N != 0], np.random.default_rng(seed))
    observed = float(change_N.sum())
    rounding = 1e-9 * float(np.abs(change_N).sum())  # equal sums may differ in their last bits
    as_low = int((sums_F <= observed + rounding).sum())
    as_far = int((np.abs(sums_F) >= abs(observed) - rounding).sum())
    return PairedDifference(
        difference=float(change_N.mean()),
        interval=mean_interval(change_N, low=-1, high=1),
        p_worse=(as_low + 1) / (FLIPS + 1),
        p_two_sided=(as_far + 1) / (FLIPS + 1),
    )


def _flipped_sums(
    change_N: NDArray[np.float64], generator: np.random.Generator
) -> NDArray[np.float64]:
    """Return the sums (F,) of the changes, each with a sign drawn at random."""
    rows = max(1, FLIPPED_BYTES // (8 * max(1, len(change_N))))
    row_bytes = -(-len(change_N) // 8)
    sums = []
    for start in range(0, FLIPS, rows):
        bytes_FB = generator.integers(
            256, size=(min(rows, FLIPS - start), row_bytes), dtype=np.uint8
        )
        kept_FN = np.unpackbits(bytes_FB, axis=1, count=len(change_N)).astype(np.float64)
        sums.append(2 * (kept_FN @ change_N) - change_N.sum())
    return np.concatenate(sums)
