"""A dataset in, without the test images that the model to go on from has learnt out.

What the earlier model has learnt from counts as learnt by the later one, too.
"""

from dataclasses import replace
from typing import Final

import numpy as np

from training.data.dataset import Dataset, HeldOut
from training.data.images.labelled_images import LabelledImages
from training.data.images.training_record import TrainingRecord, read_training_record
from training.errors import DataError
from training.fit.initialization.predecessor import Predecessor
from training.recipes.recipe import Recipe

KNOWN: Final = "learnt from by the model that this one goes on from: not measured"
UNRECORDED: Final = "model to go on from that does not say what it has learnt from"


def exclude_predecessor_images(dataset: Dataset, recipe: Recipe) -> Dataset:
    """Return ``dataset`` without test images that the model named by ``recipe.weights`` has learnt.

    Of a recipe that goes on from no model, and of a dataset that has been here before, nothing
    changes.

    Raises:
        ModelFolderError: that folder is damaged.
        DataError: nothing is left to measure with.
    """
    if dataset.predecessor_record is not None or recipe.weights is None:
        return dataset
    earlier = Predecessor.at(recipe.weights)
    if earlier is None:
        return dataset
    record = read_training_record(earlier.folder, earlier.manifest)
    if record is None:
        dataset.findings.add(UNRECORDED, str(earlier.folder))
        return replace(dataset, predecessor_record=TrainingRecord.empty())
    test = _new(dataset.test, record)
    if not len(test):
        raise DataError(
            f"{dataset.name} leaves nothing to measure with: {earlier.folder} has learnt from all "
            f"{len(dataset.test):,} test images"
        )
    held_out = dataset.held_out
    if held_out is not None:
        held_test = _new(held_out.test, record)
        if not len(held_test):
            raise DataError(
                f"{dataset.name} leaves nothing to measure held-out classes with: "
                f"{earlier.folder} has learnt from all their test images"
            )
        held_out = HeldOut(train=held_out.train, test=held_test)
    left_out = len(dataset.test) - len(test)
    if left_out:
        dataset.findings.add(KNOWN, f"{left_out:,} of {len(dataset.test):,} test images")
    return replace(dataset, test=test, held_out=held_out, predecessor_record=record)


def _new(images: LabelledImages, record: TrainingRecord) -> LabelledImages:
    known_N = record.contains(images.contents_N, images.phashes_N)
    return images.take(np.flatnonzero(~known_N)) if known_N.any() else images
