"""The same network and weights as ours, in torch: what all rivals run.

Shape suffixes: B images, C channels, H x W pixels, L labels.
"""

import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from benchmarks.serving.rivals.decoding import answer, pixels_of
from vision.inference.torch_encoder import pick_device
from vision.networks.normalization import Normalization
from vision.networks.saved_model import load_model


class Classifier:
    """A model folder's network in torch's eager mode, channels last as ours."""

    def __init__(self, folder: Path, *, device: str = "cpu") -> None:
        manifest, network = load_model(folder)
        self._device = pick_device(device)
        self._network = network.eval().to(self._device).to(memory_format=torch.channels_last)
        self._normalise = Normalization(manifest.preprocessing, self._device)
        self._temperature = manifest.temperature
        self.labels = manifest.labels
        self.preprocessing = manifest.preprocessing

    @classmethod
    def from_environment(cls) -> "Classifier":
        """Return that of the folder in MODEL on BENCHMARK_DEVICE, warmed up with a batch of 1."""
        device = os.environ.get("BENCHMARK_DEVICE", "cpu")
        classifier = cls(Path(os.environ["MODEL"]), device=device)
        side, channels = classifier.preprocessing.size, classifier.preprocessing.channels
        classifier.answers(np.zeros((1, channels, side, side), np.uint8))
        return classifier

    def pixels(self, data: bytes | Image.Image) -> NDArray[np.uint8]:
        """Return the network's input (C, H, W) of encoded bytes, or of a picture just opened."""
        return pixels_of(self.preprocessing, data)

    @torch.inference_mode()
    def vectors(self, pixels_BCHW: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return unit vectors (B, D)."""
        pixels = torch.from_numpy(pixels_BCHW).to(self._device)
        return self._network(self._normalise(pixels))[0].cpu().numpy()

    @torch.inference_mode()
    def probabilities(self, pixels_BCHW: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return calibrated probabilities (B, L)."""
        pixels = torch.from_numpy(pixels_BCHW).to(self._device)
        _, logits_BL = self._network(self._normalise(pixels))
        return torch.softmax(logits_BL / self._temperature, dim=1).cpu().numpy()

    def answers(self, pixels_BCHW: NDArray[np.uint8]) -> list[dict[str, Any]]:
        """Return the JSON answer to each image."""
        return [answer(self.labels, row_L) for row_L in self.probabilities(pixels_BCHW)]
