"""No step of a training waits for the device: whatever it draws, mixes, loses and averages."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from tests.support.galleries.labelled_gallery import labelled
from tests.support.learners import SMALL
from training.data.images.labelled_images import LabelledImages
from training.distributed import ProcessGroup
from training.fit.prepare_network import prepare
from training.fit.train_step import TrainStep
from training.fit.trainer import Trainer
from training.recipes.from_scratch import cnn_fast
from training.recipes.recipe import Augmentation, Recipe

LABELS = ("one", "two", "three")
# What a GPU must be done with before Python goes on: numbers, shapes that depend on them, copies.
WAITING_OPS = ("_local_scalar_dense", "nonzero", "masked_select", "equal", "_unique2", "unique_dim")
WAITING_CALLS = {"item", "tolist", "numpy", "cpu", "__bool__", "__int__", "__float__", "__index__"}

EVERY_CHANGE = Augmentation(flip=True, shift=2, crop=0.5, scale=0.9, erase=0.5)
LEARNT = replace(SMALL, batch_size=8, epochs=2, validation=0.0, average=0.9)
RECIPES = {
    "contrastive": replace(
        LEARNT, metric_loss="supervised-contrastive", metric_weight=0.5, augmentation=EVERY_CHANGE
    ),
    "cosface": replace(LEARNT, metric_loss="cosface", metric_weight=0.5, class_balance=0.5),
    "mixed": replace(LEARNT, augmentation=replace(EVERY_CHANGE, mixup=0.5, cutmix=1.0)),
    "fast": replace(
        cnn_fast(),
        preprocessing=SMALL.preprocessing,
        batch_size=8,
        validation=0.0,
        precision="bf16",
    ),
    "adam": replace(LEARNT, optimizer="adamw", precision="bf16", label_smoothing=0.1),
}


class RefuseWaits(TorchDispatchMode):
    """Refuses operations that a GPU would have to finish before Python goes on."""

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        name = function.overloadpacket.__name__
        by_mask = name in ("index", "index_put", "index_put_", "_index_put_impl_") and any(
            index is not None and index.dtype in (torch.bool, torch.uint8) for index in args[1]
        )
        if name in WAITING_OPS or by_mask:
            raise AssertionError(f"a step waits for the device: {function}")
        return function(*args, **(kwargs or {}))


class RefuseReading(TorchFunctionMode):
    """Refuses methods that take numbers of a tensor to Python."""

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        if getattr(function, "__name__", "") in WAITING_CALLS:
            raise AssertionError(f"a step waits for the device: {function.__name__}")
        return function(*args, **(kwargs or {}))


@contextmanager
def refused() -> Iterator[None]:
    with RefuseReading(), RefuseWaits():
        yield


def pictures(count: int = 40) -> LabelledImages:
    rng = np.random.default_rng(0)
    images_NCHW = rng.integers(0, 256, (count, 1, 14, 14)).astype(np.uint8)
    return labelled(images_NCHW, np.arange(count) % len(LABELS), LABELS)


def trainer_of(recipe: Recipe, device: str) -> Trainer:
    place = torch.device(device)
    torch.manual_seed(0)
    recipe, network = prepare(recipe, LABELS, place)
    return Trainer(recipe, network, pictures(), None, processes=ProcessGroup(0, 1, place))


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_a_step_reads_nothing_that_the_device_works_out(
    recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = trainer_of(recipe, "cpu")
    fetch = TrainStep.fetch
    with refused():
        monkeypatch.setattr(TrainStep, "fetch", without_modes(fetch))
        metrics = trainer.run_epoch()
    assert np.isfinite(metrics.loss)


def without_modes(fetch: Callable[[TrainStep], Any]) -> Callable[[TrainStep], Any]:
    """Return ``fetch``, the one place that waits, as it is without modes."""

    def fetched(step: TrainStep) -> Any:
        with torch._C.DisableTorchFunction(), torch.utils._python_dispatch._disable_current_modes():
            return fetch(step)

    return fetched


@pytest.mark.parametrize(
    "waits",
    [
        lambda rows: rows.sum().item(),
        lambda rows: rows.tolist(),
        lambda rows: rows.cpu(),
        lambda rows: float(rows.sum()),
        lambda rows: rows[rows > 0],
        lambda rows: rows.nonzero(),
        lambda rows: 1 if rows.any() else 0,
        lambda rows: torch.equal(rows, rows),
    ],
)
def test_what_waits_is_told(waits: Callable[[Tensor], Any]) -> None:
    with pytest.raises(AssertionError, match="waits for the device"), refused():
        waits(torch.ones(3))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_no_step_waits_for_a_gpu(recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = trainer_of(recipe, "cuda")
    trainer.run_epoch()  # libraries wait when they begin
    fetch = TrainStep.fetch

    def fetched(step: TrainStep) -> Any:
        torch.cuda.set_sync_debug_mode("default")
        try:
            return fetch(step)
        finally:
            torch.cuda.set_sync_debug_mode("error")

    monkeypatch.setattr(TrainStep, "fetch", fetched)
    torch.cuda.set_sync_debug_mode("error")
    try:
        trainer.run_epoch()
    finally:
        torch.cuda.set_sync_debug_mode("default")
