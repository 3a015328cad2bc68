"""A pretrained EfficientNet-Lite and labelled images in, the network after it has learnt on out.

How long it learns is decided once, by the time that there is; its state is saved after each epoch.

Shape suffixes: N images, B of them in a batch, C channels, H x W pixels, L labels.
"""

import copy
import math
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor, nn
from torch.nn.functional import cross_entropy, interpolate

from training.auto.frozen_features import build_extractor
from training.auto.fused_lite import FusedLite
from training.data.images.labelled_images import LabelledImages
from training.errors import DivergenceError
from training.fit.augment import augment, mix, relit
from training.fit.checkpoint import Checkpoint, CheckpointFolder
from training.fit.device_rows import DeviceRows
from training.fit.initialization.named_tensors import (
    load_optimizer,
    optimizer_tensors,
    prefixed,
    unprefixed,
)
from training.fit.initialization.pretrained import load_pretrained
from training.fit.optimizer import cpu_has_bf16
from training.progress import CandidateEpoch, Progress
from training.recipes.auto_recipe import AutoFineTuning, Extractor
from training.recipes.recipe import Augmentation
from training.statistics.closed_form import FeatureSpace
from training.statistics.discriminants import ClassScatter, Moments
from vision.networks.backbone import Backbone, build_backbone
from vision.networks.model_zoo import create_model
from vision.networks.normalization import Normalization

FOLDER: Final = "tuning"
TIMED: Final = 4  # steps that are timed, after one that is not
RISING: Final = 0.05  # share of all steps in which the rate rises
START_SHRINKAGE: Final = 0.5  # of the classifier's covariance
START_DEVIATION: Final = 2.0  # of its scores
MEASURED_MORE: Final = 1.15  # an epoch takes as much longer than its steps alone


@dataclass(frozen=True, slots=True)
class FineTuned:
    """A network that has learnt on."""

    backbone: Backbone  # on the CPU
    epochs: int
    seconds: float


class FineTuner:
    """One network that learns on from labelled images."""

    def __init__(
        self,
        extractor: Extractor,
        images: LabelledImages,
        positions: NDArray[np.int64],
        *,
        tuning: AutoFineTuning,
        folder: Path,
        device: torch.device,
        seed: int,
    ) -> None:
        """Prepare to learn from the images at ``positions``; ``folder`` is the training's."""
        self._extractor, self._images, self._tuning = extractor, images, tuning
        self._positions = positions
        self._pixels = DeviceRows(images.images_NCHW, device)
        self._places_N = torch.from_numpy(positions).to(device)
        self._labels_N = torch.from_numpy(images.labels_N[positions]).to(device)
        self._state = CheckpointFolder(folder / FOLDER)
        self._device, self._seed = device, seed
        whole = build_backbone(extractor.network, "penultimate")
        load_pretrained(
            whole, extractor.network, extractor.weights, sha256=extractor.weights_sha256
        )
        network = create_model(extractor.network)
        network.load_state_dict(whole.body.state_dict(), strict=False)  # without a classifier
        self._network = FusedLite(network.eval(), from_stage=tuning.from_stage).to(device)
        self._classifier = nn.Linear(whole.width, len(images.label_names)).to(device)
        nn.init.zeros_(self._classifier.weight)
        nn.init.zeros_(self._classifier.bias)
        fast = device.type == "cuda" or cpu_has_bf16()
        self._dtype = torch.bfloat16 if fast else torch.float32
        self._normalise = Normalization(extractor.preprocessing, device)
        self._augmentation = Augmentation(
            flip=True,
            crop=tuning.crop,
            scale=min(1.0, tuning.side / extractor.preprocessing.size),
            cutmix=1.0,
        )
        self._optimizer = torch.optim.AdamW(
            self._groups(), weight_decay=tuning.weight_decay, fused=True
        )
        self._rates = [float(group["lr"]) for group in self._optimizer.param_groups]
        self._steps = math.ceil(len(positions) / tuning.batch_size)  # of an epoch

    def epochs_in(self, left_s: float) -> int:
        """Return how many epochs there is time for, at most as many as are wanted.

        Those of an interrupted tuning are as many as they were.
        """
        with self._state as state:
            if state.exists():
                return int(state.load(self._subject()).state["epochs"])
        generator = Generator(self._device).manual_seed(self._seed)
        before = copy.deepcopy((self._network.state_dict(), self._optimizer.state_dict()))
        weights = copy.deepcopy(self._classifier.state_dict())
        took_s = math.inf
        rows = torch.arange(len(self._positions), device=self._device)[: self._tuning.batch_size]
        for number in range(TIMED + 1):
            began = time.perf_counter()
            (pixels,) = self._pixels.pick([self._places_N[rows]])
            self._step(pixels, rows, generator, rate=0.0, mixed=True).item()  # waits for the device
            if number:  # the first one is slower
                took_s = min(took_s, time.perf_counter() - began)
        self._network.load_state_dict(before[0])
        self._optimizer.load_state_dict(before[1])
        self._classifier.load_state_dict(weights)
        epoch_s = took_s * self._steps * MEASURED_MORE
        return min(self._tuning.epochs, int(left_s / epoch_s))

    def run(self, epochs: int, name: str, progress: Progress) -> FineTuned:
        """Learn for so many epochs, or for what is left of them, as the candidate ``name``.

        Raises:
            DivergenceError: the loss is no longer a number.
            CheckpointError: the state cannot be saved, or is of other images.
        """
        average = copy.deepcopy(self._network).eval()
        done, seconds = 0, 0.0
        with self._state as state:
            if state.exists():
                checkpoint = state.load(self._subject())
                done, seconds = checkpoint.state["done"], checkpoint.state["seconds"]
                self._restore(checkpoint, average)
            else:
                self._fit_classifier()
            for epoch in range(done, epochs):
                began = time.perf_counter()
                loss = self._epoch(epoch, epochs, average)
                seconds += time.perf_counter() - began
                state.save(self._checkpoint(epoch + 1, epochs, seconds, average))
                progress(CandidateEpoch(name, epoch + 1, epochs, loss))
        return FineTuned(self._backbone(average), epochs, seconds)

    @torch.no_grad()
    def _fit_classifier(self) -> None:
        """Let the classifier begin with what is best on the features as they are.

        A random one would first pull the network about (Kumar et al. 2022, arXiv:2202.10054).
        """
        self._network.eval()
        features: list[NDArray[np.float32]] = []
        parts = list(torch.split(self._places_N, self._tuning.batch_size))
        for pixels_BCHW in self._pixels.pick(parts):
            images_BCHW = self._normalise(pixels_BCHW)
            side = self._augmentation.side(images_BCHW.shape[-1])
            small_BCHW = interpolate(images_BCHW, (side, side), mode="bilinear", antialias=True)
            small_BCHW = small_BCHW.to(self._dtype).contiguous(memory_format=torch.channels_last)
            features.append(self._network(small_BCHW).cpu().numpy())
        features_NF = np.concatenate(features)
        space = FeatureSpace.of(features_NF)
        labels_N = self._images.labels_N[self._positions]
        classes = len(self._images.label_names)
        moments = Moments.of(space.transform(features_NF), labels_N, num_labels=classes)
        spread = ClassScatter(moments, features=space.features)
        scores = space.fold(spread.fit(START_SHRINKAGE, most=1).scores)
        seen_L = moments.counts_L > 0
        bias_L = np.where(seen_L, scores.bias_D - scores.bias_D[seen_L].mean(), 0)
        deviation = scores.of(features_NF)[:, seen_L].std()
        scale = START_DEVIATION / max(float(deviation), 1e-6)
        self._classifier.weight.copy_(torch.from_numpy(scores.weight_DF * scale))
        self._classifier.bias.copy_(torch.from_numpy(bias_L * scale))

    def _epoch(self, epoch: int, epochs: int, average: FusedLite) -> float:
        """Learn from every image once; return the mean loss, nats."""
        generator = Generator(self._device).manual_seed(self._seed * 1_000_003 + epoch)
        torch.manual_seed(self._seed * 1_000_003 + epoch)  # which blocks are left out
        order_N = torch.randperm(len(self._positions), generator=generator, device=self._device)
        host = Generator().manual_seed(self._seed * 1_000_003 + epoch)
        mixed = torch.rand(self._steps, generator=host) < self._tuning.mixed
        losses: list[Tensor] = []  # on the device: a step that told its own would wait for it
        # Batches of nearly equal size: however few images there are, all of them are learnt from.
        batches = list(torch.tensor_split(order_N, self._steps))
        pixels = self._pixels.pick([self._places_N[rows_B] for rows_B in batches])
        means = list[Tensor](average.parameters())
        values = list[Tensor](self._network.parameters())
        for number, (pixels_BCHW, rows_B, mixes) in enumerate(
            zip(pixels, batches, mixed.tolist(), strict=True)
        ):
            step = epoch * self._steps + number
            rate = _rate(step, epochs * self._steps)
            losses.append(self._step(pixels_BCHW, rows_B, generator, rate=rate, mixed=mixes))
            decay = min(self._tuning.average, (1 + step) / (10 + step))
            with torch.no_grad():
                torch._foreach_lerp_(means, values, 1 - decay)
        mean = float(torch.stack(losses).double().mean())
        if not math.isfinite(mean):
            raise DivergenceError(
                f"{self._extractor} learns no more: the loss of epoch {epoch + 1} is not a number"
            )
        return mean

    def _step(
        self, pixels_BCHW: Tensor, rows_B: Tensor, generator: Generator, *, rate: float, mixed: bool
    ) -> Tensor:
        """Learn from one batch; return the loss, nats, on the device."""
        tuning = self._tuning
        changed_BCHW = augment(pixels_BCHW, self._augmentation, generator)
        images_BCHW = self._normalise(relit(changed_BCHW.float(), generator))
        targets = self._labels_N[rows_B]
        if len(rows_B) > 1 and mixed:
            labels = len(self._images.label_names)
            images_BCHW, targets = mix(images_BCHW, targets, labels, self._augmentation, generator)
        for group, highest in zip(self._optimizer.param_groups, self._rates, strict=True):
            group["lr"] = highest * rate
        self._network.train()
        images_BCHW = images_BCHW.to(self._dtype).contiguous(memory_format=torch.channels_last)
        logits_BL = self._classifier(self._network(images_BCHW, tuning.drop))
        loss = cross_entropy(logits_BL, targets, label_smoothing=tuning.label_smoothing)
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self._optimizer.step()
        return loss.detach()

    def _groups(self) -> list[dict[str, Any]]:
        """Return the optimizer's groups: lower stages learn more slowly, the classifier faster."""
        tuning = self._tuning
        of_stage: dict[int, list[nn.Parameter]] = {}
        for stage, parameter in self._network.learning():
            of_stage.setdefault(stage, []).append(parameter)
        highest = max(of_stage)
        return [
            {"params": list(self._classifier.parameters()), "lr": tuning.head_rate},
            *(
                {"params": of_stage[stage], "lr": tuning.rate * tuning.decay ** (highest - stage)}
                for stage in sorted(of_stage, reverse=True)
            ),
        ]

    def _subject(self) -> dict[str, Any]:
        return {
            "recipe": {"extractor": str(self._extractor), **asdict(self._tuning)},
            "data": {"images": self._images.fingerprint, "learnt_from": len(self._positions)},
            # Another kind of device would draw other numbers.
            "random": {"seed": self._seed, "device": self._device.type},
        }

    def _checkpoint(self, done: int, epochs: int, seconds: float, average: FusedLite) -> Checkpoint:
        tensors = {
            **prefixed("network", self._network.state_dict()),
            **prefixed("classifier", self._classifier.state_dict()),
            **prefixed("average", average.state_dict()),
            **optimizer_tensors(self._optimizer),
        }
        state = {"done": done, "epochs": epochs, "seconds": seconds}
        return Checkpoint(self._subject(), state, tensors)

    def _restore(self, checkpoint: Checkpoint, average: FusedLite) -> None:
        tensors = checkpoint.tensors
        self._network.load_state_dict(unprefixed("network", tensors))
        self._classifier.load_state_dict(unprefixed("classifier", tensors))
        average.load_state_dict(unprefixed("average", tensors))
        load_optimizer(self._optimizer, tensors, self._optimizer.state_dict()["param_groups"])

    def _backbone(self, average: FusedLite) -> Backbone:
        """Return the extractor's network with what was learnt."""
        backbone = build_extractor(self._extractor)
        learnt = average.cpu().unfused()
        tensors = backbone.body.state_dict()
        tensors |= {name: tensor for name, tensor in learnt.items() if name in tensors}
        backbone.body.load_state_dict(tensors)
        return backbone.eval()


def is_started(folder: Path) -> bool:
    """Return whether a tuning in a training's folder was begun and can be gone on with."""
    return CheckpointFolder(folder / FOLDER).exists()


def _rate(step: int, steps: int) -> float:
    """Return the learning rate as a share of the highest: up in a line, down in half a cosine."""
    rising = RISING * steps
    if step < rising:
        return (step + 1) / (rising + 1)
    return (1 + math.cos(math.pi * (step - rising) / (steps - rising))) / 2
