"""A network of torchvision or timm and one of its layers in; the network up to that layer out.

What is behind the layer is gone, code and parameters; what is left keeps its names.
"""

import difflib
from typing import Any, Final, cast

from torch import nn

from vision.libraries import torchvision_models, tracing_tools

PENULTIMATE: Final = "penultimate"
FEATURES: Final = "features"  # what a network cut by name calls its output, in a dict
LISTED: Final = 12  # layers named in a refusal
VGG_LAYERS: Final = ("pool1", "pool2", "pool3", "pool4", "pool5", "fc6", "fc7")
AUXILIARY: Final = ("aux1", "aux2", "AuxLogits")  # classifiers that only training has


def cut(network: nn.Module, name: str, layer: str) -> nn.Module:
    """Return ``network``, called ``name``, up to ``layer``; ``network`` itself is used up.

    Raises:
        ValueError: there is no such layer, or the network can only be cut at ``penultimate``.
    """
    if getattr(network, "aux_logits", False):
        cast(Any, network).aux_logits = False
        for part in AUXILIARY:
            if hasattr(network, part):
                setattr(network, part, None)
    if layer != PENULTIMATE:
        return _cut_by_name(network, name, layer)
    if name.startswith("timm:"):
        cast(Any, network).reset_classifier(0)
        return network
    return _without_classifier(network)


def _without_classifier(network: nn.Module) -> nn.Module:
    """Return torchvision's ``network`` with nothing in place of its last linear layer.

    SqueezeNet has none: there it is the last convolution, which classifies every pixel.
    """
    modules = list(network.named_modules())
    linear = [key for key, module in modules if isinstance(module, nn.Linear)]
    convolutions = [key for key, module in modules if isinstance(module, nn.Conv2d)]
    network.set_submodule((linear or convolutions)[-1], nn.Identity())
    return network


def _cut_by_name(network: nn.Module, name: str, layer: str) -> nn.Module:
    """Return ``network`` up to a module or graph node, as torch.fx traces it."""
    tracing = tracing_tools(name)
    friendly = _friendly_layers(network)
    try:
        body = tracing.create_feature_extractor(network, {friendly.get(layer, layer): FEATURES})
    except Exception as error:  # tracing runs the network's own code: anything may come
        try:
            nodes = tracing.get_graph_node_names(network)[1]
        except Exception:  # as above
            raise ValueError(
                f"{name} cannot be cut at {layer!r}: it cannot be traced, and has the layer "
                f"{PENULTIMATE!r} only"
            ) from error
        listed = ", ".join(_some_layers(layer, list(friendly), nodes))
        raise ValueError(f"{name} has no layer {layer!r}; among its layers are {listed}") from error
    return cast(nn.Module, body)


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
