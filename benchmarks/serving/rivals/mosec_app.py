"""mosec: https://mosecorg.github.io/mosec/examples/pytorch.html#computer-vision

In two stages, one process that decodes and one that runs the network on batches, or in one.
"""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
from mosec import Server, Worker

from benchmarks.serving.rivals.classifier import Classifier
from benchmarks.serving.rivals.decoding import pixels_of
from vision.model.manifest import read_manifest

BATCH = 32
WAIT_MS = 1  # for a batch to fill, mosec's least


class Preprocess(Worker):
    """Image bytes to pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.preprocessing = read_manifest(Path(os.environ["MODEL"])).preprocessing

    def deserialize(self, data: bytes) -> bytes:
        """Return the body as it came."""
        return data

    def forward(self, data: bytes) -> np.ndarray:
        """Return pixels (C, H, W)."""
        return pixels_of(self.preprocessing, data)


class Inference(Worker):
    """Pixels to answers."""

    def __init__(self) -> None:
        super().__init__()
        self.classifier = Classifier.from_environment()

    def forward(self, data: list[np.ndarray]) -> list[dict[str, Any]]:
        """Return the answers to a batch."""
        return self.classifier.answers(np.stack(data))

    def serialize(self, data: dict[str, Any]) -> bytes:
        """Return an answer as JSON."""
        return json.dumps(data).encode()


class Whole(Inference):
    """Image bytes to answers."""

    def deserialize(self, data: bytes) -> bytes:
        """Return the body as it came."""
        return data

    def forward(self, data: list[bytes]) -> list[dict[str, Any]]:
        """Return the answers to a batch."""
        return self.classifier.answers(np.stack([self.classifier.pixels(d) for d in data]))


def main() -> None:
    """Serve in STAGES stages: two as mosec's example, or one of as many processes as cores."""
    server = Server()
    if os.environ["STAGES"] == "2":
        server.append_worker(Preprocess, num=1)
        server.append_worker(Inference, num=1, max_batch_size=BATCH, max_wait_time=WAIT_MS)
    else:
        # On two cores this took a sixth less processor time for each request than two stages.
        cores = len(os.sched_getaffinity(0))
        server.append_worker(Whole, num=cores, max_batch_size=BATCH, max_wait_time=WAIT_MS)
    server.run()


if __name__ == "__main__":
    main()
