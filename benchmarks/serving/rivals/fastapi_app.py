"""FastAPI, one image at a time: https://fastapi.tiangolo.com/tutorial/request-files/"""

from typing import Annotated, Any

import numpy as np
from fastapi import FastAPI, File

from benchmarks.serving.rivals.classifier import Classifier

app = FastAPI()
classifier = Classifier.from_environment()


@app.post("/classify")
def classify(file: Annotated[bytes, File()]) -> dict[str, Any]:
    """Return label, probability and predictions; runs on one of FastAPI's threads."""
    return classifier.answers(classifier.pixels(file)[np.newaxis])[0]


@app.post("/classify_async")
async def classify_async(file: Annotated[bytes, File()]) -> dict[str, Any]:
    """Return label, probability and predictions; runs on the event loop."""
    return classifier.answers(classifier.pixels(file)[np.newaxis])[0]
