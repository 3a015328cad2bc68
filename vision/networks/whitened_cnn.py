"""A small network that learns in few epochs: normalised images in, one row of features each out.

The shape and the start are those of K. Jordan's airbench (2024, arXiv:2404.00498), after D. Page's
"How to train your ResNet" (2018): filters that whiten patches and never learn, convolutions that
begin as the identity, and three stages that halve the sides.

Shape suffixes: B images, C channels, H x W pixels, F features, P patches, K pixels of a patch.
"""

from itertools import pairwise
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, gelu, max_pool2d, unfold

PATCH: Final = 3  # pixels, the side of what is whitened
WIDTHS: Final = (32, 128, 128)  # channels of the stages
SMALLEST: Final = 10  # pixels; the patches take two, and each of three stages halves the side
LEAST_VARIANCE: Final = 5e-4  # of a direction that is scaled to 1; as airbench
CHUNK: Final = 64  # images whose patches are looked at together
NORMALISATION_MOMENTUM: Final = 0.4  # few steps are to be remembered; as airbench


class WhitenedCnn(nn.Module):
    """Whitened patches, three stages, and the largest value over the pixels that are left."""

    whitening_FCHW: Tensor  # random until ``whiten``

    def __init__(self, channels: int) -> None:
        super().__init__()
        filters = channels * PATCH**2
        start_FCHW = torch.randn(2 * filters, channels, PATCH, PATCH) / filters**0.5
        self.register_buffer("whitening_FCHW", start_FCHW)
        self.bias = nn.Parameter(torch.zeros(2 * filters))
        widths = (2 * filters, *WIDTHS)
        self.stages = nn.Sequential(*(_Stage(narrow, wide) for narrow, wide in pairwise(widths)))
        self.width = WIDTHS[-1]  # F

    def forward(self, images_BCHW: Tensor) -> Tensor:
        """Return features (B, F) of normalised images (B, C, H, W)."""
        whitened_BCHW = gelu(conv2d(images_BCHW, self.whitening_FCHW, self.bias))
        maps_BFHW: Tensor = self.stages(whitened_BCHW)
        return maps_BFHW.amax(dim=(2, 3))

    @torch.no_grad()
    def whiten(self, images_BCHW: Tensor) -> None:
        """Let the first filters turn patches of these normalised images into uncorrelated numbers.

        They are the eigenvectors of the patches' covariance, each scaled to variance 1, and their
        negatives.
        """
        filters = self.whitening_FCHW[0].numel()
        products_KK, patches = torch.zeros(filters, filters, dtype=torch.float64), 0
        for part_BCHW in torch.split(images_BCHW.double().cpu(), CHUNK):
            rows_BKP = unfold(part_BCHW, PATCH)
            products_KK += torch.einsum("bkp,blp->kl", rows_BKP, rows_BKP)
            patches += rows_BKP.shape[0] * rows_BKP.shape[2]
        variances_K, vectors_KK = torch.linalg.eigh(products_KK / patches)
        filters_KK = (vectors_KK / (variances_K + LEAST_VARIANCE).sqrt()).T
        filters_FCHW = filters_KK.reshape(-1, *self.whitening_FCHW.shape[1:])
        self.whitening_FCHW.copy_(torch.cat([filters_FCHW, -filters_FCHW]))


class _Stage(nn.Module):
    """Two convolutions, of which the first halves the sides and widens; at first the identity."""

    def __init__(self, channels: int, wider: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, wider, kernel_size=3, padding=1, bias=False)
        self.first_normalisation = nn.BatchNorm2d(wider, momentum=NORMALISATION_MOMENTUM)
        self.second = nn.Conv2d(wider, wider, kernel_size=3, padding=1, bias=False)
        self.second_normalisation = nn.BatchNorm2d(wider, momentum=NORMALISATION_MOMENTUM)
        for layer in (self.first, self.second):
            nn.init.dirac_(layer.weight.data[: layer.in_channels])

    def forward(self, maps_BCHW: Tensor) -> Tensor:
        halved_BCHW = max_pool2d(self.first(maps_BCHW), 2)
        changed_BCHW = self.second(gelu(self.first_normalisation(halved_BCHW)))
        return gelu(self.second_normalisation(changed_BCHW))
