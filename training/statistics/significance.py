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
Z_ONE_SIDED: Final = 1.6448536269514722  # and below this one
FLIPS: Final = 10_000  # so that a p is known to about 0.004, and is never below 0.0001
FLIPPED_BYTES: Final = 32 * 2**20  # at a time
FEWEST_FOR_SPREAD: Final = 2
ALPHA: Final = 0.05  # one-sided: the chance at which a model that is as good is called worse
ROUNDING: Final = 1e-9
POWER: Final = 0.8  # with which a drop must be shown to count as one that would be noticed
SPREADS: Final = 8  # standard deviations: farther from its mean no binomial number is looked at

Interval = tuple[float, float]  # low, high


def share_interval(right: int, images: int) -> Interval:
    """Return the 95 % interval of a share (Wilson 1927), within [0, 1]; ``images`` at least 1."""
    share, weight = right / images, Z**2 / images
    centre = (share + weight / 2) / (1 + weight)
    half = Z / (1 + weight) * math.sqrt(share * (1 - share) / images + weight / (4 * images))
    return max(0.0, min(centre - half, share)), min(1.0, max(centre + half, share))


def mean_interval(values_N: NDArray[np.floating], *, low: float, high: float) -> Interval:
    """Return the 95 % interval of the mean of values in [low, high]: all of that for a single one.

    Student's (1908) of the values and of two more at either bound, as Agresti and Coull (1998) do
    with shares: so many equal values leave the doubt that others are there to be met. It takes the
    values to be independent.
    """
    from scipy.stats import t  # noqa: PLC0415 - takes a second

    if len(values_N) < FEWEST_FOR_SPREAD:
        return low, high
    padded = _padded(values_N, low, high)
    error = float(padded.std(ddof=1)) / math.sqrt(len(padded))
    half = float(t.ppf((1 + CONFIDENCE) / 2, len(padded) - 1) * error)
    mean, centre = float(values_N.mean()), float(padded.mean())
    return max(low, min(centre - half, mean)), min(high, max(centre + half, mean))


def _padded(values_N: NDArray[np.floating], low: float, high: float) -> NDArray[np.float64]:
    return np.concatenate([values_N.astype(np.float64), [low, low, high, high]])


@dataclass(frozen=True, slots=True, kw_only=True)
class PairedDifference:
    """The new model's figure less the base's, on the same images."""

    difference: float
    interval: Interval  # 95 %
    p_worse: float  # chance of a difference as low as this one or lower, were both models as good
    p_two_sided: float  # chance of one as far from 0 or farther
    lowest: float  # that the true difference may have: one-sided bound at alpha
    noticed: (
        float | None
    )  # the smallest true drop that p_worse shows four times of five; None: none


def compare_shares(
    base_N: NDArray[np.bool_], new_N: NDArray[np.bool_], *, alpha: float = ALPHA
) -> PairedDifference:
    """Compare two models by a yes or no per image: McNemar's test, exact (binomial).

    The interval is Tango's (1998): it has a width even where the models never differ.
    """
    from scipy.stats import binomtest, norm  # noqa: PLC0415 - takes a second

    images, lost, won = len(base_N), int((base_N & ~new_N).sum()), int((new_N & ~base_N).sum())
    return PairedDifference(
        difference=(won - lost) / images,
        interval=(
            _score_bound(lost, won, images, z=Z),
            -_score_bound(won, lost, images, z=Z),
        ),
        p_worse=float(binomtest(lost, lost + won, alternative="greater").pvalue)
        if lost + won
        else 1.0,
        p_two_sided=float(binomtest(lost, lost + won).pvalue) if lost + won else 1.0,
        lowest=_score_bound(lost, won, images, z=max(0.0, float(norm.isf(alpha)))),
        noticed=noticed_drop(images, won=won / images, alpha=alpha),
    )


def _score_bound(lost: int, won: int, images: int, *, z: float) -> float:
    """Return the lower bound of the difference of two paired shares (Tango 1998).

    It is the lowest difference that the data are not more than ``z`` standard errors above, the
    error being that of the difference itself.
    """
    from scipy.optimize import brentq  # noqa: PLC0415 - takes a second

    difference = (won - lost) / images
    if z == 0 or difference == -1:
        return difference
    if math.isinf(z):
        return -1.0

    def excess(bound: float) -> float:
        """Return how far the data lie above ``bound``, less what is allowed; both squared."""
        b = -won - lost + (2 * images - won + lost) * bound
        c = -lost * bound * (1 - bound)
        lost_share = (math.sqrt(max(0.0, b * b - 8 * images * c)) - b) / (4 * images)
        variance = images * max(0.0, 2 * lost_share + bound * (1 - bound))
        return float((won - lost - images * bound) ** 2 - z**2 * variance)

    return float(brentq(excess, -1, difference - ROUNDING))


def most_lost(lost: int, won: int, images: int) -> float:
    """Return the largest loss of a share, in [0, 1], that the pairs allow: 95 %, one-sided.

    Args:
        lost: images that only the first is right of.
        won: images that only the second is right of.
        images: in all.
    """
    return max(0.0, -_score_bound(lost, won, images, z=Z_ONE_SIDED))


def noticed_drop(images: int, *, won: float = 0.0, alpha: float = ALPHA) -> float | None:
    """Return the smallest drop of a share that McNemar's test shows with a chance of 80 %.

    Args:
        images: that both models are measured on.
        won: the share of them that only the new model gets right; 0 is the best case.
        alpha: a one-sided p of at most this shows a drop.

    Returns:
        the drop in (0, 1], or None where not even a model that gets nothing right is shown.
    """
    from scipy.optimize import brentq  # noqa: PLC0415 - takes a second
    from scipy.stats import binom  # noqa: PLC0415

    def power(drop: float) -> float:
        differing = 2 * won + drop  # share of the images that the models differ on
        spread = SPREADS * math.sqrt(images * differing * max(0.0, 1 - differing)) + 1
        numbers = np.arange(
            max(0, math.floor(images * differing - spread)),
            min(images, math.ceil(images * differing + spread)) + 1,
        )
        most_by_chance = binom.isf(alpha, numbers, 0.5)
        shown = binom.sf(most_by_chance, numbers, (won + drop) / differing)
        return float(binom.pmf(numbers, images, min(1.0, differing)) @ shown)

    smallest, largest = 1 / (1000 * images), 1 - 2 * won
    if largest <= smallest or power(largest) < POWER:
        return None
    if power(smallest) >= POWER:
        return smallest
    return float(brentq(lambda drop: power(drop) - POWER, smallest, largest, xtol=1e-5))


def compare_means(
    base_N: NDArray[np.float64], new_N: NDArray[np.float64], *, alpha: float = ALPHA, seed: int = 0
) -> PairedDifference:
    """Compare two models by a number in [0, 1] per image: a sign-flip permutation test.

    Were both models as good, each image's change could as well have had the other sign. Of the
    10,000 flips the observed signs count as one, so that no p is 0 (Phipson & Smyth 2010).
    """
    from scipy.stats import norm, t  # noqa: PLC0415 - takes a second

    change_N = new_N - base_N
    sums_F = _flipped_sums(change_N[change_N != 0], np.random.default_rng(seed))
    observed = float(change_N.sum())
    rounding = ROUNDING * float(np.abs(change_N).sum())  # equal sums may differ in their last bits
    as_low = int((sums_F <= observed + rounding).sum())
    as_far = int((np.abs(sums_F) >= abs(observed) - rounding).sum())
    difference = float(change_N.mean())
    padded = _padded(change_N, -1, 1)
    error = float(padded.std(ddof=1)) / math.sqrt(len(padded))
    quantile = max(0.0, float(t.isf(alpha, len(padded) - 1)))
    noticed = (max(0.0, float(norm.isf(alpha))) + float(norm.ppf(POWER))) * error
    return PairedDifference(
        difference=difference,
        interval=mean_interval(change_N, low=-1, high=1),
        p_worse=(as_low + 1) / (FLIPS + 1),
        p_two_sided=(as_far + 1) / (FLIPS + 1),
        lowest=max(-1.0, min(difference, float(padded.mean()) - quantile * error)),
        noticed=noticed if noticed < 1 else None,
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
