"""One training in progress: everything that changes from epoch to epoch, and how to store it.

Shape suffixes: B images, N images in all, L labels.
"""

import time
from dataclasses import asdict
from functools import cached_property, partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from training.data.images.labelled_images import LabelledImages
from training.distributed import ProcessGroup, synchronize_batch_norm
from training.errors import CheckpointError
from training.fit.batches import FeatureBatches, make_batches
from training.fit.checkpoint import Checkpoint
from training.fit.initialization.named_tensors import (
    load_optimizer,
    optimizer_tensors,
    prefixed,
    sha256_of_tensors,
    unprefixed,
    update_state,
)
from training.fit.initialization.whitening import whiten
from training.fit.objective import TrainableModel
from training.fit.optimizer import DTYPES, build_optimizer, build_scheduler
from training.fit.preflight import check_data
from training.fit.train_step import TrainStep, refuse_non_finite
from training.fit.weight_average import WeightAverage
from training.progress import EpochMetrics, Progress, StepMetrics, ignore
from training.recipes.recipe import Recipe
from training.statistics.calibration import choose_temperature
from training.statistics.pca import set_pca
from vision.networks.network import Network


class Trainer:
    """A network, what optimises it, and where it stands. Deterministic: no clock decides anything.

    Weights and dropout draw from torch's global generator, which the caller seeds.
    """

    def __init__(
        self,
        recipe: Recipe,
        network: Network,
        images: LabelledImages,
        validation: LabelledImages | None,
        *,
        processes: ProcessGroup,
        progress: Progress = ignore,
    ) -> None:
        """Prepare to train ``network`` on ``images``.

        Args:
            recipe: the set-up, its precision chosen.
            network: new, or with pretrained weights; it is moved to the processes' device.
            images: what to learn from.
            validation: what to hold against it; None: the share of the images the recipe says.
            processes: those that train together.
            progress: told of images that a frozen backbone has embedded, of steps and epochs.

        Raises:
            RecipeError: too few images for what the recipe asks of them.
        """
        self.recipe = recipe
        self.processes = processes
        self.progress = progress
        self.history: list[EpochMetrics] = []
        self.network = network.to(processes.device).to(memory_format=torch.channels_last)
        synchronize_batch_norm(self.network, processes)
        self._generator = torch.Generator(processes.device).manual_seed(recipe.seed)
        if validation is None and recipe.validation:
            images, validation = images.split_validation(recipe.validation)
        check_data(recipe, self.network, images, size=processes.size)
        if recipe.weights is None:
            whiten(self.network, images, recipe.preprocessing)
        make = partial(
            make_batches,
            self.network,
            recipe=recipe,
            generator=self._generator,
            processes=processes,
            progress=progress,
        )
        self._batches = make(images, views=recipe.views)
        self._held_out = make(validation, views=1) if validation else None
        if isinstance(self._batches, FeatureBatches) and recipe.fits_components:
            set_pca(self.network.embedding, self._batches.features_VNF[0])

        counts_L = np.bincount(images.labels_N, minlength=len(images.label_names))
        self._model = TrainableModel(self.network, recipe, counts_L, processes).to(processes.device)
        self._optimizer = build_optimizer(recipe, self._model.parameter_groups(recipe))
        self._stepper = TrainStep(
            self._optimizer,
            build_scheduler(recipe, self._optimizer, steps=recipe.epochs * len(self._batches)),
            processes,
            max_gradient_norm=recipe.max_gradient_norm,
            precision=DTYPES["fp32" if recipe.frozen else recipe.precision],
        )
        self._frozen_tensors = self._model.frozen_tensors(recipe)
        decay = recipe.average
        self._average = WeightAverage(self.network, decay, self._frozen_tensors) if decay else None
        self._best_weights: dict[str, Tensor] = {}  # without the fixed ones
        self._wrapped_model: nn.Module = self._parallel()

    @property
    def steps_per_epoch(self) -> int:
        """Batches that an epoch learns from."""
        return len(self._batches)

    @property
    def finished(self) -> bool:
        """Whether all epochs are done, or patience with the validation loss is over."""
        return len(self.history) >= self.recipe.epochs or (
            self._held_out is not None
            and self.recipe.patience is not None
            and len(self.history) - self._best_epoch >= self.recipe.patience
        )

    @property
    def kept_epoch(self) -> int:
        """The epoch whose weights are kept: the best or the last one, as the recipe says."""
        return self._best_epoch if self.recipe.keep_best else len(self.history)

    @property
    def kept_weights(self) -> dict[str, Tensor]:
        """The weights of ``kept_epoch``, averaged if the recipe says so."""
        return {**self._measured.state_dict(), **self._best_weights}

    def run_epoch(self) -> EpochMetrics:
        """Learn from every image once, then measure with the held-out ones.

        Raises:
            DivergenceError: the trainer is of no further use; its last checkpoint is.
        """
        started = time.perf_counter()
        epoch = len(self.history) + 1
        if self._model.set_trainable(self.recipe.fine_tuning, epoch=epoch):
            self._wrapped_model = self._parallel()
        steps: list[StepMetrics] = []
        self._model.train()
        for batch in self._batches.shuffled(epoch, self._generator):
            self._stepper.step(self._wrapped_model, batch)
            if self._average is not None:
                self._average.update()
            if self._stepper.is_due:
                steps += self._fetch_steps()
        steps += self._fetch_steps()
        validation_loss, validation_accuracy = self._validate()
        refuse_non_finite([validation_loss or 0.0], "the loss on held-out images")
        metrics = EpochMetrics(
            epoch=epoch,
            loss=sum(step.loss for step in steps) / len(steps),
            accuracy=sum(step.correct for step in steps) / sum(step.images for step in steps),
            validation_loss=validation_loss,
            validation_accuracy=validation_accuracy,
            learning_rate=steps[-1].learning_rate,
            seconds=time.perf_counter() - started,
        )
        self.history.append(metrics)
        if self.recipe.keep_best and self._best_epoch == metrics.epoch:
            changing = self._changing(self._measured)
            self._best_weights = {name: tensor.clone() for name, tensor in changing.items()}
        return metrics

    def _fetch_steps(self) -> list[StepMetrics]:
        """Wait for the steps that were taken, and tell what they did."""
        steps = self._stepper.fetch()
        for step in steps:
            self.progress(step)
        return steps

    def temperature(self) -> float:
        """Return what to divide the kept weights' logits by; 1 when that is not known to help.

        From now on the network has the kept weights.
        """
        self.network.load_state_dict(self.kept_weights)
        if self._held_out is None:
            return 1.0
        logits_NL, labels_N = self._held_out_logits(self.network)
        return choose_temperature(logits_NL.numpy(), labels_N.numpy())

    def checkpoint(self, run_identity: dict[str, Any]) -> Checkpoint:
        """Return all that decides how this training goes on; it belongs to ``run_identity``.

        Of the network's tensors that never change only the SHA-256 is in it.
        """
        tensors = {
            "generator": self._generator.get_state(),
            "torch_generator": torch.get_rng_state(),
            **prefixed("learner", self._changing(self._model, below="network.")),
            **prefixed("best", self._best_weights),
            **optimizer_tensors(self._optimizer),
        }
        if self._average is not None:
            tensors |= prefixed("average", self._changing(self._average.network))
        if self.processes.device.type == "cuda":
            tensors["cuda_generator"] = torch.cuda.get_rng_state(self.processes.device)
        state = {
            "history": [asdict(epoch) for epoch in self.history],
            "optimizer_groups": self._optimizer.state_dict()["param_groups"],
            "scheduler": self._stepper.scheduler.state_dict(),
            "scaler": self._stepper.scaler.state_dict(),
            "average_updates": self._average.updates if self._average else 0,
            "device": self.processes.device.type,
            "fixed_sha256": self._frozen_sha256,
        }
        return Checkpoint(run_identity, state, tensors)

    def restore(self, checkpoint: Checkpoint) -> None:
        """Stand where the training stood that made ``checkpoint``.

        Raises:
            CheckpointError: that training's network had other weights where it does not learn, or
                it ran on another kind of device, whose random numbers are others.
        """
        began_on = checkpoint.state["device"]
        if began_on != self.processes.device.type:
            raise CheckpointError(
                f"this training began on {began_on} and draws its random numbers there: go on with "
                f"--device {began_on}, or remove its folder and begin again"
            )
        if checkpoint.state["fixed_sha256"] != self._frozen_sha256:
            raise CheckpointError(
                "the part of the network that does not learn has other weights now than when this "
                "training began; begin with the same weights, or remove its folder"
            )
        tensors = checkpoint.tensors
        self.history = [EpochMetrics(**epoch) for epoch in checkpoint.state["history"]]
        update_state(self._model, unprefixed("learner", tensors))
        if self._average is not None:
            update_state(self._average.network, unprefixed("average", tensors))
            self._average.updates = checkpoint.state["average_updates"]
        device, best = self.processes.device, unprefixed("best", tensors)
        self._best_weights = {name: tensor.to(device) for name, tensor in best.items()}
        load_optimizer(self._optimizer, tensors, checkpoint.state["optimizer_groups"])
        self._stepper.scheduler.load_state_dict(checkpoint.state["scheduler"])
        self._stepper.scaler.load_state_dict(checkpoint.state["scaler"])
        self._generator.set_state(tensors["generator"])
        torch.set_rng_state(tensors["torch_generator"])
        if self.processes.device.type == "cuda" and "cuda_generator" in tensors:
            torch.cuda.set_rng_state(tensors["cuda_generator"], self.processes.device)

    @property
    def _measured(self) -> Network:
        """The network that is validated and kept: the average, where there is one."""
        return self.network if self._average is None else self._average.network

    @property
    def _best_epoch(self) -> int:
        """The first epoch of the lowest validation loss; the last when nothing is held out."""
        losses = [r.validation_loss for r in self.history if r.validation_loss is not None]
        return losses.index(min(losses)) + 1 if losses else len(self.history)

    @cached_property
    def _frozen_sha256(self) -> str:
        """SHA-256 (hexadecimal) of the tensors that never change, with names and forms."""
        return sha256_of_tensors(self._frozen_tensors)

    def _changing(self, module: nn.Module, *, below: str = "") -> dict[str, Tensor]:
        """Return the state of ``module``, in which the network's names begin with ``below``."""
        state = module.state_dict().items()
        frozen = self._frozen_tensors
        return {name: t for name, t in state if name.removeprefix(below) not in frozen}

    def _parallel(self) -> nn.Module:
        """Return what steps call: the model, compiled or shared out if that is wanted."""
        wrapped: nn.Module = self._model
        if self.processes.size > 1:
            wrapped = DistributedDataParallel(wrapped, broadcast_buffers=False)
        if self.recipe.compile and self.processes.device.type == "cuda":
            wrapped = torch.compile(wrapped)  # type: ignore[assignment]
        return wrapped

    def _validate(self) -> tuple[float | None, float | None]:
        """Return loss (nats, labels not smoothed) and accuracy on the held-out images."""
        if self._held_out is None:
            return None, None
        logits_NL, labels_N = self._held_out_logits(self._measured)
        loss = nn.functional.cross_entropy(logits_NL, labels_N)
        return loss.item(), float((logits_NL.argmax(dim=1) == labels_N).double().mean())

    @torch.inference_mode()
    def _held_out_logits(self, network: Network) -> tuple[Tensor, Tensor]:
        """Return logits (N, L) and labels (N,) of the held-out images, on the CPU."""
        assert self._held_out is not None
        network.eval()
        logits, labels = [], []
        for inputs, labels_B in self._held_out.in_order():
            _, logits_BL = network.head(inputs) if self.recipe.frozen else network(inputs)
            logits.append(logits_BL.float())
            labels.append(labels_B)
        return torch.cat(logits).cpu(), torch.cat(labels).cpu()
