"""What `auto` works with: images by their labels and folds, features of them, and heads on these.

Shape suffixes: N images, V views of each, Q views in all, F features, I of them that tell items
apart, L labels.
"""

from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from training.data.images.labelled_images import UNLABELLED, LabelledImages
from training.recipes.auto_recipe import assign_folds
from training.statistics.closed_form import Linear, two_part, unit

NEVER_HELD_OUT: Final = -1  # the fold of images that are never held out


class LinearHeads(NamedTuple):
    """Linear layers on features. Without classes there is only the first."""

    item: Linear  # tells one thing from another
    kind: Linear | None  # tells kinds apart
    scores: Linear | None  # of classes

    def vectors(self, features_NF: NDArray[np.float32], kind_share: float) -> NDArray[np.float32]:
        """Return unit vectors (N, D), as the network makes them of features."""
        item_ND = unit(self.item.of(features_NF))
        if self.kind is None:
            return item_ND
        return two_part(item_ND, unit(self.kind.of(features_NF)), kind_share)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CrossValidationData:
    """What is learnt from, beside the pixels: in the order of the features."""

    labels_N: NDArray[np.int64]
    photos_N: NDArray[np.uint64]  # equal for copies
    item_ids_N: NDArray[np.int64]  # equal for photos of one thing, as the data say; -1: they do not
    contents_N: NDArray[np.uint64]  # of the files
    folds_N: NDArray[np.int64]  # in which each image is held out, or NEVER
    num_labels: int

    @classmethod
    def of(
        cls,
        train: LabelledImages,
        validation: LabelledImages | None,
        unlabelled: LabelledImages | None,
        *,
        folds: int,
    ) -> "CrossValidationData":
        """Return what these parts are; a validation part is the only fold."""
        parts = [part for part in (train, validation, unlabelled) if part is not None]
        folds_N = [np.full(len(part), NEVER_HELD_OUT) for part in parts]
        if validation is None:
            dealt = assign_folds(train.labels_N.tolist(), train.group_keys_N.tolist(), folds)
            folds_N[0] = np.array(dealt, np.int64)
        else:
            folds_N[1] = np.zeros(len(validation), np.int64)
        return cls(
            labels_N=np.concatenate([part.labels_N for part in parts]),
            photos_N=np.concatenate([part.group_keys_N for part in parts]),
            item_ids_N=np.concatenate([part.item_ids_N for part in parts]),
            contents_N=np.concatenate([part.contents_N for part in parts]),
            folds_N=np.concatenate(folds_N),
            num_labels=len(train.label_names),
        )

    def first_training_rows(self) -> NDArray[np.int64]:
        """Return the positions of labelled images that the first fold does not hold out."""
        held_in_N = self.folds_N != self.folds[0]
        return np.flatnonzero(held_in_N & (self.labels_N != UNLABELLED))

    @property
    def folds(self) -> list[int]:
        """The folds that hold an image out."""
        return [int(fold) for fold in np.unique(self.folds_N) if fold != NEVER_HELD_OUT]


class ValidationFigures(NamedTuple):
    """What heads are worth on images held out; shares in [0, 1]."""

    images: int
    accuracy: float | None  # None without classes
    r_at_1: float | None  # nearest of all others is of the same class
    same_item: (
        float | None
    )  # the very thing is found, by ``training.heads.item_head``; None: not measured

    @property
    def of_classes(self) -> float:
        """The mean of both figures of classes; 0 without classes."""
        return ((self.accuracy or 0.0) + (self.r_at_1 or 0.0)) / 2


class FittedHeads(NamedTuple):
    """The best heads in closed form on some features, and what they are worth."""

    heads: LinearHeads  # fitted to all images
    shrinkage: float | None
    emphasis: float  # deviation of the last layer's features, where that of all others is 1
    figures: ValidationFigures
    logits_NL: NDArray[np.float32]  # of images held out, to fit a temperature with
    labels_N: NDArray[np.int64]  # theirs


class ExtractedFeatures(NamedTuple):
    """What one network sees of the images, and of views of some of them."""

    features_NF: NDArray[np.float32]  # of all images
    item_columns: int  # so many features, the first ones, tell one thing from another
    last_columns: slice  # those of the network's last layer; empty where it is not among the layers
    changes_QI: NDArray[np.float32]  # of those, from photos to views of them
    viewed_N: NDArray[np.int64]  # positions of other photos, held out in the first fold
    views_VNF: NDArray[np.float32]  # features of views of these
