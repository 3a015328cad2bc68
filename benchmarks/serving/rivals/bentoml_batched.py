"""BentoML's adaptive batching: https://docs.bentoml.com/en/latest/get-started/adaptive-batching.html

A batchable service behind `bentoml.depends()`, with the batch size and latency of that page. The
front is `async` and calls `.to_async`, as the guide to distributed services shows: with a plain
method, that page says, one request is sent at a time, and nothing is batched.
"""

import os
from pathlib import Path
from typing import Any

import bentoml
import numpy as np
from PIL.Image import Image

from benchmarks.serving.rivals.classifier import Classifier
from benchmarks.serving.rivals.decoding import answer, pixels_of
from vision.model.manifest import read_manifest


@bentoml.service
class Network:
    """The network, for arrays."""

    def __init__(self) -> None:
        self.classifier = Classifier.from_environment()

    @bentoml.api(batchable=True, max_batch_size=32, max_latency_ms=1000)
    def probabilities(self, pixels: np.ndarray) -> np.ndarray:
        """Return probabilities (B, L) of pixels (B, C, H, W)."""
        return self.classifier.probabilities(pixels)


@bentoml.service
class Classify:
    """What clients talk to: decodes, and asks the other service."""

    network = bentoml.depends(Network)

    def __init__(self) -> None:
        manifest = read_manifest(Path(os.environ["MODEL"]))
        self.preprocessing, self.labels = manifest.preprocessing, manifest.labels

    @bentoml.api
    async def classify(self, image: Image) -> dict[str, Any]:
        """Return label, probability and predictions."""
        pixels_CHW = pixels_of(self.preprocessing, image)
        rows = await self.network.to_async.probabilities(pixels_CHW[np.newaxis])
        return answer(self.labels, rows[0])
