"""Features of many images by OpenVINO, against torch's."""

import numpy as np
import pytest
import torch

from vision.image.preprocessing import Preprocessing
from vision.inference import feature_encoder as encoders
from vision.inference.feature_encoder import feature_encoder
from vision.networks.backbone import build_backbone

SEEN = Preprocessing(size=48, channels=3, mean=(0.5, 0.4, 0.6), std=(0.5, 0.3, 0.4))


@pytest.mark.parametrize("mirrored", [True, False])
def test_openvino_computes_what_torch_does(mirrored: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    backbone = build_backbone(
        "torchvision:shufflenet_v2_x0_5", "stage3+penultimate", mirrored=mirrored
    )
    images = np.random.default_rng(0).integers(0, 256, (150, 3, 48, 48), np.uint8)
    cpu = torch.device("cpu")
    by_torch = feature_encoder(backbone, SEEN, cpu, images=len(images)).encode(images)

    monkeypatch.setattr(encoders, "FEW_PIXELS", 0)
    quick = feature_encoder(backbone, SEEN, cpu, images=len(images))
    assert type(quick).__name__ == "_OpenVinoFeatures"
    told: list[int] = []
    np.testing.assert_allclose(quick.encode(images, told.append), by_torch, rtol=1e-3, atol=1e-3)
    assert told[-1] == len(images)
    np.testing.assert_array_equal(quick.encode(images), quick.encode(images))
