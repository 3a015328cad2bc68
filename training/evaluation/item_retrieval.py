"""A model and its data in, how well it finds the very same things out, for each turn of the knob.

Shape suffixes: V views, N test images, D vector width.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.data.dataset import Dataset
from training.data.images.labelled_images import LabelledImages
from training.evaluation import views
from training.evaluation.results import KindFigures, SameItemFigures
from training.statistics.retrieval import measure_retrieval
from training.statistics.same_item import (
    MOST_PHOTOS,
    SameItem,
    Searched,
    choose_photos,
    find_others,
    find_views,
)
from training.statistics.significance import mean_interval
from vision.inference.encoder import Encoding, ImageEncoder, encode_all
from vision.inference.query_weighting import weight_queries
from vision.model.manifest import Architecture

THE_THING, THE_KIND = 0.0, 1.0  # the ends of the knob
OF_GROUPS = "another photo of the same group, as the data name them, among all photos but its own"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ItemSearch:
    """What became of the test images, and the figures."""

    first_N: NDArray[np.float64]  # the share of each one's queries that found it; NaN: not asked
    figures: SameItemFigures


@dataclass(frozen=True, slots=True, eq=False)
class _Question:
    """What is searched for, and among what."""

    photos: LabelledImages
    views_VND: NDArray[np.float32]  # made of them; V is 1 where they themselves are the queries
    searched: Searched
    architecture: Architecture
    of_groups: bool

    def answer(self, kind: float | None) -> SameItem | None:
        """Return what is found at a turn of the knob; None where no group has another photo."""
        views_VND = np.stack(
            [weight_queries(v, self.architecture, kind).queries_QD for v in self.views_VND]
        )
        if not self.of_groups:
            return find_views(views_VND, self.photos.photos_N, self.searched)
        return find_others(
            views_VND[0], self.photos.item_ids_N, self.photos.photos_N, self.searched
        )


def search_items(
    encoder: ImageEncoder,
    dataset: Dataset,
    queries: Encoding,
    gallery: Encoding,
    *,
    most: int = MOST_PHOTOS,
) -> ItemSearch:
    """Return how well test images find their things among all images, learnt ones included.

    Where the data have groups, other photos of the group are to be found; where not, views are made
    of some test images, which are to find these.

    Args:
        encoder: of the model.
        dataset: to measure it with.
        queries: what it says of the test images.
        gallery: what it says of the training images; of the test images, if these are the same.
        most: test images that views are made of.
    """
    test, architecture = dataset.test, encoder.manifest.architecture
    searched = _searched(dataset, queries, gallery)
    chosen = np.arange(len(test))
    question = _Question(test, queries.vectors_BD[None], searched, architecture, of_groups=True)
    found = question.answer(None)
    if found is None:
        chosen = choose_photos(test.contents_N, most=most)
        photos = test.take(chosen)
        views_VND = _views(encoder, photos)
        question = _Question(photos, views_VND, searched, architecture, of_groups=False)
        found = question.answer(None)
    assert found is not None  # of made views something always is
    first_N = np.full(len(test), np.nan)
    first_N[chosen[found.positions_N]] = found.first_N
    by_kind = _by_kind(question, dataset, queries, gallery)
    return ItemSearch(first_N=first_N, figures=_figures(question, found, by_kind))


def _searched(dataset: Dataset, queries: Encoding, gallery: Encoding) -> Searched:
    parts = [(dataset.test, queries)]
    if dataset.train is not dataset.test:
        parts.append((dataset.train, gallery))
    return Searched(
        np.concatenate([encoding.vectors_BD for _, encoding in parts]),
        np.concatenate([images.photos_N for images, _ in parts]),
        np.concatenate([images.item_ids_N for images, _ in parts]),
    )


def _views(encoder: ImageEncoder, photos: LabelledImages) -> NDArray[np.float32]:
    """Return the vectors (V, N, D) of made views of the photos."""
    views_VNCHW = views.make_views(photos.images_NCHW, photos.contents_N)
    return np.stack([encode_all(encoder, view_NCHW).vectors_BD for view_NCHW in views_VNCHW])


def _by_kind(
    question: _Question, dataset: Dataset, queries: Encoding, gallery: Encoding
) -> tuple[KindFigures, ...]:
    """Return figures at both ends of the knob and at the model's own place; none without a knob."""
    own = question.architecture.kind_share
    if own is None:
        return ()
    figures: list[KindFigures] = []
    for kind in (THE_THING, own, THE_KIND):
        found = question.answer(kind)
        assert found is not None
        same_class = None
        if dataset.label_names:
            same_class = measure_retrieval(
                weight_queries(queries.vectors_BD, question.architecture, kind).queries_QD,
                dataset.test.labels_N,
                gallery.vectors_BD,
                dataset.train.labels_N,
                group_keys=(dataset.test.group_keys_N, dataset.train.group_keys_N),
            ).means["r_at_1"]
        figures.append(
            KindFigures(kind=kind, own=kind == own, same_item=found.r_at_1, same_class=same_class)
        )
    return tuple(figures)


def _figures(
    question: _Question, found: SameItem, by_kind: tuple[KindFigures, ...]
) -> SameItemFigures:
    return SameItemFigures(
        setup=found.setup,
        in_words=OF_GROUPS
        if question.of_groups
        else f"the photo that it was made of (by {views.in_words()}), among all photos",
        photos=len(found.positions_N),
        queries=len(found.positions_N) * len(question.views_VND),
        gallery_images=found.gallery,
        r_at_1=found.r_at_1,
        r_at_1_interval=found.r_at_1_interval,
        r_at_10=found.r_at_10,
        r_at_10_interval=mean_interval(found.top_N, low=0, high=1),
        by_kind=by_kind,
    )
