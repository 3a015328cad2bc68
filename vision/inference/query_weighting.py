"""Query vectors and a knob in, queries that look for the very thing or for the same kind out.

The vectors of an item-and-kind network have two parts of unit length, with the roots of their
shares (``vision.networks.network.ItemAndKind``). Scaling a query's parts changes what a score
listens to; the stored vectors stay as they are.

Shape suffixes: Q queries, D vector width.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vision.model.manifest import Architecture


class WeightedQueries(NamedTuple):
    """Queries to search with; their scores times ``factors_Q`` are weighted means of cosines."""

    queries_QD: NDArray[np.float32]  # unit length
    factors_Q: NDArray[np.float32]  # at least 0; 0: a query is zero in all that counts


def weight_queries(
    queries_QD: NDArray[np.float32], architecture: Architecture, kind: float | None
) -> WeightedQueries:
    """Return queries whose scores give ``kind`` of their weight to the kind, the rest to the thing.

    With the factors, a score is (1 - kind) x the cosine of the item parts + kind x that of the
    kind parts, in [-1, 1].

    Args:
        queries_QD: unit vectors. Where their parts are not as long as the network makes them, the
            parts' directions count.
        architecture: the network's.
        kind: 0: this very thing, 1: the same kind; None: as the network's vectors are, which is
            all that one without two parts can do.

    Raises:
        ValueError: the network has no two parts, or ``kind`` does not lie in [0, 1].
    """
    if kind is None:
        return WeightedQueries(queries_QD, np.ones(len(queries_QD), np.float32))
    item_width, share = architecture.item_width, architecture.kind_share
    if item_width is None or share is None:
        raise ValueError("this model's vectors have no part for kinds alone, so kind cannot be set")
    if not 0 <= kind <= 1:
        raise ValueError(f"kind must lie in [0, 1], got {kind}")
    weighed_QD = np.concatenate(
        [
            (1 - kind) / np.sqrt(1 - share) * _unit(queries_QD[:, :item_width]),
            kind / np.sqrt(share) * _unit(queries_QD[:, item_width:]),
        ],
        axis=1,
    )
    factors_Q = np.linalg.norm(weighed_QD, axis=1)
    weighed_QD = _unit(weighed_QD)
    return WeightedQueries(weighed_QD.astype(np.float32), factors_Q.astype(np.float32))


def _unit(rows_QD: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return ``rows_QD`` of unit length; zeros stay as they are."""
    wide_QD = rows_QD.astype(np.float64)
    lengths_Q1 = np.linalg.norm(wide_QD, axis=1, keepdims=True)
    unit_QD: NDArray[np.float64] = wide_QD / np.where(lengths_Q1 > 0, lengths_Q1, 1)
    return unit_QD
