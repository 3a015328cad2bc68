"""What is optimised: a network and its losses in one module, and which of its parts learn.

Shape suffixes: B images, C channels, H x W pixels, F features, D vector width, L labels.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from training.distributed import ProcessGroup
from training.errors import RecipeError
from training.fit.metric_loss import build_metric_loss
from training.recipes.recipe import FineTuning, Recipe
from vision.networks.network import Network


class TrainableModel(nn.Module):
    """One module, so that DistributedDataParallel sees every parameter that learns."""

    def __init__(
        self, network: Network, recipe: Recipe, counts_L: NDArray[np.int64], processes: ProcessGroup
    ):
        super().__init__()
        self.network = network
        self.metric = build_metric_loss(recipe, len(counts_L))
        self._metric_weight = recipe.metric_weight
        self._label_smoothing = recipe.label_smoothing
        self._frozen = recipe.frozen
        self._processes = processes
        self.register_buffer(
            "class_weights_L", balanced_weights(counts_L, recipe.class_balance), persistent=False
        )
        self._groups = layer_groups(network.features, recipe.fine_tuning)
        self._frozen_modules: list[
            nn.Module
        ] = []  # parts that do not learn, nor follow their batches
        self.set_trainable(recipe.fine_tuning, epoch=1)

    def forward(self, inputs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Return the loss (nats, mean over the batch) and logits (B, L).

        Args:
            inputs: normalised images (B, C, H, W); of a frozen backbone its features (B, F).
            labels: of each image (B,), or shares of each label (B, L).
        """
        vectors_BD, logits_BL = self.network.head(inputs) if self._frozen else self.network(inputs)
        vectors_BD, logits_BL = vectors_BD.float(), logits_BL.float()
        losses_B = cross_entropy(
            logits_BL,
            labels,
            weight=self.get_buffer("class_weights_L"),
            label_smoothing=self._label_smoothing,
            reduction="none",
        )
        loss = losses_B.mean()
        if self.metric is not None:
            everything = self._processes.all_gather(vectors_BD), self._processes.all_gather(labels)
            with torch.autocast(vectors_BD.device.type, enabled=False):  # near 1 cosines lose most
                loss = loss + self._metric_weight * self.metric(*everything)
        return loss, logits_BL

    def set_trainable(self, fine_tuning: FineTuning | None, *, epoch: int) -> bool:
        """Choose the parts that learn in ``epoch``; return whether that is a change."""
        before = [parameter.requires_grad for parameter in self.parameters()]
        lowest = self._lowest_group(fine_tuning, epoch)
        self._frozen_modules = [module for group in self._groups[:lowest] for module in group]
        for group, modules in enumerate(self._groups):
            for module in modules:
                for parameter in module.parameters(recurse=False):
                    parameter.requires_grad_(group >= lowest)
        return before != [parameter.requires_grad for parameter in self.parameters()]

    def frozen_tensors(self, recipe: Recipe) -> dict[str, Tensor]:
        """Return the network's own tensors that no epoch of the recipe changes, by name."""
        lowest = self._lowest_group(recipe.fine_tuning, recipe.epochs)  # groups only join
        resting = {id(tensor) for tensor in _own_tensors(self._groups[:lowest])}
        resting -= {id(tensor) for tensor in _own_tensors(self._groups[lowest:])}
        state = self.network.state_dict(keep_vars=True)
        return {name: tensor for name, tensor in state.items() if id(tensor) in resting}

    def _lowest_group(self, fine_tuning: FineTuning | None, epoch: int) -> int:
        """Return the lowest group that learns in ``epoch``; their number when none does."""
        if self._frozen:
            return len(self._groups)
        return fine_tuning.lowest_group(epoch) if fine_tuning is not None else 0

    def train(self, mode: bool = True) -> "TrainableModel":
        """Set the mode; what rests stays in evaluation, so that no running mean moves."""
        super().train(mode)
        for module in self._frozen_modules:
            module.eval()
        return self

    def parameter_groups(self, recipe: Recipe) -> list[dict[str, Any]]:
        """Return optimizer groups, the head's first: its rate is the one reported.

        Rates are by depth; only matrices and kernels decay.
        """
        tuning = recipe.fine_tuning
        rates = {
            id(parameter): tuning.group_rate(group)
            for group, modules in enumerate(self._groups)
            for module in modules
            for parameter in module.parameters(recurse=False)
            if tuning is not None
        }
        grouped: dict[tuple[float, bool], list[nn.Parameter]] = {}
        for name, parameter in self.named_parameters():
            decays = parameter.ndim > 1 and not name.startswith("metric.")
            rate = rates.get(id(parameter), 1.0)
            if name.startswith("network.features.") and name.endswith(".bias"):
                rate *= recipe.bias_rate
            grouped.setdefault((rate, decays), []).append(parameter)
        return [
            {
                "params": parameters,
                "lr": rate * recipe.learning_rate,
                "weight_decay": recipe.weight_decay if decays else 0.0,
            }
            for (rate, decays), parameters in sorted(grouped.items(), key=_head_first)
        ]


def _head_first(item: tuple[tuple[float, bool], list[nn.Parameter]]) -> tuple[bool, float, bool]:
    (rate, decays), _ = item
    return rate != 1.0, -rate, not decays


def balanced_weights(counts_L: NDArray[np.int64], balance: float) -> Tensor:
    """Return a weight per class, proportional to count ** -balance; 1 on average over images."""
    weights_L = np.maximum(counts_L, 1).astype(np.float64) ** -balance
    weights_L *= counts_L.sum() / (weights_L * counts_L).sum()
    return torch.from_numpy(weights_L.astype(np.float32))


def layer_groups(features: nn.Module, tuning: FineTuning | None) -> list[list[nn.Module]]:
    """Return the modules of a backbone that hold parameters or running means, lowest group first.

    A module without a kernel (a normalisation) belongs to the layer before it. Without fine-tuning
    there is one group of all.
    """
    count = tuning.groups if tuning is not None else 1
    modules = list(_holders(features))
    total = sum(_has_kernel(module) for module in modules)
    if total < count:
        raise RecipeError(f"the backbone has {total} layers, too few for {count} groups")
    groups: list[list[nn.Module]] = [[] for _ in range(count)]
    layer = -1
    for module in modules:
        layer += _has_kernel(module)
        groups[max(layer, 0) * count // total].append(module)
    return groups


def _holders(features: nn.Module) -> Iterator[nn.Module]:
    for module in features.modules():
        own = [*module.parameters(recurse=False), *module.buffers(recurse=False)]
        if own or isinstance(module, nn.Dropout):
            yield module


def _own_tensors(groups: list[list[nn.Module]]) -> Iterator[Tensor]:
    for group in groups:
        for module in group:
            yield from module.parameters(recurse=False)
            yield from module.buffers(recurse=False)


def _has_kernel(module: nn.Module) -> bool:
    return any(parameter.ndim > 1 for parameter in module.parameters(recurse=False))
