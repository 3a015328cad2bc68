"""Groups, parts and labels of images in, those that tell of the test or contradict out.

Groups are numbers from 0 up without gaps, equal for copies of one photo, and for photos of one
thing where the data say which those are.

Shape suffixes: N images, G groups.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dataset.listing import Part
from training.data.images.labelled_images import UNLABELLED

SAME_IMAGE: Final = "the same image"
SAME_THING: Final = "a photo of the same group"


class Leak(NamedTuple):
    """An image left out of its part, because a part to measure with has the same photo or thing."""

    name: str  # the file's path, or ``train[123]`` where there are no files
    part: str
    twin: str  # the image that stayed
    twin_part: str
    what: str = SAME_IMAGE  # that the other part has


class Twins(NamedTuple):
    """Two images that show the same photo: the same file, or saved once more."""

    name: str
    twin: str


def find_leaks(groups_N: NDArray[np.int64], parts_N: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return a mask of the images that have a copy in a part with a better right to it."""
    return parts_N < _owners(groups_N, parts_N)[groups_N]


def name_leaks(
    groups_N: NDArray[np.int64],
    photos_N: NDArray[np.int64],
    parts_N: NDArray[np.int64],
    names: Sequence[str],
) -> tuple[Leak, ...]:
    """Return what ``find_leaks`` finds, in order, each with the first of its twins that stay.

    A copy of the image is named before another photo of its thing; ``photos_N`` are equal for
    copies, ``groups_N`` for either.
    """
    leaked_N = find_leaks(groups_N, parts_N)
    stay = np.flatnonzero(~leaked_N & np.isin(groups_N, groups_N[leaked_N]))
    copy_of, twin_of = _first_of_each(photos_N, stay), _first_of_each(groups_N, stay)
    leaks: list[Leak] = []
    for position in np.flatnonzero(leaked_N).tolist():
        copy = copy_of.get(int(photos_N[position]))
        twin = twin_of[int(groups_N[position])] if copy is None else copy
        part_name, twin_part_name = (Part(parts_N[p]).name.lower() for p in (position, twin))
        what = SAME_THING if copy is None else SAME_IMAGE
        leaks.append(Leak(names[position], part_name, names[twin], twin_part_name, what))
    return tuple(leaks)


def find_contradictions(
    groups_N: NDArray[np.int64], labels_N: NDArray[np.int64], names: Sequence[str]
) -> tuple[Twins, ...]:
    """Return every image with a copy before it of another label, each with the first of those."""
    first = _first_of_each(groups_N, np.arange(len(groups_N)))
    twins_N = np.array([first[group] for group in groups_N.tolist()], np.int64)
    labelled_N = (labels_N != UNLABELLED) & (labels_N[twins_N] != UNLABELLED)
    differ_N = labelled_N & (labels_N != labels_N[twins_N])
    return tuple(
        Twins(names[int(twins_N[position])], names[position])
        for position in np.flatnonzero(differ_N).tolist()
    )


def find_copies(groups_N: NDArray[np.int64], names: Sequence[str]) -> tuple[Twins, ...]:
    """Return every image a copy of which came before, with the first of those."""
    first = _first_of_each(groups_N, np.arange(len(groups_N)))
    return tuple(
        Twins(names[position], names[first[group]])
        for position, group in enumerate(groups_N.tolist())
        if first[group] != position
    )


def _owners(groups_N: NDArray[np.int64], parts_N: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the part (G,) that keeps each group."""
    owners_G = np.zeros(groups_N.max(initial=-1) + 1, np.int64)
    np.maximum.at(owners_G, groups_N, parts_N)
    return owners_G


def _first_of_each(groups_N: NDArray[np.int64], positions: NDArray[np.int64]) -> dict[int, int]:
    """Return the first of ascending ``positions`` for every group that is there."""
    return {int(groups_N[position]): int(position) for position in positions[::-1]}
