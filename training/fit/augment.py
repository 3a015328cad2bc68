"""Batches of images in, the same images seen a little differently out.

torchvision's transforms draw once for a whole batch, on the host; these draw for every image of it,
at the speed of a batch, on the device where the images lie: nothing waits for it. All randomness
comes from the generator passed in, which belongs to that device, so that processes whose generators
have one seed see the same images.

Shape suffixes: B images, C channels, H x W pixels, S x S pixels after a crop, L labels.
"""

import math

import torch
from torch import Generator, Tensor
from torch.nn.functional import affine_grid, grid_sample

from training.recipes.recipe import Augmentation

ERASED_SHARE = (0.02, 1 / 3)  # of the area; as in Zhong et al. 2020 (arXiv:1708.04896), table 1
ERASED_RATIO = 10 / 3  # of the erased rectangle's sides, at most; likewise
CROPPED_RATIO = 4 / 3  # of a crop's sides, at most; as in Szegedy et al. 2015, section 6


def augment(images_BCHW: Tensor, augmentation: Augmentation, generator: Generator) -> Tensor:
    """Return changed copies of the images (uint8), in the same order."""
    if augmentation.flip:
        images_BCHW = random_flip(images_BCHW, generator)
    if augmentation.shift:
        images_BCHW = random_shift(images_BCHW, augmentation.shift, generator)
    if augmentation.crop < 1 or augmentation.scale < 1:
        side = augmentation.side(images_BCHW.shape[-1])
        images_BCHW = random_crop(images_BCHW, augmentation.crop, side, generator)
    if augmentation.erase:
        images_BCHW = random_erase(images_BCHW, augmentation.erase, generator)
    return images_BCHW


def mix(
    images_BCHW: Tensor,
    labels_B: Tensor,
    num_labels: int,
    augmentation: Augmentation,
    generator: Generator,
) -> tuple[Tensor, Tensor]:
    """Return the images (floats), each mixed with another, and the shares of its labels (B, L).

    Mixup (arXiv:1710.09412) or cutmix (arXiv:1905.04899), as torchvision's: one draw for the whole
    batch, and the other image is the one before. With both, every batch gets one of them.
    """
    height, width = images_BCHW.shape[-2:]
    ways_HW: list[Tensor] = []  # weights of the image itself
    if augmentation.mixup:
        ways_HW.append(_beta(augmentation.mixup, generator).expand(height, width))
    if augmentation.cutmix:
        area = 1 - _beta(augmentation.cutmix, generator)
        ways_HW.append((~_rectangle(area, height, width, generator)).float())
    weights_HW = ways_HW[0]
    if len(ways_HW) > 1:
        heads = _rand(generator=generator) < 0.5  # noqa: PLR2004
        weights_HW = torch.where(heads, ways_HW[0], ways_HW[1])
    shares_BL = (labels_B[:, None] == torch.arange(num_labels, device=labels_B.device)).float()
    mixed_BCHW = torch.lerp(images_BCHW.roll(1, 0), images_BCHW, weights_HW)
    return (
        mixed_BCHW.contiguous(memory_format=torch.channels_last),
        torch.lerp(shares_BL.roll(1, 0), shares_BL, weights_HW.mean()),
    )


def _beta(alpha: float, generator: Generator) -> Tensor:
    """Return a number of the beta distribution with both parameters ``alpha``."""
    both_2 = torch.full((2,), alpha, device=generator.device)
    return torch._sample_dirichlet(both_2, generator=generator)[0]


def _rectangle(area: Tensor, height: int, width: int, generator: Generator) -> Tensor:
    """Return (H, W): whether pixels lie in a rectangle of about that share of the area.

    Its middle is anywhere, so that a part of it may lie outside.
    """
    centres_2 = _rand(2, generator=generator)

    def inside(centre: Tensor, side: int) -> Tensor:
        middle, reach = (centre * side).floor(), (0.5 * area.sqrt() * side).floor()
        positions = torch.arange(side, device=generator.device)
        return (positions >= middle - reach) & (positions < middle + reach)

    return inside(centres_2[0], height)[:, None] & inside(centres_2[1], width)


def relit(pixels_BCHW: Tensor, generator: Generator) -> Tensor:
    """Return pixels with other brightness, contrast and colour, in [0, 255]."""
    count, channels = pixels_BCHW.shape[:2]

    def drawn(reach: float, *shape: int) -> Tensor:
        return 1 + reach * (2 * _rand(count, *shape, 1, 1, generator=generator) - 1)

    mean_B111 = pixels_BCHW.mean(dim=(1, 2, 3), keepdim=True)
    contrasted_BCHW = (pixels_BCHW - mean_B111) * drawn(0.2, 1) + mean_B111
    return (contrasted_BCHW * drawn(0.25, 1) * drawn(0.08, channels)).clamp_(0, 255)


def random_flip(images_BCHW: Tensor, generator: Generator) -> Tensor:
    """Return the images, each mirrored left to right with probability 1/2."""
    flipped_B = _rand(len(images_BCHW), generator=generator) < 0.5  # noqa: PLR2004
    return torch.where(flipped_B[:, None, None, None], images_BCHW.flip(3), images_BCHW)


def random_shift(images_BCHW: Tensor, reach: int, generator: Generator) -> Tensor:
    """Return the images, each moved by up to ``reach`` pixels both ways; edges are repeated."""
    count, _, height, width = images_BCHW.shape
    device = generator.device
    moves_2B = torch.randint(-reach, reach + 1, (2, count), generator=generator, device=device)
    rows_BH = (torch.arange(height, device=device) - moves_2B[0][:, None]).clamp_(0, height - 1)
    columns_BW = (torch.arange(width, device=device) - moves_2B[1][:, None]).clamp_(0, width - 1)
    moved_BHWC = images_BCHW.permute(0, 2, 3, 1)[
        torch.arange(count, device=device)[:, None, None],
        rows_BH[:, :, None],
        columns_BW[:, None, :],
    ]
    return moved_BHWC.permute(0, 3, 1, 2)


def random_crop(images_BCHW: Tensor, least_share: float, side: int, generator: Generator) -> Tensor:
    """Return a random part of each image, scaled to ``side`` pixels both ways (bilinear).

    A part has between ``least_share`` and all of the area, and sides in a ratio of at most 4/3; one
    that would be wider or higher than the image is as wide or high as it.
    """
    count = len(images_BCHW)
    draws_4B = _rand(4, count, generator=generator)
    area_B = least_share + (1 - least_share) * draws_4B[0]
    ratio_B = torch.exp((2 * draws_4B[1] - 1) * math.log(CROPPED_RATIO) * (least_share < 1))
    width_B = (area_B * ratio_B).sqrt().clamp_(max=1)
    height_B = (area_B / ratio_B).sqrt().clamp_(max=1)
    left_B = (2 * draws_4B[2] - 1) * (1 - width_B)  # of the part's middle, in [-1, 1]
    top_B = (2 * draws_4B[3] - 1) * (1 - height_B)
    zero_B = torch.zeros_like(width_B)
    theta_B23 = torch.stack([width_B, zero_B, left_B, zero_B, height_B, top_B], dim=1)
    grid = affine_grid(
        theta_B23.view(count, 2, 3),
        [count, images_BCHW.shape[1], side, side],
        align_corners=False,
    )
    cut = grid_sample(images_BCHW.float(), grid, padding_mode="border", align_corners=False)
    return cut.round_().to(torch.uint8)


def random_erase(images_BCHW: Tensor, probability: float, generator: Generator) -> Tensor:
    """Return the images, some with a rectangle of noise (random erasing, arXiv:1708.04896)."""
    count, _, height, width = images_BCHW.shape
    draws_5B = _rand(5, count, generator=generator)
    low, high = ERASED_SHARE
    area_B = (low + (high - low) * draws_5B[1]) * height * width
    ratio_B = torch.exp((2 * draws_5B[2] - 1) * math.log(ERASED_RATIO))
    high_B = (area_B * ratio_B).sqrt().round().clamp_(1, height)
    wide_B = (area_B / ratio_B).sqrt().round().clamp_(1, width)
    top_B = (draws_5B[3] * (height - high_B + 1)).floor()
    left_B = (draws_5B[4] * (width - wide_B + 1)).floor()
    device = generator.device
    rows_BH = _between(torch.arange(height, device=device), top_B, top_B + high_B)
    columns_BW = _between(torch.arange(width, device=device), left_B, left_B + wide_B)
    erased_BHW = rows_BH[:, :, None] & columns_BW[:, None, :]
    erased_BHW &= (draws_5B[0] < probability)[:, None, None]
    noise_BCHW = torch.randint(
        256, images_BCHW.shape, generator=generator, dtype=torch.uint8, device=device
    )
    return torch.where(erased_BHW[:, None], noise_BCHW, images_BCHW)


def _between(positions_P: Tensor, first_B: Tensor, end_B: Tensor) -> Tensor:
    """Return (B, P): whether each position lies in each image's range."""
    return (positions_P >= first_B[:, None]) & (positions_P < end_B[:, None])


def _rand(*shape: int, generator: Generator) -> Tensor:
    """Return numbers from 0 to 1, drawn on the generator's device."""
    return torch.rand(shape, generator=generator, device=generator.device)
