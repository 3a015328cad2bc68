"""How far a measured recall can be believed: what each query found in, an interval out."""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

CONFIDENCE: Final = 0.95  # that the recall is no lower than ``low``; the same of ``high``


@dataclass(frozen=True, slots=True)
class Recall:
    """A recall, and between what it lies."""

    mean: float
    low: float
    high: float


def recall_between(found_Q: NDArray[np.float64], *, k: int) -> Recall:
    """Return the mean of the shares of ``k`` neighbours that queries found, and its bounds.

    The neighbours of one query are found or missed together, so they count for as many independent
    ones as the shares' variance tells; where all were found, for one a query. The bounds for so
    many are those of Clopper and Pearson: Korn and Graubard, "Confidence intervals for proportions
    with small expected number of positive counts estimated from survey data", Survey Methodology
    24 (1998).

    >>> recall_between(np.ones(1000), k=10)
    Recall(mean=1.0, low=0.99701, high=1.0)
    """
    # A tenth of a second that only measuring needs, and every server would pay.
    from scipy.special import betaincinv  # noqa: PLC0415

    count, mean = len(found_Q), float(found_Q.mean())
    of_one = float(found_Q.var()) / count
    independent = float(count)
    if of_one > 0:
        independent = min(max(mean * (1 - mean) / of_one, 1.0), float(count * k))
    found = mean * independent
    missed = independent - found
    low = betaincinv(found, missed + 1, 1 - CONFIDENCE) if found > 0 else 0.0
    high = betaincinv(found + 1, missed, CONFIDENCE) if missed > 0 else 1.0
    return Recall(round(mean, 5), round(float(low), 5), round(float(high), 5))
