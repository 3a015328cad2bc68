"""A network by torch in, the quickest way to encode many images with it out.

The same vectors and probabilities up to rounding, in a fraction of the time. For measuring: a
server answers with the model's export, or with torch.

Shape suffixes: B images, C channels, H x W pixels.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from vision.inference.encoder import Encoding, ImageEncoder, Runtime
from vision.inference.feature_encoder import FeatureEncoder, openvino_features
from vision.inference.openvino_encoder import RUNTIME
from vision.inference.torch_encoder import TorchEncoder
from vision.networks.backbone import Backbone


def fastest_encoder(encoder: ImageEncoder, *, images: int) -> ImageEncoder:
    """Return what encodes about so many ``images`` the quickest; ``encoder`` where that is it."""
    if not isinstance(encoder, TorchEncoder):
        return encoder
    backbone = encoder.network.features
    if not isinstance(backbone, Backbone):
        return encoder
    preprocessing = encoder.manifest.preprocessing
    features = openvino_features(backbone, preprocessing, encoder.device, images=images)
    return encoder if features is None else BulkEncoder(encoder, features)


class BulkEncoder:
    """A network on a backbone: features by OpenVINO in float32, what follows by torch.

    Not for several threads at once; one call keeps all cores busy, if it is given many images.
    """

    batch_size: Final = 512  # it divides them itself
    device_name: Final = "cpu"
    runtime: Final = Runtime(name=RUNTIME, precision="fp32")

    def __init__(self, encoder: TorchEncoder, features: FeatureEncoder) -> None:
        self.manifest = encoder.manifest
        self._encoder, self._features = encoder, features

    def encode(self, pixels_BCHW: NDArray[np.uint8]) -> Encoding:
        """Return vectors (B, D) and probabilities (B, L) of pixels (B, C, H, W), B at least 1."""
        return self._encoder.of_features(torch.from_numpy(self._features.encode(pixels_BCHW)))

    def warm_up(self, batch_sizes: Sequence[int]) -> None:
        """Do nothing: it was compiled when it was made."""
