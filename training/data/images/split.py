"""Labels and group keys in, a mask of the images that are held out.

A *group key* is a 64-bit hash that decides which part an image falls to, as if it had been drawn.
Images with equal keys stay together. A key is made of the file's content alone, so that adding,
renaming or moving files moves no other file from part to part.

Shape suffixes: N images, L labels.
"""

import hashlib
from enum import Enum
from typing import Final

import numpy as np
from numpy.typing import NDArray

HALF: Final = 2**32


class Draw(Enum):
    """Which half of a key decides: two draws that know nothing of each other."""

    TEST = "upper"
    VALIDATION = "lower"


def group_keys_of_contents(
    contents_N: NDArray[np.uint64], groups_N: NDArray[np.int64]
) -> NDArray[np.uint64]:
    """Return the key of each image: a hash of the smallest content of its group of copies."""
    smallest_G = np.full(groups_N.max(initial=-1) + 1, np.iinfo(np.uint64).max, np.uint64)
    np.minimum.at(smallest_G, groups_N, contents_N)
    group_keys_G = [
        int.from_bytes(hashlib.blake2b(number.tobytes(), digest_size=8).digest(), "big")
        for number in smallest_G
    ]
    return np.array(group_keys_G, np.uint64)[groups_N]


def group_keys_of_positions(labels_N: NDArray[np.int64]) -> NDArray[np.uint64]:
    """Return keys by the position within the class, the last one being the first to be held out.

    For published data whose order never changes: it is as good as a draw.
    """
    group_keys_N = np.zeros(len(labels_N), np.uint64)
    for label in np.unique(labels_N):
        positions = np.flatnonzero(labels_N == label)
        from_end = np.arange(len(positions))[::-1] + 0.5
        group_keys_N[positions] = (from_end / len(positions) * HALF).astype(np.uint64)
    return group_keys_N + np.arange(len(labels_N)).astype(np.uint64) * np.uint64(HALF)


def choose_groups(
    labels_N: NDArray[np.int64], group_keys_N: NDArray[np.uint64], share: float, draw: Draw
) -> NDArray[np.bool_]:
    """Return a mask (N,) of about ``share`` of the images, drawn by their group keys.

    A class of two groups or more keeps at least one and gives at least one, unless that would take
    another class's last. A class of a single group gives nothing.
    """
    drawn_N = (
        group_keys_N >> np.uint64(32) if draw is Draw.TEST else group_keys_N % np.uint64(HALF)
    ) / HALF
    chosen_N = drawn_N < share
    group_keys, places_N = np.unique(group_keys_N, return_inverse=True)
    order = np.argsort(drawn_N, kind="stable")
    of_label = {
        int(label): list(dict.fromkeys(places_N[order[labels_N[order] == label]].tolist()))
        for label in np.unique(labels_N)
    }  # the places of each label's groups, in the order in which they would be chosen
    labels_of: list[set[int]] = [set() for _ in group_keys]
    chosen = set(places_N[chosen_N].tolist())
    for label, places in of_label.items():
        for place in places:
            labels_of[place].add(label)
        if chosen.issuperset(places):
            chosen.discard(places[-1])
    left = {label: len(set(places) - chosen) for label, places in of_label.items()}
    for places in of_label.values():
        if not chosen.isdisjoint(places):
            continue
        for place in places:
            if all(left[other] > 1 for other in labels_of[place]):
                chosen.add(place)
                for other in labels_of[place]:
                    left[other] -= 1
                break
    mask_N: NDArray[np.bool_] = np.isin(places_N, list(chosen))
    return mask_N
