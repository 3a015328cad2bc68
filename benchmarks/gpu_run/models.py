"""Model folders with random weights: speed does not depend on them."""

from datetime import UTC, datetime
from pathlib import Path

import torch

from vision.image.preprocessing import Preprocessing
from vision.model.manifest import EMBEDDING_LAYER, Architecture, Manifest
from vision.networks.network import build_network
from vision.networks.saved_model import save_model

LABELS = tuple(f"label {number}" for number in range(10))
IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
CNN, VGG = "cnn", "vgg19"
MODELS = {
    CNN: (
        Architecture(
            network="cnn", embedding_layer=EMBEDDING_LAYER, width=128, num_labels=len(LABELS)
        ),
        Preprocessing(size=28, channels=1, mean=(0.286,), std=(0.353,)),
    ),
    VGG: (
        Architecture(
            network="torchvision:vgg19",
            embedding_layer="penultimate",
            width=4096,
            num_labels=len(LABELS),
            reduction="none",
        ),
        Preprocessing(size=224, channels=3, **IMAGENET),
    ),
}


def model_folder(folder: Path, name: str) -> Path:
    """Return the model folder ``name`` in ``folder``, written when it is not there yet."""
    path = folder / name
    if path.exists():
        return path
    architecture, preprocessing = MODELS[name]
    torch.manual_seed(0)
    network = build_network(architecture, preprocessing)
    unbound = Manifest(
        name=name,
        architecture=architecture,
        labels=LABELS,
        preprocessing=preprocessing,
        weights_sha256="",
        created=datetime.now(UTC).isoformat(),
        recipe={"name": "none: random weights"},
        metrics={},
    )
    save_model(path, unbound, network.state_dict())
    return path
