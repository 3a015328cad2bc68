"""BentoML with a PIL image: https://docs.bentoml.com/en/latest/build-with-bentoml/iotypes.html

One service, one worker, one thread: the guide's defaults.
"""

from typing import Any

import bentoml
import numpy as np
from PIL.Image import Image

from benchmarks.serving.rivals.classifier import Classifier


@bentoml.service
class Classify:
    """One image at a time."""

    def __init__(self) -> None:
        self.classifier = Classifier.from_environment()

    @bentoml.api
    def classify(self, image: Image) -> dict[str, Any]:
        """Return label, probability and predictions."""
        return self.classifier.answers(self.classifier.pixels(image)[np.newaxis])[0]
