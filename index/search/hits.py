"""Hits of one query: keys and their scores, best first, and what is made of lists of them."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

Hits = tuple[NDArray[np.int64], NDArray[np.float32]]  # keys and scores, best first
NO_HITS: Final[Hits] = (np.empty(0, np.int64), np.empty(0, np.float32))


def merged(one: Hits, other: Hits, *, k: int | None) -> Hits:
    """Return the best ``k``, or all, of two lists of hits, best first, ties by the smaller key."""
    if not len(other[0]):
        return one[0][:k], one[1][:k]
    if not len(one[0]):
        return other[0][:k], other[1][:k]
    keys, scores = np.concatenate([one[0], other[0]]), np.concatenate([one[1], other[1]])
    order = np.lexsort((keys, -scores))[:k]
    return keys[order], scores[order]


def led_by(key: int, score: float, hits: Hits) -> Hits:
    """Return as many ``hits``, with ``key``, by whose vector was asked, first."""
    keys, scores = hits
    others = keys != key
    return (
        np.concatenate([np.array([key]), keys[others]])[: len(keys)],
        np.concatenate([np.array([score], np.float32), scores[others]])[: len(keys)],
    )


def at_least(min_score: float, hits: Hits, factor: float) -> Hits:
    """Return the hits whose cosines, times ``factor``, reach ``min_score``."""
    keys, scores = hits
    enough = int(np.count_nonzero(factor * scores >= min_score))
    return keys[:enough], scores[:enough]


def scaled(hits: Hits, factor: float, offset: int = 0) -> Hits:
    """Return the hits after the first ``offset``, their cosines made scores."""
    keys, scores = hits
    return keys[offset:], np.clip(factor * scores[offset:], -1, 1)
