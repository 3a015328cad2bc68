"""Labels in, a mask of the images that are kept apart out.

Shape suffixes: N images, L labels.
"""

from collections import Counter
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray


def choose_contents(
    labels_N: NDArray[np.int64], contents_N: NDArray[np.int64], share: float, *, seed: int
) -> NDArray[np.bool_]:
    """Return a mask that picks ``share`` of every class at random, and every content as a whole.

    A class never gives more than its share, unless its smallest content exceeds it; one of two
    contents or more gives at least one and keeps at least one, as long as no content is shared with
    another class. Without duplicates it takes the last of each class in a random order.

    Args:
        labels_N: the class of each image.
        contents_N: equal for images of equal content; 0 and up, without gaps.
        share: of the images, in (0, 1).
        seed: of the random order.
    """
    members = _members(contents_N)
    labels_of = [Counter(labels_N[positions].tolist()) for positions in members]
    counts_L = np.bincount(labels_N).tolist()
    shares_L = [min(max(1, round(share * count)), count - 1) for count in counts_L]
    chosen_L = [0] * len(counts_L)
    chosen: set[int] = set()  # contents

    def choose(contents: Iterable[int], most_L: list[int]) -> None:
        for content in contents:
            labels = labels_of[content].items()
            if content not in chosen and all(chosen_L[lb] + n <= most_L[lb] for lb, n in labels):
                chosen.add(content)
                for label, count in labels:
                    chosen_L[label] += count

    order_N = np.random.default_rng(seed).permutation(len(labels_N))
    contents = list(dict.fromkeys(contents_N[order_N[::-1]].tolist()))
    choose(contents, shares_L)
    for content in sorted(contents, key=lambda content: len(members[content])):
        if any(chosen_L[label] == 0 for label in labels_of[content]):
            choose([content], [count - 1 for count in counts_L])
    return np.isin(contents_N, list(chosen))


def last_of_each_class(labels_N: NDArray[np.int64], share: float) -> NDArray[np.bool_]:
    """Return a mask of the last ``share`` of every class: at least one image, and not all."""
    chosen_N = np.zeros(len(labels_N), np.bool_)
    for label in np.unique(labels_N):
        positions = np.flatnonzero(labels_N == label)
        count = min(max(1, round(share * len(positions))), len(positions) - 1)
        chosen_N[positions[len(positions) - count :]] = True
    return chosen_N


def _members(contents_N: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Return the positions of each content's images."""
    order_N = np.argsort(contents_N, kind="stable")
    return np.split(order_N, np.flatnonzero(np.diff(contents_N[order_N])) + 1)
