"""Photos of one thing stay together, wherever data are parted."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from cli.support.image_source import open_image_source
from dataset.errors import DatasetError
from tests.support.images.pngs import picture
from training.data.dataset import load_dataset
from training.data.images.labelled_images import LabelledImages
from training.data.images.near_duplicates import link_groups
from training.errors import DataError
from vision.image.preprocessing import Preprocessing

SMALL = Preprocessing(size=12, channels=3, mean=(0.5,) * 3, std=(0.5,) * 3)
THINGS, EACH = 12, 3
BY_NAME = r"(.*)_\d+"


def save(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture(seed, (16, 14)).save(path)


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """Two classes of 12 things, of each of which there are three photos."""
    for label, name in enumerate(("bag", "coat")):
        for thing in range(THINGS):
            for photo in range(EACH):
                number = (label * THINGS + thing) * EACH + photo
                save(tmp_path / name / f"{thing:02d}_{photo}.png", number)
    return tmp_path


def things(*parts: LabelledImages | None) -> list[set[int]]:
    return [set(part.item_ids_N.tolist()) for part in parts if part is not None]


def apart(sets: Sequence[set[int]]) -> bool:
    return len(set().union(*sets)) == sum(map(len, sets))


def test_numbers_join_copies_and_things() -> None:
    photos, of_things = np.array([0, 1, 2, 0, 3]), np.array([5, 5, -1, -1, -1])
    together = link_groups(photos, of_things)
    assert together[0] == together[1] == together[3]
    assert len(set(together.tolist())) == 3
    assert set(together.tolist()) == {0, 1, 2}
    assert link_groups(photos, np.full(5, -1)).tolist() == photos.tolist()


def test_photos_of_one_thing_are_in_one_part_however_often_it_is_parted(shop: Path) -> None:
    without = load_dataset(str(shop), SMALL)
    dataset = load_dataset(str(shop), SMALL, group=BY_NAME)
    train, validation = dataset.train.split_validation(0.2)
    parts = things(train, validation, dataset.test)
    assert all(parts)
    assert apart(parts)
    assert len(train) + len(validation) + len(dataset.test) == 2 * THINGS * EACH
    assert things(without.test) == [{-1}]
    by_name = {one.reason: one.count for one in dataset.findings}
    assert by_name == {f"a group by --group {BY_NAME}: its photos stay in one part": 2 * THINGS}


def test_training_photos_of_a_thing_in_the_test_part_are_left_out_and_said(tmp_path: Path) -> None:
    for number, key in enumerate(
        ("train/bag/1_a", "train/bag/2_a", "train/hat/3_a", "test/bag/1_b", "test/hat/4_a")
    ):
        save(tmp_path / f"{key}.png", number)
    dataset = load_dataset(str(tmp_path), SMALL, group="(.*)_.")
    assert (len(dataset.train), len(dataset.test)) == (2, 2)
    (leak,) = dataset.leaked
    assert (leak.name, leak.twin) == (
        str(tmp_path / "train/bag/1_a.png"),
        str(tmp_path / "test/bag/1_b.png"),
    )
    assert "left out of train, since a photo of the same group is in test" in {
        one.reason for one in dataset.findings
    }


def test_fashion_mnist_has_no_groups() -> None:
    with pytest.raises(DataError, match="does not say which photos show one thing"):
        load_dataset("fashion-mnist", SMALL, group="folder")
    with pytest.raises(DatasetError, match="does not say which photos show one thing"):
        open_image_source("fashion-mnist", group="folder")


def test_copies_of_a_photo_are_told_from_other_photos_of_its_thing(shop: Path) -> None:
    twin = shop / "bag" / "00_9.png"
    picture(0, (16, 14)).save(twin, compress_level=0)
    dataset = load_dataset(str(shop), SMALL, group=BY_NAME)
    same_photo = [one for one in dataset.findings if one.reason.startswith("the same photo")]
    assert [one.count for one in same_photo] == [1]
    part = next(
        part for part in (dataset.train, dataset.test) if len(part) != len(np.unique(part.photos_N))
    )
    thing = part.item_ids_N[np.bincount(part.photos_N)[part.photos_N] == 2]
    assert len(thing) == 2
    assert len(set(thing.tolist())) == 1
    assert (part.item_ids_N == thing[0]).sum() == EACH + 1
