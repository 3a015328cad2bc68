"""What a network says about a batch of images; knows no torch, so that everybody may name it.

Shape suffixes: B images, D vector width, L labels.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Encoding(NamedTuple):
    """Vectors and class probabilities, row by row in the order of the batch."""

    vectors_BD: NDArray[np.float32]  # unit length
    probabilities_BL: NDArray[np.float32]  # calibrated, each row sums to 1
