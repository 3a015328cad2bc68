"""What a network says of photos in, limits beyond which a picture is none of its things out.

The limits are fitted with photos that nothing was learnt from, so that about one in fifty new ones
of the same kind is refused: at most half of that for the neighbours' disagreement, the rest for
the distance (split conformal prediction: Vovk et al. 2005, section 2.2.6).

Shape suffixes: N images, K references, D vector width.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from training.data.images.labelled_images import LabelledImages
from training.evaluation.out_of_distribution import out_of_distribution_images
from training.evaluation.results import NoveltyFigures, OutOfDistributionFigures
from training.statistics.closed_form import unit
from training.statistics.significance import share_interval
from vision.inference.encoder import Encoding, ImageEncoder, encode_all
from vision.model.manifest import Architecture
from vision.model.open_set import NEIGHBOURS, OpenSetDetector, compared_width

REFUSED: Final = 0.02  # share of one's own new photos
MOST_REFERENCES: Final = 2000  # some 0.1 ms a request at 256 numbers
SURE: Final = 0.9  # a probability that people take for certainty


def reference_vectors(
    vectors_ND: NDArray[np.float32], architecture: Architecture
) -> NDArray[np.float32]:
    """Return unit vectors (N, D) of what is compared of a network's vectors: all, or a part."""
    return unit(vectors_ND[:, : compared_width(architecture)])


def choose_references(
    labels_N: NDArray[np.int64], contents_N: NDArray[np.uint64], *, most: int = MOST_REFERENCES
) -> NDArray[np.int64]:
    """Return the positions of at most ``most`` images, ascending, of each class about as many.

    Which ones of a class is drawn by the contents of their files.
    """
    order = np.lexsort((contents_N, labels_N))
    counts_L = np.unique(labels_N, return_counts=True)[1]
    places_N = np.empty(len(labels_N), np.int64)  # within the class
    places_N[order] = np.arange(len(order)) - np.repeat(np.cumsum(counts_L) - counts_L, counts_L)
    return np.sort(np.argsort(places_N, kind="stable")[:most])


def fit_references(
    vectors_KD: NDArray[np.float32], labels_K: NDArray[np.int64], held_out: Encoding
) -> OpenSetDetector:
    """Return references with limits that refuse few photos like those held out.

    Args:
        vectors_KD: unit vectors of what is compared of photos that were learnt from.
        labels_K: their classes.
        held_out: what the network says of photos that it has not learnt from, at least one.
    """
    unlimited = without_limits(vectors_KD, labels_K)
    return with_limits(unlimited, *nearness(unlimited, held_out))


def without_limits(vectors_KD: NDArray[np.float32], labels_K: NDArray[np.int64]) -> OpenSetDetector:
    """Return references that refuse nothing."""
    return OpenSetDetector(
        vectors_KD=vectors_KD,
        labels_K=labels_K.astype(np.int32),
        most_distance=np.inf,
        least_agreement=0.0,
        refused=0.0,
        fitted_on=0,
    )


def with_limits(
    references: OpenSetDetector, distances_N: NDArray[np.float64], agreements_N: NDArray[np.float64]
) -> OpenSetDetector:
    """Return references that refuse few photos like those whose nearness this is; at least one."""
    photos, looked_at = len(distances_N), min(NEIGHBOURS, len(references.vectors_KD))
    may_refuse = max(int(REFUSED * (photos + 1)) - 2, 0)  # a new one may lie beyond either limit
    least_agreement = max(
        float(step)
        for step in np.arange(looked_at + 1) / looked_at
        if (agreements_N < step).sum() <= may_refuse // 2 or step == 0
    )
    refused = int((agreements_N < least_agreement).sum())
    agreed_N = np.sort(distances_N[agreements_N >= least_agreement])
    most_distance = float(agreed_N[len(agreed_N) - 1 - (may_refuse - refused)])
    return replace(
        references,
        most_distance=most_distance,
        least_agreement=least_agreement,
        refused=max(REFUSED, 2 / (photos + 1)),
        fitted_on=photos,
    )


def references_of(
    train: LabelledImages, known: Encoding, held_out: Encoding, architecture: Architecture
) -> OpenSetDetector:
    """Return references out of ``train``, given what the network says of it and of others."""
    chosen = choose_references(train.labels_N, train.contents_N)
    vectors_KD = reference_vectors(known.vectors_BD[chosen], architecture)
    return fit_references(vectors_KD, train.labels_N[chosen], held_out)


def nearness(
    references: OpenSetDetector, encoding: Encoding
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return distance (N,) and agreement (N,) of each image, given the class it was given."""
    return nearness_of(references, encoding.vectors_BD, encoding.probabilities_BL.argmax(axis=1))


def nearness_of(
    references: OpenSetDetector, vectors_ND: NDArray[np.float32], predicted_N: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the same of vectors and the classes that they were given."""
    pairs = [
        references.near(vector_D, int(given))
        for vector_D, given in zip(vectors_ND, predicted_N, strict=True)
    ]
    near_N2 = np.array(pairs, np.float64).reshape(-1, 2)
    return near_N2[:, 0], near_N2[:, 1]


def measure_novelty(
    encoder: ImageEncoder,
    references: OpenSetDetector,
    queries: Encoding,
    correct_N: NDArray[np.bool_],
) -> NoveltyFigures:
    """Return what is refused of the test images, and of pictures of nothing that was learnt.

    Args:
        encoder: of the model.
        references: the model's.
        queries: what it says of the test images.
        correct_N: whether each was given its class.
    """
    pictures = out_of_distribution_images(encoder.manifest.preprocessing)
    encoding = {kind: encode_all(encoder, images_NCHW) for kind, images_NCHW in pictures.items()}
    return novelty_figures(references, queries, correct_N, encoding)


def novelty_figures(
    references: OpenSetDetector,
    queries: Encoding,
    correct_N: NDArray[np.bool_],
    others: Mapping[str, Encoding],
) -> NoveltyFigures:
    """Return the figures, given what the network says of images of other things, by their kind."""
    distances_N, _ = nearness(references, queries)
    refused_N = _refused(references, queries)
    return NoveltyFigures(
        stated=references.refused,
        fitted_on=references.fitted_on,
        most_distance=references.most_distance,
        least_agreement=references.least_agreement,
        refused=float(refused_N.mean()),
        refused_interval=share_interval(int(refused_N.sum()), len(refused_N)),
        refused_right=int((refused_N & correct_N).sum()),
        refused_wrong=int((refused_N & ~correct_N).sum()),
        strangers=tuple(
            _out_of_distribution_figures(kind, references, encoding, distances_N)
            for kind, encoding in others.items()
        ),
    )


def _out_of_distribution_figures(
    kind: str, references: OpenSetDetector, encoding: Encoding, own_N: NDArray[np.float64]
) -> OutOfDistributionFigures:
    refused_N = _refused(references, encoding)
    certain_N = encoding.probabilities_BL.max(axis=1) >= SURE
    distances_N, _ = nearness(references, encoding)
    return OutOfDistributionFigures(
        kind=kind,
        images=len(refused_N),
        certain=float(certain_N.mean()),
        certain_and_sure=float((certain_N & ~refused_N).mean()),
        refused=float(refused_N.mean()),
        auroc=area_under_curve(own_N, distances_N),
    )


def _refused(references: OpenSetDetector, encoding: Encoding) -> NDArray[np.bool_]:
    distances_N, agreements_N = nearness(references, encoding)
    refused_N: NDArray[np.bool_] = (distances_N > references.most_distance) | (
        agreements_N < references.least_agreement
    )
    return refused_N


def area_under_curve(low_N: NDArray[np.float64], high_N: NDArray[np.float64]) -> float:
    """Return the chance that one of ``high_N`` is above one of ``low_N``, ties counting half.

    That is the area under the receiver's operating characteristic (AUROC).
    """
    ordered = np.sort(low_N)
    below, up_to = (np.searchsorted(ordered, high_N, side=side) for side in ("left", "right"))
    return float((below + up_to).mean() / (2 * len(ordered)))
