"""How exactly a network computes: half the bits where the device is faster with them.

Only the features are computed in fewer bits; embedding, classifier and what follows stay in
float32. A network whose vectors suffer keeps float32 throughout.

Shape suffixes: B images, C channels, H x W pixels, D vector width, L labels.
"""

import logging
from copy import deepcopy
from typing import Final

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity

from vision.image.preprocessing import Preprocessing
from vision.networks.fusion import with_folded_normalisation
from vision.networks.network import Network
from vision.networks.normalization import Normalization

logger = logging.getLogger("lookalike.vision")
MIN_COSINE: Final = 0.999  # of an image's vectors in float32 and in fewer bits
PROBES: Final = 8  # images of noise to compare with
# Layers whose weights autocast would convert anew for every batch; VGG-19 has 0.5 GB of them.
CONVERTED: Final = (nn.Conv1d, nn.Conv2d, nn.Linear)


def fastest_precision(
    network: Network, preprocessing: Preprocessing, capability: tuple[int, int]
) -> tuple[Network, torch.dtype]:
    """Return the network for a GPU of this compute capability, and the precision of its features.

    That is float32, and ``network`` itself, if fewer bits would change its vectors too much. In
    fewer bits batch normalisation is folded into the convolutions.
    """
    precision = gpu_precision(capability)
    if precision is torch.float32:
        return network, precision
    device = next(network.parameters()).device
    shape = preprocessing.batch_shape(PROBES)
    noise_BCHW = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    normalise = Normalization(preprocessing, device)
    other = in_precision(with_folded_normalisation(network), precision)
    cosine = lowest_cosine(
        network, other, normalise(torch.from_numpy(noise_BCHW).to(device)), precision
    )
    if cosine < MIN_COSINE:
        logger.warning(
            "using float32: in %s vectors have a cosine of only %.4f to its own", precision, cosine
        )
        return network, torch.float32
    return other, precision


def gpu_precision(capability: tuple[int, int]) -> torch.dtype:
    """Return in what a GPU of this compute capability is fast: (8, 0) is Ampere, (7, 0) Volta.

    bfloat16 goes first: it reaches as far as float32, so no network overflows in it.
    """
    if capability >= (8, 0):
        return torch.bfloat16
    if capability >= (7, 0):
        return torch.float16
    return torch.float32


def in_precision(network: Network, precision: torch.dtype) -> Network:
    """Return a copy whose features hold their large weights in ``precision``."""
    copy = deepcopy(network)
    for layer in copy.features.modules():
        if isinstance(layer, CONVERTED):
            layer.to(precision)
    return copy


def run_network(
    network: Network, normalised_BCHW: Tensor, precision: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Return float32 unit vectors (B, D) and logits (B, L), the features made in ``precision``."""
    fewer_bits = precision is not torch.float32
    # Its cache of converted weights lives as long as one block: there is nothing to keep here.
    with torch.autocast(
        normalised_BCHW.device.type,
        dtype=precision if fewer_bits else None,
        enabled=fewer_bits,
        cache_enabled=False,
    ):
        features_BF = network.features(normalised_BCHW)
    return network.head(features_BF.float())


@torch.inference_mode()
def lowest_cosine(
    network: Network, other: Network, normalised_BCHW: Tensor, precision: torch.dtype
) -> float:
    """Return the least cosine between vectors of ``network`` in float32 and of ``other``.

    It is 0 if any of them is not finite.
    """
    exact_BD, _ = run_network(network, normalised_BCHW, torch.float32)
    vectors_BD, logits_BL = run_network(other, normalised_BCHW, precision)
    if not (vectors_BD.isfinite().all() and logits_BL.isfinite().all()):
        return 0.0
    return float(cosine_similarity(exact_BD, vectors_BD).min())
