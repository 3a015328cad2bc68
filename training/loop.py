"""One optimisation step. No files, no printing, no globals.

Shape suffixes: B images, C channels, H x W pixels, L labels.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from training.errors import DivergenceError
from vision.network import Network


@dataclass(frozen=True, slots=True)
class StepReport:
    """What one step did."""

    images: int
    loss: float  # mean over the batch, in nats
    correct: int  # images whose highest score was their label's, before the update
    gradient_norm: float  # L2 over all parameters, before clipping
    learning_rate: float  # first parameter group's, as used by this step


def train_step(
    network: Network,
    loss_fn: nn.Module,
    optimizer: Optimizer,
    scheduler: LRScheduler,
    batch: tuple[Tensor, Tensor],
    *,
    max_gradient_norm: float,
) -> StepReport:
    """Take one step on ``batch``: images (B, C, H, W), normalised floats, and labels (B,).

    Raises:
        DivergenceError: loss or gradient not finite; the parameters are as they were before the
            call (the running means of batch normalisation have seen the batch).
    """
    network.train()
    images_BCHW, labels_B = batch
    learning_rate = float(scheduler.get_last_lr()[0])

    optimizer.zero_grad(set_to_none=True)
    _, logits_BL = network(images_BCHW)
    loss = loss_fn(logits_BL, labels_B)
    loss.backward()
    gradient_norm = nn.utils.clip_grad_norm_(network.parameters(), max_gradient_norm)

    correct = (logits_BL.detach().argmax(dim=1) == labels_B).sum()
    report = StepReport(
        len(labels_B), loss.item(), int(correct.item()), gradient_norm.item(), learning_rate
    )
    if not torch.isfinite(loss + gradient_norm):
        raise DivergenceError(
            f"the training diverged: loss {report.loss}, gradient norm {report.gradient_norm} at "
            f"learning rate {learning_rate:.3g}; finite numbers were expected, try a lower rate"
        )

    optimizer.step()
    scheduler.step()
    return report
