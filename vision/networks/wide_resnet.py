"""A wide residual network for small images: normalised images in, one row of features each out.

Zagoruyko & Komodakis, "Wide Residual Networks" (2016), section 2: pre-activation blocks, two 3x3
convolutions each, in three stages. Meant for a GPU: WRN-28-10 has 36.5 million parameters.

Shape suffixes: B images, C channels, H x W pixels, F features.
"""

from itertools import pairwise
from typing import Final

from torch import Tensor, nn
from torch.nn.functional import relu

DEPTH: Final = 28  # convolutions on the longest path, shortcuts aside, and the classifier
WIDENING: Final = 10  # times the channels of the narrow network
SMALLEST: Final = 16  # pixels; the last stage works on a quarter of the side
STEM_CHANNELS: Final = 16  # of the first convolution; the stages have 1, 2 and 4 times WIDENING
STAGES: Final = 3


class WideResNet(nn.Module):
    """A convolution, three stages that halve the sides between them, and a mean over the pixels."""

    def __init__(self, channels: int, *, depth: int = DEPTH, widening: int = WIDENING) -> None:
        super().__init__()
        blocks = (depth - 4) // (2 * STAGES)  # of a stage; table 1 of the paper
        widths = [STEM_CHANNELS, *(STEM_CHANNELS * widening * 2**stage for stage in range(STAGES))]
        self.width = widths[-1]  # F
        self.stem = nn.Conv2d(channels, STEM_CHANNELS, kernel_size=3, padding=1, bias=False)
        self.stages = nn.Sequential(
            *(
                nn.Sequential(
                    _Block(narrow, wide, stride=1 if stage == 0 else 2),
                    *(_Block(wide, wide, stride=1) for _ in range(blocks - 1)),
                )
                for stage, (narrow, wide) in enumerate(pairwise(widths))
            )
        )
        self.normalisation = nn.BatchNorm2d(self.width)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images_BCHW: Tensor) -> Tensor:
        """Return features (B, F) of normalised images (B, C, H, W)."""
        maps_BFHW: Tensor = relu(self.normalisation(self.stages(self.stem(images_BCHW))))
        return maps_BFHW.mean(dim=(2, 3))


class _Block(nn.Module):
    """Adds two convolutions, each after normalisation and activation, to what came in.

    Where the shape changes, the shortcut is a 1x1 convolution of the activated input.
    """

    def __init__(self, channels: int, wider: int, *, stride: int) -> None:
        super().__init__()
        self.first_normalisation = nn.BatchNorm2d(channels)
        self.first = nn.Conv2d(channels, wider, 3, stride=stride, padding=1, bias=False)
        self.second_normalisation = nn.BatchNorm2d(wider)
        self.second = nn.Conv2d(wider, wider, kernel_size=3, padding=1, bias=False)
        self.shortcut: nn.Module | None = None
        if channels != wider or stride != 1:
            self.shortcut = nn.Conv2d(channels, wider, kernel_size=1, stride=stride, bias=False)

    def forward(self, maps_BCHW: Tensor) -> Tensor:
        active_BCHW = relu(self.first_normalisation(maps_BCHW))
        kept_BCHW = maps_BCHW if self.shortcut is None else self.shortcut(active_BCHW)
        changed_BCHW = self.first(active_BCHW)
        changed_BCHW = self.second(relu(self.second_normalisation(changed_BCHW)))
        total_BCHW: Tensor = kept_BCHW + changed_BCHW
        return total_BCHW
