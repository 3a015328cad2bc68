"""Small models to train for tests, and callbacks that a training tells its progress to."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch

from training.distributed import ProcessGroup
from training.fit.objective import TrainableModel
from training.progress import EpochMetrics, Event, ImagesDone
from training.recipes.from_scratch import cnn
from training.recipes.recipe import Recipe
from vision.image.preprocessing import Preprocessing
from vision.networks.network import build_network

TINY = Preprocessing(size=14, channels=1, mean=(0.3,), std=(0.3,))
SMALL = replace(
    cnn(), preprocessing=TINY, width=8, metric_loss="none", label_smoothing=0.0, precision="fp32"
)


def small_trainable_model(
    recipe: Recipe, *, seed: int = 0, counts: tuple[int, ...] = (4, 4, 4)
) -> TrainableModel:
    """Return the learner of a recipe for three classes, with random weights."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = build_network(recipe.architecture(len(counts)), recipe.preprocessing)
        return TrainableModel(
            network, recipe, np.array(counts), ProcessGroup(0, 1, torch.device("cpu"))
        )


def press_ctrl_c(event: Event) -> None:
    """Interrupt the training after each epoch, when it is on disk."""
    if isinstance(event, EpochMetrics):
        raise KeyboardInterrupt


def images_done(calls: list[tuple[int, int]]) -> Callable[[Event], None]:
    """Return a callback that keeps how many images are done, and how many there are."""

    def tell(event: Event) -> None:
        if isinstance(event, ImagesDone):
            calls.append((event.done, event.total))

    return tell
