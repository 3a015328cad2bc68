"""An EfficientNet-Lite that learns on, several times as quick on a CPU as what it is made of.

Three things make it so. Batch normalisation with the statistics of pretraining is folded into the
convolutions. The filters of depthwise convolutions stay as they are, while the biases behind them
learn: their gradients would take most of a step. And the gradient through a depthwise convolution
is computed as one: with the filter turned round, as quick as the way forward.

Shape suffixes: B images, C channels, H x W pixels, F features.
"""

from collections.abc import Iterator
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx
from torch.nn.functional import conv2d, hardtanh, pad

STAGES: Final = 7
HIGHEST: Final = 6.0  # of the activations


class FusedLite(nn.Module):
    """The network, from its first convolution to the mean over its last map."""

    def __init__(self, network: nn.Module, *, from_stage: int) -> None:
        """Take the weights of timm's ``network``; stages below ``from_stage`` do not learn."""
        super().__init__()
        self.stem = _Layer(network, "conv_stem", "bn1", active=True)
        self.stages = nn.ModuleList(
            nn.ModuleList(_Block(network, f"blocks.{stage}.{number}") for number in range(count))
            for stage, count in enumerate(map(len, network.get_submodule("blocks").children()))  # type: ignore[arg-type]
        )
        self.head = _Layer(network, "conv_head", "bn2", active=True)
        self.from_stage = from_stage
        for part in (self.stem, *self.stages[:from_stage]):
            part.requires_grad_(False)

    def forward(self, images_BCHW: Tensor, drop: float = 0.0) -> Tensor:
        """Return features (B, F) of normalised images (B, C, H, W).

        Args:
            images_BCHW: of the dtype that is to be computed with.
            drop: how often the highest block is left out of an image's way while learning; lower
                ones less often (stochastic depth, Huang et al. 2016).
        """
        with torch.no_grad():
            map_BCHW = self.stem(images_BCHW)
            for stage in self.stages[: self.from_stage]:
                for block in stage:  # type: ignore[attr-defined]
                    map_BCHW = block(map_BCHW)
        for number, stage in enumerate(self.stages[self.from_stage :], start=self.from_stage):
            for block in stage:  # type: ignore[attr-defined]
                map_BCHW = block(map_BCHW, drop * number / STAGES if self.training else 0.0)
        features_BF: Tensor = self.head(map_BCHW).float().mean(dim=(2, 3))
        return features_BF

    def learning(self) -> Iterator[tuple[int, nn.Parameter]]:
        """Yield the parameters that learn, each with its stage; the last convolution's is 7."""
        parts = [*self.stages, self.head]
        for number, part in enumerate(parts):
            for parameter in part.parameters():
                if parameter.requires_grad:
                    yield number, parameter

    @torch.no_grad()
    def unfused(self) -> dict[str, Tensor]:
        """Return the tensors of timm's network that computes the same, by its names."""
        tensors: dict[str, Tensor] = {}
        for layer in self.modules():
            if isinstance(layer, _Layer):
                tensors |= layer.unfused()
        return tensors


class _Layer(nn.Module):
    """A convolution, the normalisation behind it, and perhaps an activation."""

    def __init__(
        self, network: nn.Module, convolution: str, normalisation: str, *, active: bool
    ) -> None:
        super().__init__()
        given: Any = network.get_submodule(convolution)
        normal: Any = network.get_submodule(normalisation)
        self._names = convolution, normalisation
        self._eps = float(normal.eps)
        self._active = active
        self._depthwise = given.groups > 1
        self._kernel, self._stride = given.kernel_size[0], given.stride[0]
        factor = (normal.weight / torch.sqrt(normal.running_var + normal.eps)).detach()
        self.weight = nn.Parameter(
            given.weight.detach() * factor[:, None, None, None],
            requires_grad=not self._depthwise,
        )
        self.bias = nn.Parameter((normal.bias - normal.running_mean * factor).detach())

    def forward(self, map_BCHW: Tensor) -> Tensor:
        weight, bias = self.weight.to(map_BCHW.dtype), self.bias.to(map_BCHW.dtype)
        before, after = self._padding(map_BCHW.shape[2])
        if before != after:
            map_BCHW = pad(map_BCHW, (before, after, before, after))
            before = 0
        if self._depthwise:
            out_BCHW: Tensor = _Depthwise.apply(map_BCHW, weight, self._stride, before)
            out_BCHW = out_BCHW + bias[:, None, None]
        else:
            out_BCHW = conv2d(map_BCHW, weight, bias, self._stride, before)
        return hardtanh(out_BCHW, 0.0, HIGHEST) if self._active else out_BCHW

    def _padding(self, side: int) -> tuple[int, int]:
        """Return the pixels before and after, as TensorFlow's "same" has them."""
        out = -(-side // self._stride)
        lacking = max((out - 1) * self._stride + self._kernel - side, 0)
        return lacking // 2, lacking - lacking // 2

    def unfused(self) -> dict[str, Tensor]:
        """Return the tensors of both layers: a normalisation that only adds the bias."""
        convolution, normalisation = self._names
        ones = torch.ones_like(self.bias)
        return {
            f"{convolution}.weight": self.weight.clone(),
            f"{normalisation}.weight": ones * (1 + self._eps) ** 0.5,
            f"{normalisation}.bias": self.bias.clone(),
            f"{normalisation}.running_mean": torch.zeros_like(self.bias),
            f"{normalisation}.running_var": ones,
        }


class _Block(nn.Module):
    """Widens a map, filters every channel, and narrows it."""

    def __init__(self, network: nn.Module, name: str) -> None:
        super().__init__()
        block: Any = network.get_submodule(name)
        self._skips = bool(block.has_skip)
        widens = hasattr(block, "conv_pwl")
        parts = (
            (("conv_pw", "bn1", True), ("conv_dw", "bn2", True), ("conv_pwl", "bn3", False))
            if widens
            else (("conv_dw", "bn1", True), ("conv_pw", "bn2", False))
        )
        self.layers = nn.Sequential(
            *(
                _Layer(network, f"{name}.{one}", f"{name}.{normal}", active=active)
                for one, normal, active in parts
            )
        )

    def forward(self, map_BCHW: Tensor, drop: float = 0.0) -> Tensor:
        changed_BCHW: Tensor = self.layers(map_BCHW)
        if not self._skips:
            return changed_BCHW
        if drop > 0:
            kept_B = torch.rand(len(map_BCHW), 1, 1, 1, device=map_BCHW.device) >= drop
            changed_BCHW = changed_BCHW * kept_B.to(changed_BCHW.dtype) / (1 - drop)
        return map_BCHW + changed_BCHW


class _Depthwise(torch.autograd.Function):
    """A depthwise convolution whose filters do not learn."""

    @staticmethod
    def forward(
        context: Any, map_BCHW: Tensor, weight: Tensor, stride: int, padding: int
    ) -> Tensor:
        context.save_for_backward(weight)
        context.settings = stride, padding, map_BCHW.shape
        return conv2d(map_BCHW, weight, None, stride, padding, 1, len(weight))

    @staticmethod
    def backward(context: FunctionCtx, gradient_BCHW: Tensor) -> tuple[Tensor, None, None, None]:
        (weight,) = context.saved_tensors  # type: ignore[attr-defined]
        stride, padding, shape = context.settings  # type: ignore[attr-defined]
        if stride > 1:  # every gradient belongs to the place that the filter stood at
            images, channels, height, width = gradient_BCHW.shape
            spread_BCHW = gradient_BCHW.new_zeros(
                (images, channels, (height - 1) * stride + 1, (width - 1) * stride + 1)
            ).contiguous(memory_format=torch.channels_last)
            spread_BCHW[:, :, ::stride, ::stride] = gradient_BCHW
            gradient_BCHW = spread_BCHW
        kernel = weight.shape[-1]
        before = kernel - 1 - padding
        below, right = (
            shape[axis] - (gradient_BCHW.shape[axis] + before - kernel + 1) for axis in (2, 3)
        )
        turned = weight.flip(2, 3)
        if before == below == right:
            moved_BCHW = conv2d(gradient_BCHW, turned, None, 1, before, 1, len(weight))
        else:
            around_BCHW = pad(gradient_BCHW, (before, right, before, below))
            moved_BCHW = conv2d(around_BCHW, turned, None, 1, 0, 1, len(weight))
        return moved_BCHW, None, None, None
