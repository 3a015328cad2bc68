"""How well nearest vectors are of the same class: exact cosine over a whole gallery.

Shape suffixes: Q queries, K gallery vectors, D vector width.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

TOP: Final = 10  # hits that precision_at_10 looks at
CHUNK_BYTES: Final = 128 * 2**20  # of sort keys at a time
SIGN_BITS: Final = np.int64(0x7FFF_FFFF)


@dataclass(frozen=True, slots=True, kw_only=True)
class Retrieval:
    """Means over the queries, in [0, 1]. Of two equal scores the wrong one counts as nearer."""

    r_at_1: float  # share of queries whose nearest gallery vector is of their class
    precision_at_10: float  # share of the right class among the ten nearest (or all, if fewer)
    map: float  # mean average precision over the whole gallery, not interpolated


def measure_retrieval(
    queries_QD: NDArray[np.float32],
    query_labels_Q: NDArray[np.int64],
    gallery_KD: NDArray[np.float32],
    gallery_labels_K: NDArray[np.int64],
) -> Retrieval:
    """Return how well each query's class is found; unit vectors in, time about Q x K log K.

    A query whose class the gallery does not have counts as 0.
    """
    rows = max(1, CHUNK_BYTES // (8 * len(gallery_KD)))
    first, top, average = 0.0, 0.0, 0.0
    for start in range(0, len(queries_QD), rows):
        scores_QK = queries_QD[start : start + rows] @ gallery_KD.T
        wrong_QK = query_labels_Q[start : start + rows, None] != gallery_labels_K
        right_QK = _ranked(scores_QK, wrong_QK)
        first += float(right_QK[:, 0].sum())
        top += float(right_QK[:, :TOP].mean(axis=1).sum())
        average += float(_average_precision(right_QK).sum())
    count = len(queries_QD)
    return Retrieval(r_at_1=first / count, precision_at_10=top / count, map=average / count)


def _ranked(scores_QK: NDArray[np.float32], wrong_QK: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return which hits are right, nearest first.

    Score and rightness are packed into one integer, because numpy sorts plain integers several
    times faster than it sorts positions. A float32's bits, read as an integer, keep its order once
    the lower bits of the negative ones are turned over.
    """
    bits = (scores_QK + np.float32(0)).view(np.int32).astype(np.int64)  # adding 0 makes -0.0 0.0
    bits ^= (bits >> 63) & SIGN_BITS
    keys = (bits << 1) | wrong_QK
    keys.sort(axis=1)
    right: NDArray[np.bool_] = (keys[:, ::-1] & 1) == 0
    return right


def _average_precision(right_QK: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return, per query, the mean over its right hits of the precision down to that hit."""
    ranks_K = np.arange(1, right_QK.shape[1] + 1)
    precision_QK = np.cumsum(right_QK, axis=1) / ranks_K
    totals_Q = np.maximum(right_QK.sum(axis=1), 1)
    means_Q: NDArray[np.float64] = (precision_QK * right_QK).sum(axis=1) / totals_Q
    return means_Q
