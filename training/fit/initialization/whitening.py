"""A new network and images in, the network with filters that whiten their patches out.

Shape suffixes: N images, C channels, H x W pixels.
"""

from typing import Final

import numpy as np
import torch

from training.data.images.labelled_images import LabelledImages
from vision.image.preprocessing import Preprocessing
from vision.networks.network import Network
from vision.networks.normalization import Normalization
from vision.networks.whitened_cnn import WhitenedCnn

LOOKED_AT: Final = 5000  # images at least, where there are as many, spread over all


def whiten(network: Network, images: LabelledImages, preprocessing: Preprocessing) -> None:
    """Give a network that begins with whitened patches the filters for these images."""
    if isinstance(network.features, WhitenedCnn):
        some_NCHW = images.images_NCHW[:: max(1, len(images) // LOOKED_AT)]
        pixels_NCHW = torch.from_numpy(np.ascontiguousarray(some_NCHW))
        network.features.whiten(Normalization(preprocessing, torch.device("cpu"))(pixels_NCHW))
