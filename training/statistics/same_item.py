"""Vectors of other views of things in, how often each finds its own thing out.

The queries are made views of photos that are in the gallery (``training.evaluation.views``), or,
where the data say which photos show one thing, real photos of which the gallery has others.

Shape suffixes: V views, N photos, Q queries, K gallery vectors, C channels, H x W pixels, D vector
width.
"""

from collections import defaultdict
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from training.statistics.significance import Interval, mean_interval

TOP: Final = 10  # hits among which a thing counts as found, too
MOST_PHOTOS: Final = 500  # that views are made of: 1,000 queries tell a point from chance
CHUNK_BYTES: Final = 128 * 2**20  # of scores at a time

Setup = Literal["made views", "groups"]


class Searched(NamedTuple):
    """What is searched, row by row."""

    vectors_KD: NDArray[np.float32]  # unit length
    photos_K: NDArray[np.integer]  # equal for copies of one photo
    item_ids_K: NDArray[np.int64]  # equal for photos of one thing; -1: of none


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SameItem:
    """What became of each photo that was searched with: the share of its queries that found it."""

    setup: Setup
    positions_N: NDArray[np.int64]  # of the photos, among those that were given
    first_N: NDArray[np.float64]  # as the nearest of all; of equal scores the wrong one is nearer
    top_N: NDArray[np.float64]  # among the ten nearest
    gallery: int  # vectors that were searched

    @property
    def r_at_1(self) -> float:
        """Share of the queries whose nearest gallery vector is of their thing."""
        return float(self.first_N.mean())

    @property
    def r_at_1_interval(self) -> Interval:
        """Its 95 % interval; photos are independent, views of one photo need not be."""
        return mean_interval(self.first_N, low=0, high=1)

    @property
    def r_at_10(self) -> float:
        """Share of the queries that have their thing among their ten nearest."""
        return float(self.top_N.mean())


def choose_photos(contents_N: NDArray[np.uint64], *, most: int = MOST_PHOTOS) -> NDArray[np.int64]:
    """Return the positions of at most ``most`` photos, ascending, drawn by their contents alone.

    The numbers are hashes, so the smallest ones are as good as a draw, and the same for all models.
    """
    return np.sort(np.argsort(contents_N, kind="stable")[:most])


def find_views(
    views_VND: NDArray[np.float32],
    photos_N: NDArray[np.integer],
    searched: Searched,
) -> SameItem:
    """Return how well views find the photos they are of, or copies of these; unit vectors in."""
    views, photos, width = views_VND.shape
    ranks_Q = _ranks(
        views_VND.reshape(-1, width),
        searched.vectors_KD,
        (np.tile(photos_N, views), searched.photos_K),
    )
    return _found("made views", np.arange(photos), ranks_Q.reshape(views, photos), searched)


def find_others(
    queries_ND: NDArray[np.float32],
    item_ids_N: NDArray[np.int64],
    photos_N: NDArray[np.integer],
    searched: Searched,
) -> SameItem | None:
    """Return how well photos find other photos of their group; unit vectors in.

    A query's own photo and its copies are as if they were not there. Photos of no group (-1), and
    those whose group has no other photo in the gallery, are not searched for; None where that
    leaves nothing.
    """
    photos_of: dict[int, set[int]] = defaultdict(set)
    for thing, photo in zip(searched.item_ids_K.tolist(), searched.photos_K.tolist(), strict=True):
        photos_of[thing].add(photo)
    asked = [
        position
        for position, (thing, photo) in enumerate(
            zip(item_ids_N.tolist(), photos_N.tolist(), strict=True)
        )
        if thing >= 0 and photos_of[thing] - {photo}
    ]
    if not asked:
        return None
    ranks_Q = _ranks(
        queries_ND[asked],
        searched.vectors_KD,
        (item_ids_N[asked], searched.item_ids_K),
        own=(photos_N[asked], searched.photos_K),
    )
    return _found("groups", np.array(asked), ranks_Q[None], searched)


def _ranks(
    queries_QD: NDArray[np.float32],
    gallery_KD: NDArray[np.float32],
    things: tuple[NDArray[Any], NDArray[Any]],
    *,
    own: tuple[NDArray[np.integer], NDArray[np.integer]] | None = None,
) -> NDArray[np.int64]:
    """Return how many vectors of other things are as near as the nearest of the query's thing.

    Both pairs are of the queries and of the gallery; where ``own`` is equal a vector is not there.
    """
    ranks_Q = np.empty(len(queries_QD), np.int64)
    rows = max(1, CHUNK_BYTES // (4 * len(gallery_KD)))
    for start in range(0, len(queries_QD), rows):
        chunk = slice(start, start + rows)
        scores_QK = queries_QD[chunk] @ gallery_KD.T
        right_QK = things[0][chunk, None] == things[1]
        if own is not None:
            own_QK = own[0][chunk, None] == own[1]
            right_QK &= ~own_QK
            scores_QK[own_QK] = -np.inf
        best_Q = np.where(right_QK, scores_QK, -np.inf).max(axis=1)
        ranks_Q[chunk] = ((scores_QK >= best_Q[:, None]) & ~right_QK).sum(axis=1)
    return ranks_Q


def _found(
    setup: Setup, positions_N: NDArray[np.int64], ranks_VN: NDArray[np.int64], searched: Searched
) -> SameItem:
    return SameItem(
        setup=setup,
        positions_N=positions_N,
        first_N=(ranks_VN == 0).mean(axis=0),
        top_N=(ranks_VN < TOP).mean(axis=0),
        gallery=len(searched.vectors_KD),
    )
