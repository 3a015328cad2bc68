"""Positions of images in, the images themselves with what was said of them out."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from training.report.inline_images import InlineImage, inline_image

if TYPE_CHECKING:
    from training.data.dataset import Dataset
    from training.data.images.labelled_images import LabelledImages
    from training.evaluation.examples import Examples


@dataclass(frozen=True, slots=True)
class Exhibit:
    """One image of a dataset, as the network saw it."""

    picture: InlineImage
    label: str  # the one it has
    position: int  # among its part of the dataset


@dataclass(frozen=True, slots=True)
class Mistake:
    """A test image that was given a wrong label."""

    exhibit: Exhibit
    given: str
    probability: float  # of the label it was given


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A training image that is near to a test image."""

    exhibit: Exhibit
    score: float  # cosine
    right: bool  # whether both have the same label


@dataclass(frozen=True, slots=True)
class Search:
    """A test image and the training images nearest to it, nearest first."""

    query: Exhibit
    hits: tuple[Neighbour, ...]


def show_mistakes(examples: "Examples", dataset: "Dataset") -> list[Mistake]:
    """Return the mistakes the model was surest of."""
    return [
        Mistake(_exhibit(dataset.test, index), dataset.label_names[given], probability)
        for index, _, given, probability in examples.mistakes
    ]


def show_searches(examples: "Examples", dataset: "Dataset") -> list[Search]:
    """Return the example searches."""
    searches = []
    for test_index, gallery_indexes, scores in examples.neighbours:
        query = _exhibit(dataset.test, test_index)
        found = [_exhibit(dataset.train, index) for index in gallery_indexes]
        hits = tuple(
            Neighbour(exhibit, score, exhibit.label == query.label)
            for exhibit, score in zip(found, scores, strict=True)
        )
        searches.append(Search(query, hits))
    return searches


def _exhibit(images: "LabelledImages", position: int) -> Exhibit:
    label = images.label_names[int(images.labels_N[position])] if images.label_names else ""
    return Exhibit(inline_image(images.images_NCHW[position]), label, int(position))
