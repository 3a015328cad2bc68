"""A batch of pixels in, unit vectors and class scores out: the one place that knows devices.

Shape suffixes: B images, C channels, H x W pixels, D vector width, L labels.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Final, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vision.errors import DeviceError
from vision.inference.encoder import Encoding, Runtime
from vision.model.manifest import Manifest
from vision.networks.network import Network
from vision.networks.normalization import Normalization
from vision.networks.saved_model import load_model


class TorchEncoder:
    """A trained network, ready on one device.

    Not for several threads at once: give it one lane.
    """

    batch_size: Final = 32

    def __init__(self, manifest: Manifest, network: Network, device: torch.device) -> None:
        self.manifest = manifest
        self.device = device
        self.device_name = str(device)
        self.runtime = Runtime(name="torch", precision="fp32")
        self.network = network.eval().to(device).to(memory_format=torch.channels_last)
        self._normalise = Normalization(manifest.preprocessing, device)

    @classmethod
    def load(cls, folder: Path, *, device: str = "auto") -> Self:
        """Return the encoder of a model folder on ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.

        Raises:
            ModelFolderError: the folder is missing, damaged, changed or of another version.
            DeviceError: there is no such device here.
        """
        chosen = pick_device(device)
        manifest, network = load_model(folder)
        return cls(manifest, network, chosen)

    @property
    def parameters(self) -> int:
        """Numbers in the network that were learnt."""
        return sum(parameter.numel() for parameter in self.network.parameters())

    @torch.inference_mode()
    def encode(self, pixels_BCHW: NDArray[np.uint8]) -> Encoding:
        """Return vectors (B, D) and probabilities (B, L) of pixels (B, C, H, W), B at least 1.

        A row depends on its own image only, up to rounding of about 1e-6.
        """
        # torch wants memory it may write to, in ascending order
        pixels = torch.from_numpy(np.require(pixels_BCHW, requirements=("C", "W")))
        normalised_BCHW = self._normalise(pixels.to(self.device, non_blocking=True))
        return self.of_features(self.network.features(normalised_BCHW))

    @torch.inference_mode()
    def of_features(self, features_BF: Tensor) -> Encoding:
        """Return what is said of images with these features, on the encoder's device."""
        vectors_BD, logits_BL = self.network.head(features_BF)
        probabilities_BL = torch.softmax(logits_BL.float() / self.manifest.temperature, dim=1)
        return Encoding(vectors_BD.float().cpu().numpy(), probabilities_BL.cpu().numpy())

    def warm_up(self, batch_sizes: Sequence[int]) -> None:
        """Run the network once per batch size, so that the first request pays for nothing."""
        for batch_size in batch_sizes:
            self.encode(np.zeros(self.manifest.preprocessing.batch_shape(batch_size), np.uint8))


def pick_device(name: str) -> torch.device:
    """Return the device called ``name``; ``auto`` is the first CUDA device, or the CPU without one.

    Raises:
        DeviceError: there is no such device here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise DeviceError(f"unknown device {name!r}; use auto, cpu, cuda or cuda:N") from error
    if device.type not in ("cpu", "cuda"):
        raise DeviceError(f"unknown device {name!r}; use auto, cpu, cuda or cuda:N")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise DeviceError(f"device {name!r} is not there: {torch.cuda.device_count()} CUDA devices")
    return device
