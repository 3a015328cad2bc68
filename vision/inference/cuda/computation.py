"""What is done with a batch on the device: pixels in, unit vectors and probabilities out."""

import torch

from vision.inference.cuda.buffers import BatchBuffers
from vision.model.manifest import Manifest
from vision.networks.network import Network
from vision.networks.normalization import Normalization
from vision.networks.precision import run_network


class Computation:
    """Normalises, runs a network, and scales its scores; all of it on the device."""

    def __init__(self, manifest: Manifest, precision: torch.dtype, device: torch.device) -> None:
        self._temperature = manifest.temperature
        self._precision = precision
        self._normalise = Normalization(manifest.preprocessing, device)

    def __call__(self, network: Network, batch: BatchBuffers, count: int) -> None:
        """Fill the first ``count`` answers of ``batch`` from its pixels."""
        normalised_BCHW = self._normalise(batch.pixels_BCHW[:count])
        vectors_BD, logits_BL = run_network(network, normalised_BCHW, self._precision)
        batch.vectors_BD[:count] = vectors_BD
        batch.probabilities_BL[:count] = torch.softmax(logits_BL / self._temperature, dim=1)
