import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Generator, Tensor

from training.augment import Augmentation, random_flip, random_shift

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
    moved = torch.empty_like(image_CHW)
    for row in range(height):
        for column in range(width):
            source_row = min(max(row - down, 0), height - 1)
            source_column = min(max(column - right, 0), width - 1)
            moved[:, row, column] = image_CHW[:, source_row, source_column]
    return moved


def test_all_moves_occur_and_about_equally_often() -> None:
    centre = torch.zeros(9000, 1, 5, 5, dtype=torch.uint8)
    centre[:, :, 2, 2] = 1
    counts = random_shift(centre, 1, generator(0)).sum(dim=(0, 1))[1:4, 1:4]
    assert counts.sum() == 9000
    assert counts.min() > 850
    assert counts.max() < 1150


def test_the_same_seed_makes_the_same_images_and_no_augmentation_makes_none() -> None:
    before = images(16, 1, 8, 8)
    both = Augmentation(flip=True, shift=2)
    assert torch.equal(both(before, generator(3)), both(before, generator(3)))
    assert not torch.equal(both(before, generator(3)), both(before, generator(4)))
    assert torch.equal(Augmentation(flip=False, shift=0)(before, generator(3)), before)
