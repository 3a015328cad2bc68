"""Many images through a network on a backbone: quick, and the same as torch says of them."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.support.models import item_and_kind, manifest, write_model
from vision.inference import feature_encoder
from vision.inference.bulk_encoder import BulkEncoder, fastest_encoder
from vision.inference.encoder import encode_all
from vision.inference.torch_encoder import TorchEncoder
from vision.networks.network import build_network
from vision.networks.saved_model import save_model

MANY = 10**6
IMAGES_NCHW = np.random.default_rng(0).integers(0, 256, (21, 3, 40, 40), np.uint8)


def encoder_of(folder: Path) -> TorchEncoder:
    architecture = item_and_kind(item_width=6, kind_width=3, kind_share=1 / 3, num_labels=10)
    unbound = replace(manifest(channels=3, size=40), architecture=architecture)
    torch.manual_seed(0)
    network = build_network(unbound.architecture, unbound.preprocessing)
    save_model(folder, unbound, network.state_dict())
    return TorchEncoder.load(folder, device="cpu")


def test_many_images_get_the_vectors_and_probabilities_that_torch_gives(tmp_path: Path) -> None:
    by_torch = encoder_of(tmp_path / "m")
    quick = fastest_encoder(by_torch, images=MANY)

    assert isinstance(quick, BulkEncoder)
    assert (quick.runtime.name, quick.runtime.precision) == ("openvino", "fp32")
    wanted = encode_all(by_torch, IMAGES_NCHW, batch=4)
    for batch in (len(IMAGES_NCHW), 5, 1):
        given = encode_all(quick, IMAGES_NCHW, batch=batch)
        np.testing.assert_allclose(given.vectors_BD, wanted.vectors_BD, atol=1e-4)
        np.testing.assert_allclose(given.probabilities_BL, wanted.probabilities_BL, atol=1e-4)
    assert given.vectors_BD.dtype == given.probabilities_BL.dtype == np.float32


def test_torch_takes_few_images_and_networks_of_our_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_backbone = encoder_of(tmp_path / "backbone")
    write_model(tmp_path / "own", channels=3, size=40)
    own = TorchEncoder.load(tmp_path / "own", device="cpu")
    assert fastest_encoder(on_backbone, images=1) is on_backbone
    assert fastest_encoder(own, images=MANY) is own

    def refuse(*_: object) -> None:
        raise RuntimeError("an operation that it does not know")

    monkeypatch.setattr(feature_encoder, "_graph", refuse)
    assert fastest_encoder(on_backbone, images=MANY) is on_backbone
