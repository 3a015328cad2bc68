"""One optimisation step. No files, no printing, no globals.

Shape suffixes: B images, C channels, H x W pixels, F features, L labels.
"""

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from training.distributed import ProcessGroup
from training.errors import DivergenceError
from training.progress import StepMetrics


class TrainStep:
    """Takes steps: forward, backward, check, clip, update."""

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
        self._max_gradient_norm = max_gradient_norm
        self._precision = precision
        # Gradients of float16 fall below its smallest number unless the loss is scaled up.
        self.scaler = torch.amp.GradScaler(
            processes.device.type, enabled=precision == torch.float16
        )

    def step(self, model: nn.Module, batch: tuple[Tensor, Tensor]) -> StepMetrics:
        """Take one step on this process's inputs and labels.

        ``model`` gives loss and logits, as ``training.fit.objective.Learner``, in training mode.

        Raises:
            DivergenceError: loss or gradient not finite; the parameters are as they were before the
                call (the running means of batch normalisation have seen the batch).
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
        parameters = [p for group in self._optimizer.param_groups for p in group["params"]]
        gradient_norm = nn.utils.clip_grad_norm_(parameters, self._max_gradient_norm)

        mean_loss, correct, images = self._processes.all_reduce(
            torch.stack(
                [
                    loss.detach().double() / self._processes.size,
                    _correct(logits_BL, labels).double(),
                    torch.tensor(float(len(labels)), device=loss.device).double(),
                ]
            )
        ).tolist()
        metrics = StepMetrics(
            int(images), mean_loss, int(correct), gradient_norm.item(), learning_rate
        )
        self._refuse_divergence(metrics)

        self.scaler.step(self._optimizer)
        self.scaler.update()
        self.scheduler.step()
        return metrics

    def _refuse_divergence(self, metrics: StepMetrics) -> None:
        # With scaled float16, an endless gradient only means that the scale was too high: the
        # scaler passes over the step and lowers it.
        checked = metrics.loss if self.scaler.is_enabled() else metrics.loss + metrics.gradient_norm
        if not torch.isfinite(torch.tensor(checked)):
            raise DivergenceError(
                f"the training diverged: loss {metrics.loss}, gradient norm "
                f"{metrics.gradient_norm} at learning rate {metrics.learning_rate:.3g}; finite "
                "numbers were expected, try a lower rate"
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
    return (logits_BL.detach().argmax(dim=1) == labels_B).sum()
