"""One epoch of training batches: shuffled, augmented, on the device, this process's share.

The images stay in memory as they are (uint8), on a GPU if they fit there; each batch is cut out and
changed as a whole, which costs 1 to 2 % of a training step of a small network, so no worker
processes are needed. A frozen backbone's features are computed once and take the images' place.
What is drawn is drawn on the device, and nothing waits for it; where the images lie elsewhere, the
order is fetched once an epoch.

Shape suffixes: V views, N images in all, B in a batch, C channels, H x W pixels, F features, U
of a unit.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Final

import numpy as np
import torch
from torch import Generator, Tensor, nn

from training.data.images.labelled_images import LabelledImages
from training.distributed import ProcessGroup
from training.errors import RecipeError
from training.fit.augment import augment, mix
from training.fit.device_rows import DeviceRows
from training.fit.optimizer import DTYPES
from training.fit.preflight import FEWEST_NORMALISED
from training.progress import ImagesDone, Progress
from training.recipes.recipe import Augmentation, Recipe
from vision.image.preprocessing import Preprocessing
from vision.inference.encoder import images_at_once
from vision.networks.network import Network
from vision.networks.normalization import Normalization

USUAL_PROCESSES: Final = 8  # that train together, at most


class Batches(ABC):
    """What an epoch learns from, in batches of nearly equal size."""

    def __init__(self, labels_N: Tensor, *, batch_size: int, processes: ProcessGroup) -> None:
        self._labels_N = labels_N.to(processes.device)
        self._batch_size = _whole_batch(batch_size, len(labels_N), processes)
        self._processes = processes

    def __len__(self) -> int:
        """Batches in a pass."""
        return _count(len(self._labels_N), self._batch_size, self._processes)

    @abstractmethod
    def shuffled(self, epoch: int, generator: Generator) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield this process's inputs and labels of every batch, once through."""

    @abstractmethod
    def in_order(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield every input once as it is, in order, with labels (B,); the last may be fewer."""

    def _shuffled_rows(self, generator: Generator) -> list[Tensor]:
        """Return the places of each batch's inputs, on the generator's device."""
        order_N = torch.randperm(len(self._labels_N), generator=generator, device=generator.device)
        return _deal(order_N, self._batch_size, self._processes)


class ImageBatches(Batches):
    """Cuts images into batches; every pass has a new order and new augmentations."""

    def __init__(
        self,
        images: LabelledImages,
        preprocessing: Preprocessing,
        augmentation: Augmentation,
        *,
        batch_size: int,
        processes: ProcessGroup,
    ) -> None:
        labels_N = torch.from_numpy(images.labels_N)
        super().__init__(labels_N, batch_size=batch_size, processes=processes)
        self._images = DeviceRows(images.images_NCHW, processes.device)
        self._num_labels = len(images.label_names)
        self._augmentation = augmentation
        self._normalise = Normalization(preprocessing, processes.device)

    def shuffled(self, epoch: int, generator: Generator) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield normalised images (B, C, H, W), channels last, and labels (B,) or shares (B, L)."""
        rows = self._shuffled_rows(generator)
        for batch_B, pixels_BCHW in zip(rows, self._images.pick(rows), strict=True):
            images_BCHW = augment(pixels_BCHW, self._augmentation, generator)
            labels_B = self._labels_N[batch_B]
            if not self._augmentation.mixes:
                shared_BCHW = self._processes.shard(images_BCHW)
                yield self._normalise(shared_BCHW), self._processes.shard(labels_B)
                continue
            normal_BCHW = self._normalise(images_BCHW)
            mixed_BCHW, shares_BL = mix(
                normal_BCHW, labels_B, self._num_labels, self._augmentation, generator
            )
            yield self._processes.shard(mixed_BCHW), self._processes.shard(shares_BL)

    def in_order(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield every image once as it is, in order; the last batch may be smaller."""
        for start in range(0, len(self._labels_N), self._batch_size):
            part = slice(start, start + self._batch_size)
            yield self._normalise(self._images.part(part)), self._labels_N[part]


class FeatureBatches(Batches):
    """Cuts features into batches; the epochs take turns with the views."""

    def __init__(
        self, features_VNF: Tensor, labels_N: Tensor, *, batch_size: int, processes: ProcessGroup
    ) -> None:
        super().__init__(labels_N, batch_size=batch_size, processes=processes)
        self.features_VNF = features_VNF  # on the CPU
        self._views = [
            DeviceRows(features_NF.numpy(), processes.device, of_bytes=features_VNF.nbytes)
            for features_NF in features_VNF
        ]

    def shuffled(self, epoch: int, generator: Generator) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield features (B, F) and labels (B,)."""
        view = self._views[(epoch - 1) % len(self._views)]
        mine = [self._processes.shard(batch_B) for batch_B in self._shuffled_rows(generator)]
        for mine_B, features_BF in zip(mine, view.pick(mine), strict=True):
            yield features_BF, self._labels_N[mine_B]

    def in_order(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the first view's features once, in order; the last batch may be smaller."""
        for start in range(0, len(self._labels_N), self._batch_size):
            part = slice(start, start + self._batch_size)
            yield self._views[0].part(part), self._labels_N[part]


def make_batches(
    network: Network,
    images: LabelledImages,
    recipe: Recipe,
    *,
    views: int,
    generator: Generator,
    processes: ProcessGroup,
    progress: Progress,
) -> Batches:
    """Return the images in batches; of a frozen backbone its features, of so many views of each.

    ``progress`` is told how many images it has embedded.
    """
    if not recipe.frozen:
        return ImageBatches(
            images,
            recipe.preprocessing,
            recipe.augmentation,
            batch_size=recipe.batch_size,
            processes=processes,
        )
    features_VNF = embed(
        network.features.eval(),
        images,
        recipe.preprocessing,
        recipe.augmentation,
        views=views,
        generator=generator,
        device=processes.device,
        precision=DTYPES[recipe.precision],
        progress=progress,
    )
    labels_N = torch.from_numpy(images.labels_N)
    return FeatureBatches(features_VNF, labels_N, batch_size=recipe.batch_size, processes=processes)


@torch.inference_mode()
def embed(
    backbone: nn.Module,
    images: LabelledImages,
    preprocessing: Preprocessing,
    augmentation: Augmentation,
    *,
    views: int,
    generator: Generator,
    device: torch.device,
    precision: torch.dtype,
    progress: Progress,
) -> Tensor:
    """Return what a frozen backbone makes of images: (V, N, F) float32 on the CPU.

    The first view is of the images as they are, the others of augmented copies.
    ``progress`` is told how many of all are done.
    """
    batch = images_at_once(preprocessing.size)
    mixed = torch.autocast(device.type, precision, enabled=precision != torch.float32)
    normalise = Normalization(preprocessing, device)
    features: list[Tensor] = []
    for view in range(views):
        for start in range(0, len(images), batch):
            rows = np.ascontiguousarray(images.images_NCHW[start : start + batch])
            images_BCHW = torch.from_numpy(rows).to(device)
            if view > 0:
                images_BCHW = augment(images_BCHW, augmentation, generator)
            with mixed:
                features_BF = backbone(normalise(images_BCHW))
            features.append(features_BF.float().cpu())
            done = view * len(images) + start + len(features_BF)
            progress(ImagesDone("embedding images", done, views * len(images)))
    return torch.cat(features).view(views, len(images), -1)


def _count(images: int, batch_size: int, processes: ProcessGroup) -> int:
    """Return how many batches images make that are of about that size at most."""
    units = images // _unit(batch_size, processes)
    return max(1, min(math.ceil(images / batch_size), units))


def _deal(order_N: Tensor, batch_size: int, processes: ProcessGroup) -> list[Tensor]:
    """Return batches of nearly equal size, each a multiple of the number of processes.

    All images are in one of them, but for what processes cannot share evenly: fewer than these are.
    """
    unit = _unit(batch_size, processes)
    whole = len(order_N) // unit * unit
    units_NU = order_N[:whole].view(-1, unit)
    count = _count(len(order_N), batch_size, processes)
    *batches, last_NU = torch.tensor_split(units_NU, count)  # the last one is the smallest
    rest = order_N[whole : len(order_N) // processes.size * processes.size]
    return [*(batch_NU.flatten() for batch_NU in batches), torch.cat([last_NU.flatten(), rest])]


def _unit(batch_size: int, processes: ProcessGroup) -> int:
    """Return how many images stay in one batch, whichever it is.

    The batches of 2, 4 or 8 processes are those of one. Of a batch of one image there is no mean
    to normalise by, so that there are two at least.
    """
    unit = math.gcd(batch_size, USUAL_PROCESSES)
    if unit == batch_size > FEWEST_NORMALISED:
        unit //= 2
    return math.lcm(unit, processes.size)


def _whole_batch(wanted: int, images: int, processes: ProcessGroup) -> int:
    """Return the batch size over all processes: a multiple of their number.

    Raises:
        RecipeError: the batch or the data cannot be shared out.
    """
    size = min(wanted, images) // processes.size * processes.size
    if size == 0 or wanted % processes.size:
        raise RecipeError(
            f"a batch of {min(wanted, images)} images cannot be shared by "
            f"{processes.size} processes"
        )
    return size
