"""A trained network in, the same network as ONNX out.

The graph goes from pixels as they come to vectors and calibrated probabilities: scaling before and
softmax behind the network are part of it. It also gives the features, so that who reads it knows
where they end.

Shape suffixes: B images, C channels, H x W pixels, F features.
"""

import tempfile
import warnings
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn

from vision.errors import ExportError
from vision.model.manifest import Manifest
from vision.networks.backbone import Backbone
from vision.networks.network import Network
from vision.networks.normalization import Normalization

INPUT: Final = "pixels"
FEATURES: Final = "features"
OUTPUTS: Final = ("vectors", "probabilities", FEATURES)
TRACED: Final = 2  # images of the batch that is traced; 1 would be taken for a constant


def to_onnx(manifest: Manifest, network: Network) -> bytes:
    """Return ``network`` (on the CPU) from pixels (B, C, H, W) to ``OUTPUTS``.

    Raises:
        ExportError: torch cannot write it as ONNX.
    """
    shape = manifest.preprocessing.batch_shape(TRACED)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the exporter's, about itself
            program: Any = torch.onnx.export(
                _ExportedNetwork(manifest, network).eval(),
                (torch.zeros(shape, dtype=torch.uint8),),
                input_names=[INPUT],
                output_names=list(OUTPUTS),
                dynamic_shapes=[{0: "batch"}],
                dynamo=True,
                verbose=False,
            )
        with tempfile.TemporaryDirectory() as folder:
            program.save(Path(folder) / "network.onnx")
            return (Path(folder) / "network.onnx").read_bytes()
    except Exception as error:  # of torch's many compilers anything may come
        raise ExportError(
            f"{manifest.architecture.network} cannot be exported: {_first_line(error)}"
        ) from error


class _ExportedNetwork(nn.Module):
    """Everything between an image's pixels and what is said of it."""

    def __init__(self, manifest: Manifest, network: Network) -> None:
        super().__init__()
        self.network = network
        features = network.features
        self.features = features.forward_batched if isinstance(features, Backbone) else features
        self.normalise = Normalization(manifest.preprocessing, torch.device("cpu"))
        self.temperature = manifest.temperature

    def forward(self, pixels_BCHW: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        features_BF = self.features(self.normalise(pixels_BCHW))
        vectors_BD, logits_BL = self.network.head(features_BF)
        return vectors_BD, torch.softmax(logits_BL / self.temperature, dim=1), features_BF


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error) else ''}"
