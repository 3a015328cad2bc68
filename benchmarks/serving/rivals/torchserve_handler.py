"""TorchServe's handler: https://docs.pytorch.org/serve/custom_service.html"""

from typing import Any

import numpy as np
from ts.torch_handler.base_handler import BaseHandler

from benchmarks.serving.rivals.classifier import Classifier


class Classify(BaseHandler):
    """Decodes the images of a batch, then runs the network on them."""

    def initialize(self, context: Any) -> None:
        """Load the network in the worker's process."""
        self.classifier = Classifier.from_environment()
        self.initialized = True

    def handle(self, data: list[dict[str, Any]], context: Any) -> list[dict[str, Any]]:
        """Return the answers to a batch."""
        bodies = [row.get("data") or row.get("body") for row in data]
        pixels_BCHW = np.stack([self.classifier.pixels(bytes(body)) for body in bodies])
        return self.classifier.answers(pixels_BCHW)
