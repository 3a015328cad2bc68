"""Contents, parts and labels of images in, those that tell of the test or contradict out.

Shape suffixes: N images, G contents.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dataset.listing import Part


class Leak(NamedTuple):
    """An image that was left out of its part, because a part to measure with has its content."""

    name: str  # the file's path, or ``train[123]`` where there are no files
    part: str
    twin: str  # the image that stayed
    twin_part: str


class Contradiction(NamedTuple):
    """Two training images of the same content and of different classes; both stayed."""

    name: str
    twin: str


def number_contents(contents: Sequence[bytes]) -> NDArray[np.int64]:
    """Return a number for each image, equal for equal contents: 0 and up, in order of appearance.

    >>> number_contents([b"x", b"y", b"x"]).tolist()
    [0, 1, 0]
    """
    numbers: dict[bytes, int] = {}
    return np.array([numbers.setdefault(content, len(numbers)) for content in contents], np.int64)


def find_leaks(contents_N: NDArray[np.int64], parts_N: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return a mask of the images whose content is also in a part with a better right to it."""
    return parts_N < _owners(contents_N, parts_N)[contents_N]


def name_leaks(
    contents_N: NDArray[np.int64], parts_N: NDArray[np.int64], names: Sequence[str]
) -> tuple[Leak, ...]:
    """Return what ``find_leaks`` finds, in order, each with the first of its twins that stay."""
    leaked_N = find_leaks(contents_N, parts_N)
    stay_N = ~leaked_N & np.isin(contents_N, contents_N[leaked_N])
    twin_of = _first_of_each(contents_N, np.flatnonzero(stay_N))
    leaks: list[Leak] = []
    for position in np.flatnonzero(leaked_N).tolist():
        twin = twin_of[int(contents_N[position])]
        part_name, twin_part_name = (Part(parts_N[p]).name.lower() for p in (position, twin))
        leaks.append(Leak(names[position], part_name, names[twin], twin_part_name))
    return tuple(leaks)


def find_contradictions(
    contents_N: NDArray[np.int64], labels_N: NDArray[np.int64], names: Sequence[str]
) -> tuple[Contradiction, ...]:
    """Return every image whose content came before under another label, with the first of those."""
    first = _first_of_each(contents_N, np.arange(len(contents_N)))
    twins_N = np.array([first[content] for content in contents_N.tolist()], np.int64)
    return tuple(
        Contradiction(names[int(twins_N[position])], names[position])
        for position in np.flatnonzero(labels_N != labels_N[twins_N]).tolist()
    )


def _owners(contents_N: NDArray[np.int64], parts_N: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the part (G,) that keeps each content."""
    owners_G = np.zeros(contents_N.max(initial=-1) + 1, np.int64)
    np.maximum.at(owners_G, contents_N, parts_N)
    return owners_G


def _first_of_each(contents_N: NDArray[np.int64], positions: NDArray[np.int64]) -> dict[int, int]:
    """Return the first of ascending ``positions`` for every content that is there."""
    return {int(contents_N[position]): int(position) for position in positions[::-1]}
