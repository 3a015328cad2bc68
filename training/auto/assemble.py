"""A network and the heads that were fitted to what it sees in, one network to serve out."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from training.heads.cross_validation import FittedHeads, LinearHeads, ValidationFigures
from training.heads.model_choice import SelectionResult
from training.publish import Trained, environment
from training.recipes.auto_recipe import AutoRecipe, Extractor
from training.statistics.calibration import choose_temperature
from training.statistics.closed_form import Linear
from vision.networks.backbone import Backbone
from vision.networks.network import Network, build_network


def assemble_network(
    extractor: Extractor,
    backbone: Backbone,
    fitted: FittedHeads,
    recipe: AutoRecipe,
    *,
    device: torch.device,
    seconds: float,
    result: SelectionResult,
    features_NF: NDArray[np.float32],
) -> Trained:
    """Return the network of ``backbone`` with its heads, calibrated on images held out.

    Args:
        extractor: what the backbone was made by.
        backbone: with its weights.
        fitted: the heads.
        recipe: of the training.
        device: where it is to be measured.
        seconds: that the training took.
        comparison: of what was tried.
        features_NF: of the training part.
    """
    heads = fitted.heads
    labels = 0 if heads.scores is None else len(heads.scores.bias_D)
    architecture = recipe.architecture(
        extractor,
        num_labels=labels,
        item_width=len(heads.item.bias_D),
        kind_width=0 if heads.kind is None else len(heads.kind.bias_D),
    )
    network = build_network(architecture, extractor.preprocessing)
    network.features.load_state_dict(backbone.state_dict())
    _set_heads(network, heads)
    network = network.to(device)
    figures = {
        "train_seconds": seconds,
        "parameters": float(sum(parameter.numel() for parameter in network.parameters())),
        **validation_figures(fitted.figures),
    }
    return Trained(
        recipe=recipe.name,
        architecture=architecture,
        preprocessing=extractor.preprocessing,
        network=network,
        device=device,
        temperature=choose_temperature(fitted.logits_NL, fitted.labels_N) if labels else 1.0,
        figures=figures,
        vectors_ND=heads.vectors(features_NF, recipe.kind_share),
        history={
            "history": [],
            "tried": result.to_json(),
            "environment": environment(device),
        },
    )


def validation_figures(figures: ValidationFigures) -> dict[str, float]:
    """Return what a manifest keeps of the figures on images held out."""
    known = figures._asdict().items()
    return {f"held_out_{name}": float(value) for name, value in known if value is not None}


@torch.no_grad()
def _set_heads(network: Network, heads: LinearHeads) -> None:
    """Give the network's linear layers the weights that were fitted."""
    if heads.kind is None or heads.scores is None:
        _set(network.embedding, heads.item)
        return
    _set(network.embedding.get_submodule("item"), heads.item)
    _set(network.embedding.get_submodule("kind"), heads.kind)
    _set(network.classifier, heads.scores)


def _set(layer: nn.Module, fitted: Linear) -> None:
    assert isinstance(layer, nn.Linear)
    layer.weight.copy_(torch.from_numpy(fitted.weight_DF))
    layer.bias.copy_(torch.from_numpy(fitted.bias_D))
