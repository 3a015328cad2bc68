"""LitServe with batching: https://lightning.ai/docs/litserve/features/batching"""

import os
from typing import Any

import litserve
import numpy as np
from fastapi import Request

from benchmarks.serving.rivals.classifier import Classifier
from benchmarks.serving.rivals.decoding import answer


class Classify(litserve.LitAPI):
    """Decodes in the worker, image by image, then runs the batch."""

    def setup(self, device: str) -> None:
        """Load the network in the worker's process."""
        self.classifier = Classifier.from_environment()

    def decode_request(self, request: Request) -> np.ndarray:
        """Return the pixels of an uploaded file."""
        return self.classifier.pixels(request["image"].file.read())

    def predict(self, x: np.ndarray) -> np.ndarray:
        """Return probabilities (B, L)."""
        return self.classifier.probabilities(x)

    def encode_response(self, output: np.ndarray) -> dict[str, Any]:
        """Return label, probability and predictions."""
        return answer(self.classifier.labels, output)


if __name__ == "__main__":
    # One worker, which is the default; the guide waits 0.01 to 0.05 s for a batch to fill.
    api = Classify(max_batch_size=32, batch_timeout=0.01)
    server = litserve.LitServer(api, accelerator="cpu")
    server.run(host="127.0.0.1", port=int(os.environ["PORT"]), generate_client_file=False)
