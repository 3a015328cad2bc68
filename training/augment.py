"""Batches of images in, the same images seen a little differently out.

All randomness comes from the generator passed in, on the CPU, so that every device sees the same
images. Works on any dtype; a pixel keeps its value and only moves.

Shape suffixes: B images, C channels, H x W pixels.
"""

from dataclasses import dataclass

import torch
from torch import Generator, Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Augmentation:
    """How far the images of a batch may change, each by its own draw."""

    flip: bool  # mirror left to right with probability 1/2
    shift: int  # pixels; move by up to this many, both ways; the border pixels fill the gap

    def __call__(self, images_BCHW: Tensor, generator: Generator) -> Tensor:
        """Return changed copies of the images, in the same order."""
        if self.flip:
            images_BCHW = random_flip(images_BCHW, generator)
        if self.shift:
            images_BCHW = random_shift(images_BCHW, self.shift, generator)
        return images_BCHW


def random_flip(images_BCHW: Tensor, generator: Generator) -> Tensor:
    """Return the images, each mirrored left to right with probability 1/2."""
    flipped_B = torch.rand(len(images_BCHW), generator=generator) < 0.5  # noqa: PLR2004
    mask_B111 = flipped_B.to(images_BCHW.device)[:, None, None, None]
    return torch.where(mask_B111, images_BCHW.flip(3), images_BCHW)


def random_shift(images_BCHW: Tensor, reach: int, generator: Generator) -> Tensor:
    """Return the images, each moved by up to ``reach`` pixels both ways; edges are repeated."""
    count, _, height, width = images_BCHW.shape
    moves_2B = torch.randint(-reach, reach + 1, (2, count), generator=generator)
    rows_BH = (torch.arange(height) - moves_2B[0][:, None]).clamp_(0, height - 1)
    columns_BW = (torch.arange(width) - moves_2B[1][:, None]).clamp_(0, width - 1)
    device = images_BCHW.device
    moved_BHWC = images_BCHW.permute(0, 2, 3, 1)[
        torch.arange(count, device=device)[:, None, None],
        rows_BH.to(device)[:, :, None],
        columns_BW.to(device)[:, None, :],
    ]
    return moved_BHWC.permute(0, 3, 1, 2)
