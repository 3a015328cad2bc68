"""What a model said of each image in, the images worth looking at out: positions, not pixels.

Shape suffixes: N test images, M of them on the map, K gallery images, D vector width.
"""

from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from training.statistics.retrieval import GroupKeys
from training.statistics.tsne import project_vectors
from vision.inference.encoder import Encoding

MISTAKES: Final = 24
PLOT_POINTS: Final = 2000  # more take t-SNE minutes
SEARCHES: Final = 12
HITS: Final = 8


class Mistake(NamedTuple):
    """A test image that was given a wrong label."""

    position: int  # in the test images
    label: int  # the one it has
    predicted: int
    probability: float  # of the label it was given, calibrated


class PlotPoints(NamedTuple):
    """Test images on a plane."""

    xy: NDArray[np.float32]  # (M, 2), no unit
    indexes: NDArray[np.int64]  # (M,) in the test images
    predicted: NDArray[np.int64]  # (M,) the labels they were given


class Neighbours(NamedTuple):
    """A test image and the gallery images nearest to it, nearest first."""

    position: int  # in the test images
    gallery_indexes: tuple[int, ...]
    scores: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Examples:
    """What a report shows beside the figures; the gallery is what was searched."""

    mistakes: tuple[Mistake, ...]  # the surest first
    plot_points: PlotPoints
    neighbours: tuple[Neighbours, ...]


def choose_examples(
    queries: Encoding,
    labels_N: NDArray[np.int64],
    first_N: NDArray[np.bool_] | None,
    gallery_KD: NDArray[np.float32],
    *,
    group_keys: GroupKeys,
    seed: int = 0,
) -> Examples:
    """Return what to show of the test images; about ten seconds for 2,000 of them or more.

    Args:
        queries: what the network said of the test images.
        labels_N: the labels they have; of data without labels none is asked for.
        first_N: whether the gallery vector nearest to each is of its class; None: without labels.
        gallery_KD: the vectors that were searched.
        group_keys: of the test images and of those that were searched; what is of an image's own
            group, a copy or itself, is not shown beside it.
        seed: of what is chosen, and of the map.
    """
    generator = np.random.default_rng(seed)
    predicted_N = labels_N
    if first_N is None:
        predicted_N, first_N = np.zeros_like(labels_N), np.ones(len(labels_N), np.bool_)
        labels_N = predicted_N
    elif queries.probabilities_BL.shape[1]:
        predicted_N = queries.probabilities_BL.argmax(axis=1)
    mapped_M = _pick_points(labels_N, generator)
    return Examples(
        mistakes=_surest_mistakes(
            queries.probabilities_BL.max(axis=1, initial=0), labels_N, predicted_N
        ),
        plot_points=PlotPoints(
            xy=project_vectors(queries.vectors_BD[mapped_M], seed=seed),
            indexes=mapped_M,
            predicted=predicted_N[mapped_M],
        ),
        neighbours=tuple(
            _nearest(
                int(index),
                queries.vectors_BD[index],
                gallery_KD,
                own_K=group_keys[1] == group_keys[0][index],
            )
            for index in _pick_searches(labels_N, first_N, generator)
        ),
    )


def _surest_mistakes(
    confidences_N: NDArray[np.float32], labels_N: NDArray[np.int64], predicted_N: NDArray[np.int64]
) -> tuple[Mistake, ...]:
    wrong = np.flatnonzero(predicted_N != labels_N)
    surest = wrong[np.argsort(-confidences_N[wrong], kind="stable")[:MISTAKES]]
    return tuple(
        Mistake(int(n), int(labels_N[n]), int(predicted_N[n]), float(confidences_N[n]))
        for n in surest
    )


def _nearest(
    index: int,
    query_D: NDArray[np.float32],
    gallery_KD: NDArray[np.float32],
    *,
    own_K: NDArray[np.bool_],
) -> Neighbours:
    scores_K = np.where(own_K, -np.inf, gallery_KD @ query_D)
    others = np.count_nonzero(~own_K)
    nearest = np.argsort(-scores_K, kind="stable")[: min(HITS, others)]
    return Neighbours(index, tuple(nearest.tolist()), tuple(scores_K[nearest].tolist()))


def _pick_points(labels_N: NDArray[np.int64], generator: np.random.Generator) -> NDArray[np.int64]:
    """Return at most 2,000 positions in ascending order, of each class about the same share."""
    order_N = generator.permutation(len(labels_N))
    labels = labels_N[order_N]
    shares = (_places(labels) + 0.5) / np.bincount(labels)[labels]
    return np.sort(order_N[np.argsort(shares, kind="stable")[:PLOT_POINTS]])


def _pick_searches(
    labels_N: NDArray[np.int64], first_N: NDArray[np.bool_], generator: np.random.Generator
) -> NDArray[np.int64]:
    """Return 12 positions: every class once before one comes again, right and wrong in turn."""
    order_N = generator.permutation(len(labels_N))
    labels, wrong = labels_N[order_N], ~first_N[order_N]
    # Every other class begins with a search that went wrong, if it has one.
    turns = 2 * _places(2 * labels + wrong) + (wrong ^ (labels % 2 == 1))
    by_turn = np.argsort(turns, kind="stable")
    rounds = _places(labels[by_turn])
    return order_N[by_turn[np.argsort(rounds, kind="stable")[:SEARCHES]]]


def _places(groups_N: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return for each member how many of its group come before it."""
    order_N = np.argsort(groups_N, kind="stable")
    in_order_N = groups_N[order_N]
    places_N = np.empty(len(groups_N), np.int64)
    places_N[order_N] = np.arange(len(groups_N)) - np.searchsorted(in_order_N, in_order_N)
    return places_N
