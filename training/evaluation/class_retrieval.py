"""Searches for the same class in, their figures in a report out.

Shape suffixes: N images, K gallery images, D vector width.
"""

import numpy as np

from training.data.dataset import HeldOut
from training.data.images.labelled_images import LabelledImages
from training.evaluation.results import ClassSearchFigures, HeldOutFigures, SearchFigures
from training.statistics.retrieval import Retrieval, measure_retrieval
from training.statistics.significance import mean_interval, share_interval
from vision.inference.encoder import Encoding, ImageEncoder, encode_all


def class_search_figures(retrieval: Retrieval) -> ClassSearchFigures:
    """Return the figures of a search, with intervals."""
    first_Q = retrieval.first_Q
    return ClassSearchFigures(
        **retrieval.means,
        r_at_1_interval=share_interval(int(first_Q.sum()), len(first_Q)),
        map_interval=mean_interval(retrieval.average_precision_Q, low=0, high=1),
    )


def held_out_figures(
    encoder: ImageEncoder, held_out: HeldOut, known: LabelledImages, known_gallery: Encoding
) -> HeldOutFigures:
    """Return how images of classes that nothing was learnt from are found, alone and among all."""
    new_labels_K = held_out.train.labels_N + len(known.label_names)  # after those of the known
    new_labels_N = held_out.test.labels_N + len(known.label_names)
    queries_ND = encode_all(encoder, held_out.test.images_NCHW).vectors_BD
    gallery_KD = encode_all(encoder, held_out.train.images_NCHW).vectors_BD
    among_all = measure_retrieval(
        queries_ND,
        new_labels_N,
        np.concatenate([known_gallery.vectors_BD, gallery_KD]),
        np.concatenate([known.labels_N, new_labels_K]),
        group_keys=(
            held_out.test.group_keys_N,
            np.concatenate([known.group_keys_N, held_out.train.group_keys_N]),
        ),
    )
    among_held_out = measure_retrieval(
        queries_ND,
        new_labels_N,
        gallery_KD,
        new_labels_K,
        group_keys=(held_out.test.group_keys_N, held_out.train.group_keys_N),
    )
    return HeldOutFigures(
        classes=held_out.test.label_names,
        images=len(held_out.test),
        among_held_out=SearchFigures(gallery_images=len(gallery_KD), **among_held_out.means),
        among_all=SearchFigures(gallery_images=len(known) + len(gallery_KD), **among_all.means),
    )
