"""A network on its device in, how long images take it out."""

import time
from dataclasses import dataclass
from statistics import median
from typing import Final

import numpy as np
import torch

from training.recipes.recipe import Recipe
from vision.image.preprocessing import Preprocessing
from vision.inference.encoder import ImageEncoder
from vision.model.manifest import Architecture
from vision.networks.network import build_network

BATCH: Final = 64  # images
RUNS: Final = 30  # timed at most, of one image and of a batch
ENOUGH_S: Final = 1.0  # of timed runs; at least one
FORWARD_PIXELS: Final = 8 * 224**2  # of the photos that a network yet untrained is timed with
FORWARD_RUNS: Final = 2
BACKWARD: Final = 2.0  # of a forward pass, for the gradients


@dataclass(frozen=True, slots=True, kw_only=True)
class Speed:
    """Time from pixels to vectors in memory: medians, on a machine that may have other work."""

    device: str  # as torch names it
    threads: int  # inside one operation
    ms_one_image: float
    images_per_s: float  # in batches of 64


def measure_speed(encoder: ImageEncoder) -> Speed:
    """Time the network on noise; takes about two seconds."""
    return Speed(
        device=encoder.device_name,
        threads=torch.get_num_threads(),
        ms_one_image=1000 * median_s(encoder, 1),
        images_per_s=BATCH / median_s(encoder, BATCH),
    )


def median_s(encoder: ImageEncoder, images: int) -> float:
    """Return how many seconds ``images`` take at once; takes about one itself."""
    preprocessing = encoder.manifest.preprocessing
    shape = preprocessing.batch_shape(images)
    pixels_BCHW = np.random.default_rng(0).integers(256, size=shape, dtype=np.uint8)
    encoder.warm_up((images,))
    took: list[float] = []
    while len(took) < RUNS and sum(took) < ENOUGH_S:
        started = time.perf_counter()
        encoder.encode(pixels_BCHW)
        took.append(time.perf_counter() - started)
    return median(took)


def forward_s(architecture: Architecture, preprocessing: Preprocessing, device: str) -> float:
    """Return the seconds that one photo takes in a network yet untrained, in a usual batch."""
    with torch.random.fork_rng(devices=[]):
        network = build_network(architecture, preprocessing).eval().to(device)
    side, channels = preprocessing.size, preprocessing.channels
    batch = max(1, FORWARD_PIXELS // side**2)
    images_BCHW = torch.zeros((batch, channels, side, side), device=device)
    took: list[float] = []
    with torch.inference_mode():
        for _ in range(FORWARD_RUNS):  # the first one is slow; others, where the machine is busy
            started = time.perf_counter()
            network(images_BCHW)[0].cpu()  # waits for a GPU
            took.append(time.perf_counter() - started)
    return min(took) / batch


def learning_s(recipe: Recipe, images: int, labels: int, device: str) -> float:
    """Return about how many seconds a recipe takes to learn from so many images."""
    each_s = forward_s(recipe.architecture(labels), recipe.preprocessing, device)
    return images * each_s * recipe.epochs * (1 + BACKWARD)
