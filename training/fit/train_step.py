"""One optimisation step that never waits for the device. No files, no printing, no globals.

Shape suffixes: B images, C channels, H x W pixels, F features, L labels, S steps.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from training.distributed import ProcessGroup
from training.errors import DivergenceError
from training.progress import StepMetrics

# Steps whose figures come from a GPU at once: it runs out of work when they are asked for, and a
# training that diverged goes on until they are. From a CPU they come after every step.
FETCHED_TOGETHER: Final = 20


@dataclass(frozen=True, slots=True)
class _Taken:
    """A step whose figures are still on the device."""

    figures_3: Tensor  # this process's share of loss, correct images and gradient norm
    images: int  # over all processes
    learning_rate: float


class TrainStep:
    """Takes steps: forward, backward, clip, update; and says later what they did."""

    def __init__(
        self,
        optimizer: Optimizer,
        scheduler: LRScheduler,
        processes: ProcessGroup,
        *,
        max_gradient_norm: float,
        precision: torch.dtype,
    ) -> None:
        self._optimizer = optimizer
        self.scheduler = scheduler
        self._processes = processes
        self._parameters = [p for group in optimizer.param_groups for p in group["params"]]
        self._max_gradient_norm = max_gradient_norm
        self._precision = precision
        self._taken: list[_Taken] = []  # since figures were fetched
        self._fetched_together = FETCHED_TOGETHER if processes.device.type == "cuda" else 1
        # Gradients of float16 fall below its smallest number unless the loss is scaled up.
        self.scaler = torch.amp.GradScaler(
            processes.device.type, enabled=precision == torch.float16
        )

    @property
    def is_due(self) -> bool:
        """Whether ``fetch`` should be called before the next step."""
        return len(self._taken) >= self._fetched_together

    def step(self, model: nn.Module, batch: tuple[Tensor, Tensor]) -> None:
        """Take one step on this process's inputs and labels.

        ``model`` gives loss and logits, as ``training.fit.objective.TrainableModel``, in training
        mode.
        """
        inputs, labels = batch
        learning_rate = float(self.scheduler.get_last_lr()[0])

        self._optimizer.zero_grad(set_to_none=True)
        with torch.autocast(
            self._processes.device.type, self._precision, enabled=self._precision != torch.float32
        ):
            loss, logits_BL = model(inputs, labels)
        self.scaler.scale(loss).backward()
        self.scaler.unscale_(self._optimizer)
        gradient_norm = nn.utils.clip_grad_norm_(self._parameters, self._max_gradient_norm)
        self.scaler.step(self._optimizer)
        self.scaler.update()
        self.scheduler.step()

        share = 1 / self._processes.size
        figures_3 = torch.stack(
            [loss.detach() * share, _correct(logits_BL, labels), gradient_norm * share]
        )
        images = len(labels) * self._processes.size
        self._taken.append(_Taken(figures_3, images, learning_rate))

    def fetch(self) -> list[StepMetrics]:
        """Wait for the steps that were taken since the last call; return what they did, in order.

        Raises:
            DivergenceError: a loss or gradient was not finite; the parameters are spoilt.
        """
        if not self._taken:
            return []
        figures_S3 = self._processes.all_reduce(torch.stack([one.figures_3 for one in self._taken]))
        metrics = [
            StepMetrics(taken.images, loss, round(correct), norm, taken.learning_rate)
            for taken, (loss, correct, norm) in zip(self._taken, figures_S3.tolist(), strict=True)
        ]
        self._taken.clear()
        for step in metrics:
            self._refuse_divergence(step)
        return metrics

    def _refuse_divergence(self, step: StepMetrics) -> None:
        # With scaled float16, an endless gradient only means that the scale was too high: the
        # scaler passes over the step and lowers it.
        checked = step.loss if self.scaler.is_enabled() else step.loss + step.gradient_norm
        if not math.isfinite(checked):
            raise DivergenceError(
                f"the training diverged: loss {step.loss}, gradient norm {step.gradient_norm} at "
                f"learning rate {step.learning_rate:.3g}; finite numbers were expected, try a "
                "lower rate"
            )


def refuse_non_finite(values: Iterable[float], what: str) -> None:
    """Raise unless all values are finite.

    Raises:
        DivergenceError: one is not.
    """
    if not all(math.isfinite(value) for value in values):
        raise DivergenceError(
            f"the training diverged: {what} is not a finite number; try a lower learning rate"
        )


def _correct(logits_BL: Tensor, labels: Tensor) -> Tensor:
    labels_B = labels.argmax(dim=1) if labels.ndim > 1 else labels
    return (logits_BL.detach().argmax(dim=1) == labels_B).sum(dtype=torch.float32)
