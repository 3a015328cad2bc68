"""A network of torchvision or timm and some of its layers in; the network up to them out.

What is behind the layers is gone, code and parameters; what is left keeps its names.
"""

import difflib
from collections.abc import Sequence
from typing import Any, Final, cast

from torch import nn

from vision.networks.model_zoo import torchvision_models, tracing_tools

PENULTIMATE: Final = "penultimate"
LISTED: Final = 12  # layers named in a refusal
VGG_LAYERS: Final = ("pool1", "pool2", "pool3", "pool4", "pool5", "fc6", "fc7")
AUXILIARY: Final = ("aux1", "aux2", "AuxLogits")  # classifiers that only training has


def make_feature_extractor(network: nn.Module, name: str, layers: Sequence[str]) -> nn.Module:
    """Return ``network``, called ``name``, up to ``layers``; ``network`` itself is used up.

    What comes back gives the output of ``penultimate`` alone as a tensor, and that of other layers
    as a dict, with the layers' positions ("0", "1", …) as keys.

    Raises:
        ValueError: there is no such layer, or the network can only be cut at ``penultimate``.
    """
    if getattr(network, "aux_logits", False):
        cast(Any, network).aux_logits = False
        for part in AUXILIARY:
            if hasattr(network, part):
                setattr(network, part, None)
    if PENULTIMATE in layers:
        network = _without_classifier(network, name)
    return network if list(layers) == [PENULTIMATE] else _cut_by_name(network, name, layers)


def _without_classifier(network: nn.Module, name: str) -> nn.Module:
    """Return ``network`` with nothing in place of its last linear layer.

    torchvision's SqueezeNet has none: there it is the last convolution, which classifies every
    pixel.
    """
    if name.startswith("timm:"):
        cast(Any, network).reset_classifier(0)
        return network
    modules = list(network.named_modules())
    linear = [key for key, module in modules if isinstance(module, nn.Linear)]
    convolutions = [key for key, module in modules if isinstance(module, nn.Conv2d)]
    network.set_submodule((linear or convolutions)[-1], nn.Identity())
    return network


def _cut_by_name(network: nn.Module, name: str, layers: Sequence[str]) -> nn.Module:
    """Return ``network`` up to modules or graph nodes, as torch.fx traces it."""
    tracing = tracing_tools(name)
    friendly = _friendly_layers(network)
    try:
        nodes = tracing.get_graph_node_names(network)[1]
    except Exception as error:  # tracing runs the network's own code: anything may come
        raise ValueError(
            f"{name} cannot be cut at {'+'.join(layers)!r}: it cannot be traced, and has the layer "
            f"{PENULTIMATE!r} only"
        ) from error
    outputs: dict[str, str] = {}
    for position, layer in enumerate(layers):
        node = nodes[-1] if layer == PENULTIMATE else friendly.get(layer, layer)
        if not any(known == node or known.startswith(f"{node}.") for known in nodes):
            listed = ", ".join(_some_layers(layer, list(friendly), nodes))
            raise ValueError(f"{name} has no layer {layer!r}; among its layers are {listed}")
        outputs[node] = str(position)
    return cast(nn.Module, tracing.create_feature_extractor(network, outputs))


def _friendly_layers(network: nn.Module) -> dict[str, str]:
    """Return the modules of a VGG network under the names in use since Simonyan (2014)."""
    if not isinstance(network, torchvision_models().VGG):
        return {}
    pools = _children(network, "features", nn.MaxPool2d)
    dense = _children(network, "classifier", nn.ReLU)
    return dict(zip(VGG_LAYERS, pools + dense, strict=True))


def _children(network: nn.Module, part: str, kind: type[nn.Module]) -> list[str]:
    children = network.get_submodule(part).named_children()
    return [f"{part}.{key}" for key, module in children if isinstance(module, kind)]


def _some_layers(layer: str, friendly: list[str], nodes: list[str]) -> list[str]:
    """Return up to ``LISTED`` layers: friendly names, some like ``layer``, the large parts."""
    modules = {".".join(node.split(".")[:depth]) for node in nodes for depth in (1, 2, 3)}
    close = difflib.get_close_matches(layer, sorted(modules), n=4, cutoff=0.6)
    large = [node.split(".")[0] for node in nodes[1:]]  # the first is the input
    return list(dict.fromkeys([PENULTIMATE, *friendly, *close, *large]))[:LISTED]
