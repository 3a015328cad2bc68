"""Query vectors and a knob in, queries that look for the very thing or for the same kind out.

The vectors of an item-and-kind network have two parts of unit length, with the roots of their
shares (``vision.network.ItemAndKind``). Scaling a query's parts changes what a score listens to;
the stored vectors stay as they are.

Shape suffixes: Q queries, D vector width.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vision.manifest import Architecture


class Weighed(NamedTuple):
    """Queries to search with; their scores times ``factors_Q`` are weighted means of cosines."""

    queries_QD: NDArray[np.float32]  # unit length
    factors_Q: NDArray[np.float32]  # at least 0


def weigh(
    queries_QD: NDArray[np.float32], architecture: Architecture, kind: float | None
) -> Weighed:
    """Return queries whose scores give ``kind`` of their weight to the kind, the rest to the thing.

    With the factors, a score is (1 - kind) x the cosine of the item parts + kind x that of the
    kind parts, in [-1, 1].

    Args:
        queries_QD: unit vectors as the network gives them.
        architecture: the network's.
        kind: 0: this very thing, 1: the same kind; None: as the network's vectors are, which is
            all that one without two parts can do.

    Raises:
        ValueError: the network has no two parts, or ``kind`` does not lie in [0, 1].
    """
    if kind is None:
        return Weighed(queries_QD, np.ones(len(queries_QD), np.float32))
    item_width, share = architecture.item_width, architecture.kind_share
    if item_width is None or share is None:
        raise ValueError("this model's vectors have no part for kinds alone, so kind cannot be set")
    if not 0 <= kind <= 1:
        raise ValueError(f"kind must lie in [0, 1], got {kind}")
    weights_D = np.full(queries_QD.shape[1], kind / share)
    weights_D[:item_width] = (1 - kind) / (1 - share)
    weighed_QD = queries_QD * weights_D
    factors_Q = np.linalg.norm(weighed_QD, axis=1)
    weighed_QD /= np.maximum(factors_Q, np.finfo(np.float32).tiny)[:, None]
    return Weighed(weighed_QD.astype(np.float32), factors_Q.astype(np.float32))
