"""Pixels in, the network's numbers out: the one place that scales them.

Shape suffixes: B images, C channels, H x W pixels.
"""

import numpy as np
import torch
from torch import Tensor

from vision.image.preprocessing import Preprocessing


class Normalization:
    """Turns uint8 pixels into (x / 255 - mean) / std, with one multiplication and one addition."""

    def __init__(self, preprocessing: Preprocessing, device: torch.device) -> None:
        shape = (1, preprocessing.channels, 1, 1)
        mean = np.asarray(preprocessing.mean, np.float32)
        std = np.asarray(preprocessing.std, np.float32)
        self._scale = torch.from_numpy(1 / (255 * std)).reshape(shape).to(device)
        self._shift = torch.from_numpy(-mean / std).reshape(shape).to(device)

    def __call__(self, pixels_BCHW: Tensor) -> Tensor:
        """Return float32 (B, C, H, W) in channels-last memory, of pixels on the same device."""
        scaled = pixels_BCHW.to(torch.float32).mul_(self._scale).add_(self._shift)
        return scaled.contiguous(memory_format=torch.channels_last)
