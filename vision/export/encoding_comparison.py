"""Two encodings of the same images in, how far the one is from the other out; knows no torch.

Shape suffixes: N images, D vector width, K nearest images, L labels.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from vision.inference.encoder import Encoding
from vision.model.export_accuracy import Difference, Neighbours

LOW_PERCENTILE: Final = 1  # of the cosines, kept beside mean and minimum
NEAREST: Final = 10  # images that a search shows
MOST_SEARCHED: Final = 2_000  # images; all their scores at once take 16 MB


def compare_encodings(
    reference: Encoding, candidate: Encoding, labels_N: NDArray[np.int64]
) -> Difference:
    """Return how far ``candidate`` is from ``reference``, torch's, on images with these labels.

    The labels are not looked at where the network has no classes.
    """
    cosines_N = np.einsum("nd,nd->n", reference.vectors_BD, candidate.vectors_BD, dtype=np.float64)
    has_classes = reference.probabilities_BL.shape[1] > 0
    right_N = right_torch_N = None
    if has_classes:
        right_torch_N, right_N = (
            encoding.probabilities_BL.argmax(axis=1) == labels_N
            for encoding in (reference, candidate)
        )
    return Difference(
        images=len(cosines_N),
        cosine_mean=float(cosines_N.mean()),
        cosine_low=float(np.percentile(cosines_N, LOW_PERCENTILE)),
        cosine_min=float(cosines_N.min()),
        accuracy_torch=_share(right_torch_N),
        accuracy=_share(right_N),
        lost=_only(right_torch_N, right_N),
        won=_only(right_N, right_torch_N),
        neighbours=_neighbours(
            reference.vectors_BD, candidate.vectors_BD, labels_N if has_classes else None
        ),
    )


def _neighbours(
    reference_ND: NDArray[np.float32],
    candidate_ND: NDArray[np.float32],
    labels_N: NDArray[np.int64] | None,
) -> Neighbours | None:
    """Return what both find; None: there are no two images."""
    if len(reference_ND) < 2:  # noqa: PLR2004 - one that asks and one that is found
        return None
    chosen = np.linspace(0, len(reference_ND) - 1, min(len(reference_ND), MOST_SEARCHED)).astype(
        int
    )
    reference_ND, candidate_ND = reference_ND[chosen], candidate_ND[chosen]
    expected_NK = _nearest(reference_ND, reference_ND)
    own_NK, beside_NK = _nearest(candidate_ND, candidate_ND), _nearest(candidate_ND, reference_ND)
    right: list[NDArray[np.bool_] | None] = [None] * 3
    if labels_N is not None:
        labels_N = labels_N[chosen]
        right = [
            labels_N[found_NK[:, 0]] == labels_N for found_NK in (expected_NK, own_NK, beside_NK)
        ]
    return Neighbours(
        images=len(chosen),
        overlap=_overlap(expected_NK, own_NK),
        overlap_beside_torch=_overlap(expected_NK, beside_NK),
        r_at_1_torch=_share(right[0]),
        r_at_1=_share(right[1]),
        r_at_1_beside_torch=_share(right[2]),
        lost=_only(right[0], right[1]),
        won=_only(right[1], right[0]),
    )


def _nearest(queries_ND: NDArray[np.float32], gallery_ND: NDArray[np.float32]) -> NDArray[np.int64]:
    """Return the places of the nearest of every query, the nearest first, without its own.

    They are ten, or half of all others: all of them would be found by anything.
    """
    scores_NN = queries_ND @ gallery_ND.T
    np.fill_diagonal(scores_NN, -np.inf)
    count = min(NEAREST, max(1, (len(scores_NN) - 1) // 2))
    return np.argsort(-scores_NN, axis=1, kind="stable")[:, :count]


def _overlap(reference_NK: NDArray[np.int64], candidate_NK: NDArray[np.int64]) -> float:
    same_NK = (reference_NK[:, :, np.newaxis] == candidate_NK[:, np.newaxis]).any(axis=2)
    return float(same_NK.mean())


def _share(right_N: NDArray[np.bool_] | None) -> float | None:
    return None if right_N is None else float(right_N.mean())


def _only(one_N: NDArray[np.bool_] | None, other_N: NDArray[np.bool_] | None) -> int | None:
    return None if one_N is None or other_N is None else int((one_N & ~other_N).sum())
