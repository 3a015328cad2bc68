"""One training in progress: everything that changes from epoch to epoch, and how to store it.

Shape suffixes: B images, L labels.
"""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from training.augment import Augmentation
from training.batches import Batches
from training.checkpoint import Checkpoint
from training.data import LabelledImages, last_of_each_class
from training.loop import StepReport, train_step
from training.optimization import build_loss, build_optimizer, build_scheduler
from training.recipes import Recipe
from vision.manifest import Architecture
from vision.network import EMBEDDING_LAYER, build_network


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochReport:
    """What one epoch did."""

    epoch: int  # 1 is the first
    loss: float  # mean over the epoch's steps, in nats, of augmented images and smoothed labels
    accuracy: float  # of augmented images, each before the step that learnt from it
    validation_loss: float | None  # in nats, held-out images; None when nothing is held out
    validation_accuracy: float | None
    seconds: float  # wall clock


class TrainingSession:
    """A network, what optimises it, and where it stands. Deterministic: no clock decides anything.

    The weights and dropout draw from torch's global generator, which the caller seeds; the order of
    images and the augmentations draw from a generator of the session's own.
    """

    def __init__(self, recipe: Recipe, images: LabelledImages, device: torch.device) -> None:
        self.recipe = recipe
        self.architecture = Architecture(
            network=recipe.network,
            embedding_layer=EMBEDDING_LAYER,
            width=recipe.width,
            num_labels=len(images.label_names),
        )
        self.device = device
        self.network = build_network(self.architecture, recipe.preprocessing)
        self.network.to(device).to(memory_format=torch.channels_last)
        self.history: list[EpochReport] = []

        held_out = np.zeros(len(images), np.bool_)
        if recipe.validation:
            held_out = last_of_each_class(images.labels_N, recipe.validation)
        self._batches = self._cut(images.only(np.flatnonzero(~held_out)))
        self._held_out = (
            self._cut(images.only(np.flatnonzero(held_out))) if held_out.any() else None
        )

        self._augmentation = Augmentation(flip=recipe.flip, shift=recipe.shift)
        self._loss_fn = build_loss(recipe)
        self._optimizer = build_optimizer(recipe, self.network)
        self._scheduler = build_scheduler(
            recipe, self._optimizer, steps=recipe.epochs * len(self._batches)
        )
        self._generator = torch.Generator().manual_seed(recipe.seed)
        self._best_weights: dict[str, Tensor] = {}

    @property
    def steps_per_epoch(self) -> int:
        """Batches that an epoch learns from."""
        return len(self._batches)

    @property
    def finished(self) -> bool:
        """Whether all epochs are done, or patience with the validation loss is over."""
        return len(self.history) >= self.recipe.epochs or (
            self._held_out is not None
            and len(self.history) - self._best_epoch >= self.recipe.patience
        )

    @property
    def kept_epoch(self) -> int:
        """The epoch whose weights are kept: the best or the last one, as the recipe says."""
        return self._best_epoch if self.recipe.keep_best else len(self.history)

    @property
    def kept_weights(self) -> dict[str, Tensor]:
        """The weights of ``kept_epoch``."""
        return self._best_weights or self.network.state_dict()

    def run_epoch(self, on_step: Callable[[StepReport], None]) -> EpochReport:
        """Learn from every image once, then measure with the held-out ones.

        Raises:
            DivergenceError: the session is of no further use; its last checkpoint is.
        """
        started = time.perf_counter()
        steps: list[StepReport] = []
        for batch in self._batches.shuffled(self._augmentation, self._generator):
            step = train_step(
                self.network,
                self._loss_fn,
                self._optimizer,
                self._scheduler,
                batch,
                max_gradient_norm=self.recipe.max_gradient_norm,
            )
            steps.append(step)
            on_step(step)
        validation_loss, validation_accuracy = self._validate()
        report = EpochReport(
            epoch=len(self.history) + 1,
            loss=sum(step.loss for step in steps) / len(steps),
            accuracy=sum(step.correct for step in steps) / sum(step.images for step in steps),
            validation_loss=validation_loss,
            validation_accuracy=validation_accuracy,
            seconds=time.perf_counter() - started,
        )
        self.history.append(report)
        if self.recipe.keep_best and self._best_epoch == report.epoch:
            self._best_weights = {
                name: tensor.clone() for name, tensor in self.network.state_dict().items()
            }
        return report

    def checkpoint(self, subject: dict[str, Any]) -> Checkpoint:
        """Return all that decides how this session goes on; it belongs to ``subject``."""
        optimizer = self._optimizer.state_dict()
        tensors = {
            "generator": self._generator.get_state(),
            "torch_generator": torch.get_rng_state(),
            **_prefixed("network", self.network.state_dict()),
            **_prefixed("best", self._best_weights),
        }
        if self.device.type == "cuda":
            tensors["cuda_generator"] = torch.cuda.get_rng_state(self.device)
        for index, values in optimizer["state"].items():
            tensors |= _prefixed(f"optimizer.{index}", values)
        state = {
            "history": [asdict(report) for report in self.history],
            "optimizer_groups": optimizer["param_groups"],
            "scheduler": self._scheduler.state_dict(),
        }
        return Checkpoint(subject, state, tensors)

    def restore(self, checkpoint: Checkpoint) -> None:
        """Stand where the session stood that made ``checkpoint``."""
        tensors = checkpoint.tensors
        self.history = [EpochReport(**report) for report in checkpoint.state["history"]]
        self.network.load_state_dict(_unprefixed("network", tensors))
        self._best_weights = {
            name: tensor.to(self.device) for name, tensor in _unprefixed("best", tensors).items()
        }
        optimizer_state: dict[int, dict[str, Tensor]] = {}
        for name, tensor in _unprefixed("optimizer", tensors).items():
            index, key = name.split(".", 1)
            optimizer_state.setdefault(int(index), {})[key] = _channels_last(tensor)
        self._optimizer.load_state_dict(
            {"state": optimizer_state, "param_groups": checkpoint.state["optimizer_groups"]}
        )
        self._scheduler.load_state_dict(checkpoint.state["scheduler"])
        self._generator.set_state(tensors["generator"])
        torch.set_rng_state(tensors["torch_generator"])
        if self.device.type == "cuda" and "cuda_generator" in tensors:
            torch.cuda.set_rng_state(tensors["cuda_generator"], self.device)

    @property
    def _best_epoch(self) -> int:
        """The first epoch of the lowest validation loss; the last when nothing is held out."""
        losses = [r.validation_loss for r in self.history if r.validation_loss is not None]
        return losses.index(min(losses)) + 1 if losses else len(self.history)

    def _cut(self, images: LabelledImages) -> Batches:
        return Batches(
            images,
            self.recipe.preprocessing,
            batch_size=self.recipe.batch_size,
            device=self.device,
        )

    @torch.inference_mode()
    def _validate(self) -> tuple[float | None, float | None]:
        """Return loss (nats, labels not smoothed) and accuracy on the held-out images."""
        if self._held_out is None:
            return None, None
        self.network.eval()
        loss, correct, images = 0.0, 0, 0
        for images_BCHW, labels_B in self._held_out.in_order():
            _, logits_BL = self.network(images_BCHW)
            loss += nn.functional.cross_entropy(logits_BL, labels_B, reduction="sum").item()
            correct += int((logits_BL.argmax(dim=1) == labels_B).sum().item())
            images += len(labels_B)
        return loss / images, correct / images


def _prefixed(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"{prefix}.{name}": tensor for name, tensor in tensors.items()}


def _unprefixed(prefix: str, tensors: Any) -> dict[str, Tensor]:
    start = f"{prefix}."
    return {name[len(start) :]: tensors[name] for name in tensors if name.startswith(start)}


def _channels_last(tensor: Tensor) -> Tensor:
    """Return the tensor laid out as the network's own, so that kernels round alike."""
    return tensor.contiguous(memory_format=torch.channels_last) if tensor.ndim == 4 else tensor  # noqa: PLR2004
