"""What all rivals do around the network: our decoding and our answer; without torch.

Shape suffixes: C channels, H x W pixels, L labels.
"""

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vision.image.preprocessing import DRAFT_FACTOR, DRAFT_MIN_SIDE, Preprocessing

BEST = 5  # predictions in an answer


def answer(labels: Sequence[str], probabilities_L: NDArray[np.float32]) -> dict[str, Any]:
    """Return label, probability and the best predictions of one image."""
    best = np.argsort(-probabilities_L, kind="stable")[:BEST]
    predictions = [
        {"label": labels[row], "probability": float(probabilities_L[row])} for row in best
    ]
    return {**predictions[0], "predictions": predictions}


def pixels_of(
    preprocessing: Preprocessing, data: bytes | bytearray | Image.Image
) -> NDArray[np.uint8]:
    """Return the network's input (C, H, W), decoded as we do, JPEG's shrinking included."""
    image = data if isinstance(data, Image.Image) else Image.open(io.BytesIO(data))
    side = max(
        round(preprocessing.size / preprocessing.crop_fraction) * DRAFT_FACTOR, DRAFT_MIN_SIDE
    )
    image.draft("RGB", (side, side))
    return preprocessing.pixels(image.convert("RGB"))
