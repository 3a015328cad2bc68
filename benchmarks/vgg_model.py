"""A model folder of VGG-19 at 224 pixels with random weights, to measure what serving it costs.

    python -m benchmarks.vgg_model build/models/vgg19

The network of the recipe `vgg19-frozen` for 10 labels. The layers after the backbone are fitted to
some pictures, so that vectors and answers differ between pictures as a trained network's do.
"""

import argparse
import os
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import normalize

from benchmarks.serving.pictures import photo
from training.recipes.built_in import vgg19_frozen
from vision.export.export_model import export_model
from vision.export.variant_selection import ExportImages
from vision.image.preprocessing import Preprocessing
from vision.inference.torch_encoder import TorchEncoder
from vision.model.export_accuracy import LossLimits
from vision.model.manifest import Architecture, Manifest, read_manifest
from vision.networks.network import Network, build_network
from vision.networks.normalization import Normalization
from vision.networks.saved_model import save_model

LABELS = tuple(f"class {number}" for number in range(10))
PICTURES = range(1000, 1048)
CALIBRATION = range(2000, 2096)
TESTS = range(3000, 3064)
SHARPNESS = 8.0  # logits are about so many times cosines


def main() -> None:
    """Write the folder."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    print(write_vgg_model(parser.parse_args().out).fingerprint)


def write_vgg_model(folder: Path, *, seed: int = 0) -> Manifest:
    """Write the model folder and return its manifest; the same weights for the same seed."""
    recipe = vgg19_frozen()
    manifest = Manifest(
        name="vgg19-random",
        architecture=Architecture(
            network=recipe.network,
            embedding_layer=recipe.embedding_layer,
            width=recipe.width,
            num_labels=len(LABELS),
            reduction=recipe.reduction,
        ),
        labels=LABELS,
        preprocessing=recipe.preprocessing,
        weights_sha256="",
        created=datetime(2026, 1, 1, tzinfo=UTC).isoformat(),
        recipe={"name": "none: random weights"},
    )
    torch.manual_seed(seed)
    network = build_network(manifest.architecture, manifest.preprocessing).eval()
    _fit_head(network, manifest.preprocessing)
    saved = save_model(folder, manifest, network.state_dict())
    export_int8(folder)
    return saved


def export_int8(folder: Path) -> None:
    """Export the model; with random weights, accuracy means how often it agrees with torch."""
    preprocessing = read_manifest(folder).preprocessing
    calibration_NCHW, test_NCHW = (
        np.stack([preprocessing.pixels(preprocessing.decode(photo(n))) for n in numbers])
        for numbers in (CALIBRATION, TESTS)
    )
    encoder = TorchEncoder.load(folder, device="cpu")
    parts = np.array_split(test_NCHW, len(test_NCHW) // 8)
    labels = [encoder.encode(part).probabilities_BL.argmax(axis=1) for part in parts]
    sample = ExportImages(
        data="benchmarks.serving.pictures",
        calibration_NCHW=calibration_NCHW,
        test_NCHW=test_NCHW,
        labels_N=np.concatenate(labels),
    )
    # Weights without a meaning lose more than trained ones: this is for the speed.
    limits = LossLimits(min_cosine=0.95, max_accuracy_loss=0.2)
    threads = len(os.sched_getaffinity(0))
    made = export_model(
        folder, sample, precision="int8", limits=limits, threads=threads, report=print
    )
    print(made.difference)


@torch.inference_mode()
def _fit_head(network: Network, preprocessing: Preprocessing) -> None:
    """Let vectors spread around zero, and each label stand for one of the pictures."""
    pictures = [preprocessing.pixels(preprocessing.decode(photo(n))) for n in PICTURES]
    images_BCHW = Normalization(preprocessing, torch.device("cpu"))(
        torch.from_numpy(np.stack(pictures))
    )
    features_BF = torch.cat([network.features(part) for part in images_BCHW.split(8)])
    projection, normalisation = network.embedding
    projected_BD = projection(features_BF)
    normalisation.running_mean.copy_(projected_BD.mean(dim=0))
    normalisation.running_var.copy_(projected_BD.var(dim=0))
    embedded_BD = normalisation(projected_BD)
    vectors_BD = normalize(embedded_BD, dim=1)
    scale = SHARPNESS / embedded_BD.norm(dim=1).mean()
    network.classifier.weight.copy_(scale * vectors_BD[: len(LABELS)])
    network.classifier.bias.zero_()


if __name__ == "__main__":
    main()
