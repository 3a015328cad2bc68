"""Augmentation: mirrored, shifted, cropped, erased and mixed images, against slow loops."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Generator, Tensor

from training.fit.augment import augment, mix, random_crop, random_erase, random_flip, random_shift
from training.recipes.recipe import Augmentation

sides = st.integers(1, 9)
seeds = st.integers(0, 2**31)


def images(count: int, channels: int, height: int, width: int) -> Tensor:
    """Return images whose every pixel differs from every other."""
    return torch.arange(count * channels * height * width).reshape(count, channels, height, width)


def generator(seed: int) -> Generator:
    return Generator().manual_seed(seed)


@settings(max_examples=50, deadline=None)
@given(height=sides, width=sides, seed=seeds)
def test_every_image_is_either_kept_or_mirrored(height: int, width: int, seed: int) -> None:
    before = images(6, 3, height, width)
    after = random_flip(before, generator(seed))
    for old, new in zip(before, after, strict=True):
        assert torch.equal(new, old) or torch.equal(new, old.flip(2))


def test_half_of_many_images_are_mirrored() -> None:
    before = images(4000, 1, 1, 2)
    changed = (random_flip(before, generator(0)) != before).any(dim=(1, 2, 3))
    assert 0.45 < changed.float().mean() < 0.55


@settings(max_examples=50, deadline=None)
@given(height=sides, width=sides, reach=st.integers(1, 12), seed=seeds)
def test_a_shift_is_one_of_the_shifts_a_slow_loop_would_make(
    height: int, width: int, reach: int, seed: int
) -> None:
    before = images(4, 2, height, width)
    after = random_shift(before, reach, generator(seed))
    assert after.shape == before.shape
    for old, new in zip(before, after, strict=True):
        assert any(
            torch.equal(new, shifted(old, down, right))
            for down in range(-reach, reach + 1)
            for right in range(-reach, reach + 1)
        )


def shifted(image_CHW: Tensor, down: int, right: int) -> Tensor:
    """Move an image pixel by pixel, repeating its edges: the slow twin."""
    _, height, width = image_CHW.shape
    rows = [min(max(row - down, 0), height - 1) for row in range(height)]
    columns = [min(max(column - right, 0), width - 1) for column in range(width)]
    return torch.tensor(
        [
            [[channel[row][column] for column in columns] for row in rows]
            for channel in image_CHW.tolist()
        ]
    )


def test_all_moves_occur_and_about_equally_often() -> None:
    centre = torch.zeros(9000, 1, 5, 5, dtype=torch.uint8)
    centre[:, :, 2, 2] = 1
    counts = random_shift(centre, 1, generator(0)).sum(dim=(0, 1))[1:4, 1:4]
    assert counts.sum() == 9000
    assert counts.min() > 850
    assert counts.max() < 1150


def test_a_crop_of_everything_is_the_image_itself() -> None:
    before = torch.randint(256, (5, 3, 9, 9), dtype=torch.uint8, generator=generator(0))
    assert torch.equal(random_crop(before, 1.0, 9, generator(1)), before)


@settings(max_examples=30, deadline=None)
@given(share=st.floats(0.1, 1), side=st.integers(2, 40), seed=seeds)
def test_a_crop_shows_a_part_of_at_least_the_share_asked_for(
    share: float, side: int, seed: int
) -> None:
    ramp = torch.arange(0, 200, 4, dtype=torch.uint8)  # brighter to the right, 50 pixels
    before = ramp.expand(8, 1, 50, 50)
    both = torch.cat([before, before.transpose(2, 3)], dim=1)
    after = random_crop(both, share, side, generator(seed)).float()
    assert after.shape == (8, 2, side, side)
    # the steps between the outermost pixels, in source pixels, over what those pixels' middles span
    wide = (after[:, 0, 0, -1] - after[:, 0, 0, 0]) / 4 / 50 * side / (side - 1)
    high = (after[:, 1, -1, 0] - after[:, 1, 0, 0]) / 4 / 50 * side / (side - 1)
    assert (wide >= 0).all()
    assert (high >= 0).all()
    if side > 20:  # coarser ones lose the edge pixels that are repeated
        area = (wide * high).numpy()
        assert (area > min(share, 0.75) * share - 0.15).all()
        assert (area < 1.15).all()


def test_an_erased_rectangle_has_the_size_that_was_published() -> None:
    before = torch.zeros(2000, 1, 40, 40, dtype=torch.uint8)
    after = random_erase(before, 1.0, generator(0))
    changed = after != 0
    rows, columns = changed.any(dim=3).sum(dim=2), changed.any(dim=2).sum(dim=2)
    area = (rows * columns).float() / 1600
    assert area.min() > 0.005
    assert area.max() < 0.36
    filled = changed.sum(dim=(1, 2, 3)) / (rows * columns).squeeze().clamp(min=1)
    assert filled.min() > 0.8  # of noise, one pixel in 256 is black


def test_a_share_of_the_images_is_erased_and_the_others_stay() -> None:
    before = torch.full((4000, 2, 6, 6), 7, dtype=torch.uint8)
    after = random_erase(before, 0.3, generator(0))
    changed = (after != before).any(dim=(1, 2, 3)).float().mean()
    assert 0.26 < changed < 0.34
    assert torch.equal(random_erase(before, 0.0, generator(0)), before)


def test_mixing_keeps_the_share_of_each_label_and_leaves_the_global_generator_alone() -> None:
    labels = torch.arange(8) % 3
    before = torch.nn.functional.one_hot(labels, 3).float()[:, :, None, None].expand(-1, -1, 16, 16)
    state = torch.get_rng_state()
    for settings_ in (Augmentation(mixup=0.8), Augmentation(cutmix=1.0)):
        mixed, shares = mix(before, labels, 3, settings_, generator(2))
        assert shares.sum(dim=1) == pytest.approx(torch.ones(8))
        assert mixed.mean(dim=(2, 3)).numpy() == pytest.approx(shares.numpy(), abs=1e-5)
        assert not torch.equal(mixed, before)
    assert torch.equal(torch.get_rng_state(), state)


def test_the_same_seed_makes_the_same_images_and_no_augmentation_makes_none() -> None:
    before = torch.randint(256, (16, 1, 8, 8), dtype=torch.uint8, generator=generator(0))
    every = Augmentation(flip=True, shift=2, crop=0.5, scale=0.75, erase=0.5)
    again = augment(before, every, generator(3))
    assert again.shape == (16, 1, 6, 6)
    assert torch.equal(augment(before, every, generator(3)), again)
    assert not torch.equal(augment(before, every, generator(4)), again)
    assert torch.equal(augment(before, Augmentation(), generator(3)), before)
