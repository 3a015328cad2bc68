"""Small models for tests, with random weights."""

import hashlib
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import torch

from vision.image.preprocessing import Preprocessing
from vision.model.manifest import MANIFEST_NAME, Architecture, Manifest, read_manifest
from vision.model.open_set import REFERENCES_NAME, REFERENCES_SHA256, OpenSetDetector
from vision.networks.network import build_network
from vision.networks.saved_model import save_model

LABELS = (
    *("coat", "sneaker", "bag", "dress", "hat"),
    *("boot", "shirt", "skirt", "scarf", "glove"),
)


def manifest(
    *,
    network: str = "deck-cnn",
    width: int = 256,
    size: int = 28,
    channels: int = 3,
    labels: tuple[str, ...] = LABELS,
) -> Manifest:
    """Return the manifest of a network for RGB images, not yet bound to weights."""
    return Manifest(
        name="test-model",
        architecture=Architecture(
            network=network, embedding_layer="embedding", width=width, num_labels=len(labels)
        ),
        labels=labels,
        preprocessing=Preprocessing(
            size=size, channels=channels, mean=(0.5,) * channels, std=(0.25,) * channels
        ),
        weights_sha256="",
        created=datetime(2026, 1, 1, tzinfo=UTC).isoformat(),
        recipe={"name": "none: random weights"},
        metrics={"test_accuracy": 0.1},
    )


def item_and_kind(
    *, item_width: int, kind_width: int, kind_share: float, num_labels: int = 5
) -> Architecture:
    """Return a small pretrained network's architecture with two-part vectors, mirrored."""
    return Architecture(
        network="torchvision:mobilenet_v3_small",
        embedding_layer="features.4+penultimate",
        width=item_width + kind_width,
        num_labels=num_labels,
        reduction="item-and-kind",
        item_width=item_width,
        kind_share=kind_share,
        mirrored=True,
    )


def write_model(folder: Path, *, seed: int = 0, **settings: object) -> Manifest:
    """Write a model folder with random weights; the same ones for the same seed."""
    unbound = manifest(**settings)  # type: ignore[arg-type]
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = build_network(unbound.architecture, unbound.preprocessing)
    return save_model(folder, unbound, network.state_dict())


def with_references(folder: Path, references: OpenSetDetector) -> Manifest:
    """Write the references into a model folder, as its manifest then says."""
    data = references.to_bytes()
    manifest = read_manifest(folder)
    manifest = replace(
        manifest, data={**manifest.data, REFERENCES_SHA256: hashlib.sha256(data).hexdigest()}
    )
    (folder / REFERENCES_NAME).write_bytes(data)
    (folder / MANIFEST_NAME).write_bytes(manifest.to_bytes())
    return manifest
