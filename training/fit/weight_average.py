"""A moving average of a network's weights, which generalises better than the last of them.

Polyak averaging with exponential forgetting, as in Tan & Le 2019 (arXiv:1905.11946), section 5.2.
"""

from collections.abc import Mapping
from copy import deepcopy
from typing import Final

import torch
from torch import Tensor

from vision.networks.network import Network

FORGETTING: Final = 10  # after n steps, at most n / (n + 10) of the average is kept


class WeightAverage:
    """The average of a network's weights and running means, a copy at first.

    Its decay per update grows from 0.1 to the one asked for, so that the random start is forgotten.
    torch's own ``AveragedModel`` asks the device at each update how many there were.
    """

    def __init__(
        self, network: Network, decay: float, frozen_tensors: Mapping[str, Tensor]
    ) -> None:
        """Begin with a copy of ``network``, whose tensors must stay the ones they are.

        Args:
            network: the one that learns.
            decay: share of the average that an update keeps, in (0, 1).
            frozen_tensors: the network's tensors that never change, by name: the average has no
                copy of them.
        """
        self.network = deepcopy(network)
        self.updates = 0
        self._decay = decay
        for name, tensor in frozen_tensors.items():
            module, _, own = name.rpartition(".")
            setattr(self.network.get_submodule(module), own, tensor)
        learning = network.state_dict(keep_vars=True)
        pairs = [
            (tensor, learning[name])
            for name, tensor in self.network.state_dict(keep_vars=True).items()
            if name not in frozen_tensors
        ]
        self._numbers = [pair for pair in pairs if pair[0].is_floating_point()]
        self._counters = [pair for pair in pairs if not pair[0].is_floating_point()]

    @torch.no_grad()
    def update(self) -> None:
        """Move towards the network as it is now."""
        reached = (1 + self.updates) / (FORGETTING + self.updates)
        kept = min(self._decay, reached) if self.updates else 0.0
        means, values = zip(*self._numbers, strict=True)
        torch._foreach_lerp_(means, values, 1 - kept)
        for mean, value in self._counters:
            mean.copy_(value)
        self.updates += 1
