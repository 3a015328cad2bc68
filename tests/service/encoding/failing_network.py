"""A network that fails by the image: there is no memory for a gray one, and a white one ends it."""

import sys
from pathlib import Path
from typing import Final

import numpy as np

from benchmarks.serving.front.stand_in import StandInEncoder
from service.config import ServiceSettings
from service.encoding.program import run
from vision.errors import DeviceLostError, DeviceMemoryError
from vision.inference.encoder import Encoding

GRAY: Final = 200
WHITE: Final = 255


class FailingEncoder(StandInEncoder):
    """The stand-in, but for images that are all gray or all white."""

    def _answer(self, pixels_BCHW: np.ndarray) -> Encoding:
        means_B = pixels_BCHW.mean(axis=(1, 2, 3))
        if (means_B == GRAY).any():
            raise DeviceMemoryError("the GPU has no memory left for an image")
        if (means_B == WHITE).any():
            raise DeviceLostError("the GPU no longer answers")
        return super()._answer(pixels_BCHW)


if __name__ == "__main__":
    socket, folder = int(sys.argv[1]), Path(sys.argv[2])
    sys.exit(run(socket, lambda: FailingEncoder(folder), ServiceSettings.from_environment()))
