"""Several processes that train one network together, as ``torchrun`` starts them.

Every process draws the same order and the same augmentations, computes its own rows of each batch,
and ends each step with the same weights: a training of one process with the same whole batch.

Shape suffixes: B rows of the whole batch, C channels.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx

from training.errors import RecipeError
from vision.inference.torch_encoder import pick_device


@dataclass(frozen=True, slots=True)
class ProcessGroup:
    """The processes of a training, and which of them this is."""

    rank: int
    size: int
    device: torch.device

    @property
    def is_first(self) -> bool:
        """Whether this process writes files and talks to people."""
        return self.rank == 0

    def shard(self, rows_B: Tensor) -> Tensor:
        """Return this process's rows of a whole batch."""
        return rows_B[self.rank :: self.size]

    def all_gather(self, rows: Tensor) -> Tensor:
        """Return the rows of all processes, one after another; gradients flow back to each."""
        if self.size == 1:
            return rows
        whole = rows.new_zeros((self.size, *rows.shape))
        whole[self.rank] = rows
        summed: Tensor = _Sum.apply(whole)
        return summed.flatten(0, 1)

    def all_reduce(self, values: Tensor) -> Tensor:
        """Return the sum of the values over all processes."""
        if self.size == 1:
            return values
        values = values.clone()
        dist.all_reduce(values)
        return values

    def barrier(self) -> None:
        """Return once every process has come here."""
        if self.size > 1:
            dist.barrier()


@contextmanager
def join_process_group(device: str) -> Iterator[ProcessGroup]:
    """Join the processes that ``torchrun`` started; without it, be the only one.

    Raises:
        DeviceError: there is no such device here.
        RecipeError: the environment is not as ``torchrun`` makes it, or the others cannot be
            reached.
    """
    place = pick_device(device)
    if world_size() == 1:
        yield ProcessGroup(0, 1, place)
        return
    try:
        if place.type == "cuda":
            place = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
            torch.cuda.set_device(place)
        dist.init_process_group("nccl" if place.type == "cuda" else "gloo")
    except (KeyError, ValueError, RuntimeError) as error:
        reason = str(error).strip().split("\n")[0]
        raise RecipeError(
            f"cannot join the other processes ({reason}): several of them are started by torchrun, "
            "with a GPU for each or with --device cpu"
        ) from error
    try:
        yield ProcessGroup(dist.get_rank(), dist.get_world_size(), place)
    finally:
        dist.destroy_process_group()


def world_size() -> int:
    """Return how many processes train together, as ``torchrun`` tells them.

    Raises:
        RecipeError: what the environment says is no such number.
    """
    told = os.environ.get("WORLD_SIZE", "1")
    if not told.isdecimal() or int(told) < 1:
        raise RecipeError(f"WORLD_SIZE is the number of processes that train, got {told!r}")
    return int(told)


def synchronize_batch_norm(network: nn.Module, processes: ProcessGroup) -> None:
    """Let batch normalisation be over the whole batch, not one process's rows, from now on."""
    if processes.size == 1:
        return
    if processes.device.type == "cuda":
        nn.SyncBatchNorm.convert_sync_batchnorm(network)  # type: ignore[no-untyped-call]
        return
    for module in network.modules():  # torch's own works on GPUs only
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.__class__ = _SharedBatchNorm  # type: ignore[assignment]


class _SharedBatchNorm(nn.modules.batchnorm._BatchNorm):
    """Batch normalisation whose mean and variance are those of all processes' rows."""

    def _check_input_dim(self, input: Tensor) -> None:
        """Take any number of axes from two on."""

    def forward(self, rows: Tensor) -> Tensor:
        if not self.training:
            return super().forward(rows)
        axes = [axis for axis in range(rows.ndim) if axis != 1]
        count = rows.numel() / rows.shape[1] * dist.get_world_size()
        sums_2C: Tensor = _Sum.apply(
            torch.stack([rows.float().sum(axes), rows.float().square().sum(axes)])
        )
        mean_C = sums_2C[0] / count
        variance_C = (sums_2C[1] / count - mean_C.square()).clamp(min=0)
        if self.running_mean is not None and self.running_var is not None:
            with torch.no_grad():
                momentum = self.momentum if self.momentum is not None else 0.1
                self.running_mean.lerp_(mean_C, momentum)
                self.running_var.lerp_(variance_C * count / (count - 1), momentum)
                if self.num_batches_tracked is not None:
                    self.num_batches_tracked.add_(1)
        shape = [1, -1] + [1] * (rows.ndim - 2)
        scaled = (rows - mean_C.view(shape)) * torch.rsqrt(variance_C + self.eps).view(shape)
        if self.weight is None:
            return scaled
        return scaled * self.weight.view(shape) + self.bias.view(shape)


class _Sum(torch.autograd.Function):
    """The sum over all processes, of values and on the way back of their gradients."""

    @staticmethod
    def forward(ctx: FunctionCtx, values: Tensor) -> Tensor:
        values = values.contiguous().clone()
        dist.all_reduce(values)
        return values

    @staticmethod
    def backward(ctx: FunctionCtx, gradients: Tensor) -> Tensor:
        gradients = gradients.contiguous().clone()
        dist.all_reduce(gradients)
        return gradients
