"""A training that goes on from a model measures nothing of what that model had learnt."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.training.data.images.test_training_record import photos, write_model
from tests.training.test_train import OURS
from training.data.dataset import Dataset, load_dataset
from training.data.images.training_record import TrainingRecord, read_training_record
from training.errors import DataError
from training.fit.initialization.predecessor_data import (
    KNOWN,
    UNRECORDED,
    exclude_predecessor_images,
)
from training.recipes.recipe import Recipe
from training.train import train


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    return load_dataset(str(photos(tmp_path / "photos", each=30)), OURS.preprocessing)


def recipe_after(model: Path) -> Recipe:
    return replace(OURS, weights=str(model))


def test_test_images_that_the_earlier_model_has_learnt_are_not_measured(
    dataset: Dataset, tmp_path: Path
) -> None:
    known = dataset.test.take(np.arange(0, len(dataset.test), 2))
    write_model(tmp_path / "model", TrainingRecord.of(known))
    left = exclude_predecessor_images(dataset, recipe_after(tmp_path / "model"))
    assert len(left.test) == len(dataset.test) - len(known)
    assert not np.isin(left.test.contents_N, known.contents_N).any()
    (finding,) = [one for one in left.findings if one.reason == KNOWN]
    assert finding.examples == (f"{len(known)} of {len(dataset.test)} test images",)
    assert exclude_predecessor_images(left, recipe_after(tmp_path / "model")) is left


def test_where_the_earlier_model_has_learnt_every_test_image_nothing_begins(
    dataset: Dataset, tmp_path: Path
) -> None:
    write_model(tmp_path / "model", TrainingRecord.of(dataset.test))
    with pytest.raises(DataError, match=f"has learnt from all {len(dataset.test)} test images"):
        exclude_predecessor_images(dataset, recipe_after(tmp_path / "model"))


def test_an_earlier_model_that_does_not_say_what_it_learnt_is_named(
    dataset: Dataset, tmp_path: Path
) -> None:
    write_model(tmp_path / "model", None)
    after = exclude_predecessor_images(dataset, recipe_after(tmp_path / "model"))
    assert len(after.test) == len(dataset.test)
    assert [one.reason for one in after.findings if one.reason == UNRECORDED] == [UNRECORDED]


def test_a_later_model_has_learnt_what_the_earlier_one_had(
    dataset: Dataset, tmp_path: Path
) -> None:
    elsewhere = load_dataset(
        str(photos(tmp_path / "elsewhere", each=10, first_seed=500_000)), OURS.preprocessing
    )
    train(OURS, elsewhere, out=tmp_path / "first", device="cpu")
    second = train(recipe_after(tmp_path / "first"), dataset, out=tmp_path / "second", device="cpu")
    learnt = read_training_record(tmp_path / "second", second)
    assert learnt is not None
    for part in (elsewhere.train, dataset.train):
        assert learnt.contains(part.contents_N, part.phashes_N).all()
    for part in (elsewhere.test, dataset.test):
        assert not learnt.contains(part.contents_N, part.phashes_N).any()
