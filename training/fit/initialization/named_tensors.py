"""Tensors by name: put under a prefix, found again, loaded over a module's own, hashed."""

import hashlib
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

IMAGE_AXES = 4  # of a convolution's kernel, too


def prefixed(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors with ``prefix`` and a dot before their names."""
    return {f"{prefix}.{name}": tensor for name, tensor in tensors.items()}


def unprefixed(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors that ``prefixed`` named so, under the names they had."""
    start = f"{prefix}."
    return {name[len(start) :]: tensors[name] for name in tensors if name.startswith(start)}


def update_state(module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Load these tensors into ``module``, which keeps its own of all other names."""
    module.load_state_dict({**module.state_dict(), **tensors})


def optimizer_tensors(optimizer: Optimizer) -> dict[str, Tensor]:
    """Return what an optimizer keeps of each parameter: ``optimizer.0.exp_avg`` and others."""
    tensors: dict[str, Tensor] = {}
    for index, values in optimizer.state_dict()["state"].items():
        tensors |= prefixed(f"optimizer.{index}", values)
    return tensors


def load_optimizer(
    optimizer: Optimizer, tensors: Mapping[str, Tensor], groups: list[dict[str, Any]]
) -> None:
    """Give an optimizer the tensors that ``optimizer_tensors`` returned, and parameter groups."""
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in unprefixed("optimizer", tensors).items():
        index, key = name.split(".", 1)
        state.setdefault(int(index), {})[key] = _channels_last(tensor)
    optimizer.load_state_dict({"state": state, "param_groups": groups})


def _channels_last(tensor: Tensor) -> Tensor:
    """Return the tensor laid out as a network's own, so that kernels round alike."""
    if tensor.ndim != IMAGE_AXES:
        return tensor
    return tensor.contiguous(memory_format=torch.channels_last)


def sha256_of_tensors(tensors: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 (hexadecimal) of names, types, shapes and numbers, wherever they lie."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)};".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
