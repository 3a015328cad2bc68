"""Batches of an epoch: every image is learnt from in each, however few there are."""

from itertools import chain

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.support.galleries.labelled_gallery import labelled
from training.distributed import ProcessGroup
from training.fit.batches import Batches, FeatureBatches, ImageBatches
from training.recipes.recipe import Augmentation
from vision.image.preprocessing import Preprocessing

PIXEL = Preprocessing(size=1, channels=1, mean=(0.0,), std=(1 / 255,))  # a pixel is its number


def of_features(images: int, batch_size: int, processes: ProcessGroup) -> Batches:
    numbers_1NF = torch.arange(images, dtype=torch.float32)[None, :, None]
    labels_N = torch.zeros(images, dtype=torch.long)
    return FeatureBatches(numbers_1NF, labels_N, batch_size=batch_size, processes=processes)


def of_images(images: int, batch_size: int, processes: ProcessGroup) -> Batches:
    pixels_NCHW = np.arange(images, dtype=np.uint8).reshape(-1, 1, 1, 1)
    return ImageBatches(
        labelled(pixels_NCHW, np.zeros(images, np.int64), ("one",)),
        PIXEL,
        Augmentation(),
        batch_size=batch_size,
        processes=processes,
    )


def epoch(batches: Batches) -> list[list[int]]:
    """Return the numbers of the images in each batch."""
    generator = torch.Generator().manual_seed(0)
    return [
        np.rint(inputs.flatten().numpy()).astype(int).tolist()
        for inputs, _ in batches.shuffled(1, generator)
    ]


def process_groups(size: int) -> list[ProcessGroup]:
    return [ProcessGroup(rank, size, torch.device("cpu")) for rank in range(size)]


@pytest.mark.parametrize("kind", [of_features, of_images])
def test_every_image_is_learnt_from_in_each_epoch(kind: object) -> None:
    (alone,) = process_groups(1)
    batches = kind(100, 64, alone)  # type: ignore[operator]
    seen = epoch(batches)
    assert [len(one) for one in seen] == [48, 52]
    assert len(batches) == 2
    assert sorted(chain(*seen)) == list(range(100))


@given(images=st.integers(2, 250), batch_size=st.integers(2, 70))
def test_batches_are_of_nearly_equal_size_and_hardly_larger_than_asked(
    images: int, batch_size: int
) -> None:
    (alone,) = process_groups(1)
    batches = of_features(images, batch_size, alone)
    sizes = [len(one) for one in epoch(batches)]
    assert len(sizes) == len(batches)
    assert sum(sizes) == images
    assert min(sizes) >= 2  # one image alone cannot be normalised by its own mean
    assert max(sizes) - min(sizes) <= 8
    assert max(sizes) <= max(batch_size, 3)


@given(images=st.integers(3, 120), rows=st.integers(1, 20))
def test_processes_share_every_batch_evenly(images: int, rows: int) -> None:
    shares = [epoch(of_features(images, 3 * rows, processes)) for processes in process_groups(3)]
    for parts in zip(*shares, strict=True):
        assert len({len(part) for part in parts}) == 1
    learnt = list(chain(*chain(*shares)))
    assert len(learnt) == len(set(learnt)) == images // 3 * 3


@given(images=st.integers(2, 60), eighths=st.integers(1, 5), size=st.sampled_from([2, 4, 8]))
def test_processes_together_have_the_batches_of_one(images: int, eighths: int, size: int) -> None:
    images *= size
    (alone,) = process_groups(1)
    batch_size = 8 * eighths if size < 8 else 16 * eighths
    whole = epoch(of_features(images, batch_size, alone))
    shares = [
        epoch(of_features(images, batch_size, processes)) for processes in process_groups(size)
    ]
    together = [sorted(chain(*parts)) for parts in zip(*shares, strict=True)]
    assert together == [sorted(one) for one in whole]
