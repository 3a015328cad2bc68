"""A moving average of a network's weights, which generalises better than the last of them.

Polyak averaging with exponential forgetting, as in Tan & Le 2019 (arXiv:1905.11946), section 5.2.
"""

from collections.abc import Mapping
from typing import Final, TypeAlias

from torch import Tensor
from torch.optim.swa_utils import AveragedModel

from vision.networks.network import Network

Tensors: TypeAlias = tuple[Tensor, ...] | list[Tensor]

FORGETTING: Final = 10  # after n steps, at most n / (n + 10) of the average is kept


def averaged_copy(
    network: Network, decay: float, frozen_tensors: Mapping[str, Tensor]
) -> AveragedModel:
    """Return the average of the network's weights and running means, a copy at first.

    Its decay per update grows from 0.1 to ``decay``, so that the random start is forgotten.
    ``frozen_tensors`` are the network's tensors that never change, by name: the average has no
    copy of them.
    """

    def update(averaged: Tensors, current: Tensors, steps: Tensor | int) -> None:
        reached = (1 + float(steps)) / (FORGETTING + float(steps))
        for mean, value in zip(averaged, current, strict=True):
            if mean.is_floating_point():
                mean.lerp_(value, 1 - min(decay, reached))
            else:
                mean.copy_(value)  # a counter

    average = AveragedModel(network, multi_avg_fn=update, use_buffers=True)
    for name, tensor in frozen_tensors.items():
        module, _, own = name.rpartition(".")
        setattr(average.module.get_submodule(module), own, tensor)
    return average
