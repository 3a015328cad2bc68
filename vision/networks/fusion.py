"""A network in evaluation mode in, the same with fewer passes over its maps out; for a GPU.

Batch normalisation right behind a convolution becomes part of its weights. A ReLU right behind one
is done by cuDNN together with it and with the bias: on a GPU each of them is otherwise a kernel
that reads and writes the whole map.

Shape suffixes: B images, C channels, H x W pixels, F features.
"""

from collections.abc import Callable
from copy import copy
from typing import Final, TypeVar, cast

import torch
from torch import Tensor, fx, nn
from torch.nn.functional import relu
from torch.nn.utils.fusion import fuse_conv_bn_eval

from vision.networks.backbone import Backbone
from vision.networks.network import Network

M = TypeVar("M", bound=nn.Module)
RELUS: Final = (torch.relu, torch.relu_, relu)


class ConvolutionAndReLU(nn.Module):
    """A convolution whose result is not below zero: one kernel of cuDNN where there is cuDNN."""

    def __init__(self, convolution: nn.Conv2d) -> None:
        super().__init__()
        self.convolution = convolution

    def forward(self, images_BCHW: Tensor) -> Tensor:
        """Return maps (B, F, H, W) of images or maps (B, C, H, W)."""
        one = self.convolution
        if not images_BCHW.is_cuda:
            return relu(one(images_BCHW))
        # Autocast does not know this function.
        maps_BFHW: Tensor = torch.cudnn_convolution_relu(
            images_BCHW.to(one.weight.dtype),
            one.weight,
            one.bias,
            one.stride,
            cast(tuple[int, ...], one.padding),  # no name: see _convolution_before
            one.dilation,
            one.groups,
        )
        return maps_BFHW


def with_folded_normalisation(network: Network) -> Network:
    """Return a copy whose convolutions do the batch normalisation that comes right behind them.

    The numbers are the same up to rounding. A network that cannot be traced stays as it is.
    """
    return _rewritten(network, _fold_normalisation)


def with_fused_relu(network: Network) -> Network:
    """Return a network whose convolutions do the ReLU right behind them; weights are shared."""
    return _rewritten(network, _fuse_relu)


def fused_layers(network: Network) -> int:
    """Return how many convolutions do a ReLU, too."""
    return sum(isinstance(layer, ConvolutionAndReLU) for layer in network.features.modules())


def _rewritten(network: Network, change: Callable[[fx.GraphModule], bool]) -> Network:
    """Return a network with a rewritten copy of the features, or itself where nothing changed."""
    features = network.features
    body = _traced(features.body if isinstance(features, Backbone) else features)
    if body is None or not change(body):
        return network
    body.delete_all_unused_submodules()
    body.recompile()
    if not isinstance(features, Backbone):
        return _with_part(network, "features", body)
    return _with_part(network, "features", _with_part(features, "body", body))


def _with_part(module: M, name: str, part: nn.Module) -> M:
    """Return a copy that shares all tensors but those of one part, which is another."""
    twin = copy(module)
    twin._modules = {**module._modules, name: part}
    return twin


def _traced(module: nn.Module) -> fx.GraphModule | None:
    """Return the module as a graph that shares its layers; None: its course cannot be written down.

    Networks of two libraries run their own code here: anything may be raised.
    """
    try:
        return fx.symbolic_trace(module).eval()
    except Exception:
        return None


def _fold_normalisation(body: fx.GraphModule) -> bool:
    found = False
    for node in list(body.graph.nodes):
        layer = _layer(body, node)
        if type(layer) is not nn.BatchNorm2d:  # subclasses do more than that
            continue
        before = _convolution_before(body, node)
        if before is None or layer.running_mean is None:
            continue
        fused = fuse_conv_bn_eval(before, layer)
        body.set_submodule(node.args[0].target, fused)
        node.replace_all_uses_with(node.args[0])
        body.graph.erase_node(node)
        found = True
    return found


def _fuse_relu(body: fx.GraphModule) -> bool:
    found = False
    for node in list(body.graph.nodes):
        if not (type(_layer(body, node)) is nn.ReLU or node.target in RELUS):
            continue
        before = _convolution_before(body, node)
        if before is None:
            continue
        body.set_submodule(node.args[0].target, ConvolutionAndReLU(before))
        node.replace_all_uses_with(node.args[0])
        body.graph.erase_node(node)
        found = True
    return found


def _layer(body: fx.GraphModule, node: fx.Node) -> nn.Module | None:
    if node.op != "call_module":
        return None
    return body.get_submodule(str(node.target))


def _convolution_before(body: fx.GraphModule, node: fx.Node) -> nn.Conv2d | None:
    """Return the plain convolution whose only reader is ``node``, if there is one."""
    source = node.args[0] if node.args else None
    if not isinstance(source, fx.Node) or len(source.users) > 1:
        return None
    calls = [one for one in body.graph.nodes if one.target == source.target]
    layer = _layer(body, source)
    if len(calls) > 1 or type(layer) is not nn.Conv2d:
        return None
    is_plain = layer.padding_mode == "zeros" and not isinstance(layer.padding, str)
    return layer if is_plain else None
