"""The quick network to learn on with, against the network of timm that it is made of."""

import pytest
import timm
import torch
from torch import Tensor, nn

from training.auto.fused_lite import FusedLite


@pytest.fixture(scope="module")
def network() -> nn.Module:
    torch.manual_seed(0)
    made: nn.Module = timm.create_model("tf_efficientnet_lite0", pretrained=False).eval()
    for module in made.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.uniform_(-0.1, 0.1)  # type: ignore[union-attr,operator]
            module.running_var.uniform_(0.5, 1.5)  # type: ignore[union-attr,operator]
            nn.init.uniform_(module.bias, -0.1, 0.1)
    return made


def features(network: nn.Module, images: Tensor) -> Tensor:
    rows: Tensor = network.forward_features(images).mean(dim=(2, 3))  # type: ignore[operator]
    return rows


@pytest.mark.parametrize("side", [64, 75])
def test_it_computes_what_its_network_computes(network: nn.Module, side: int) -> None:
    images = torch.randn(2, 3, side, side)
    fused = FusedLite(network, from_stage=2).eval()
    with torch.no_grad():
        torch.testing.assert_close(fused(images), features(network, images), rtol=1e-3, atol=1e-4)


def test_its_gradients_are_those_of_its_network(network: nn.Module) -> None:
    images = torch.randn(2, 3, 64, 64)
    fused = FusedLite(network, from_stage=3).eval()
    fused(images).square().sum().backward()
    network.zero_grad()
    features(network, images).square().sum().backward()
    for name in ("blocks.3.0", "blocks.5.1", "blocks.6.0"):
        stage, block = (int(number) for number in name.split(".")[1:])
        layer = fused.stages[stage][block].layers[0]  # type: ignore[index]
        theirs = network.get_submodule(f"{name}.bn1").bias.grad
        torch.testing.assert_close(layer.bias.grad, theirs, rtol=1e-2, atol=1e-3)


def test_what_it_has_learnt_goes_back_into_its_network(network: nn.Module) -> None:
    images = torch.randn(2, 3, 64, 64)
    fused = FusedLite(network, from_stage=2)
    torch.manual_seed(1)
    with torch.no_grad():
        for _, parameter in fused.learning():
            parameter.add_(0.01 * torch.randn_like(parameter))
    again = timm.create_model("tf_efficientnet_lite0", pretrained=False).eval()
    again.load_state_dict(network.state_dict())
    missing, unknown = again.load_state_dict(fused.unfused(), strict=False)
    assert not unknown
    assert all(name.startswith("classifier") or "num_batches" in name for name in missing)
    with torch.no_grad():
        expected = fused.eval()(images)
        torch.testing.assert_close(features(again, images), expected, rtol=1e-3, atol=1e-4)
        assert not torch.allclose(expected, features(network, images), atol=1e-3)


def test_only_the_upper_stages_learn(network: nn.Module) -> None:
    fused = FusedLite(network, from_stage=4).train()
    fused(torch.randn(2, 3, 64, 64), drop=0.2).sum().backward()
    learning = {id(parameter) for _, parameter in fused.learning()}
    for parameter in fused.parameters():
        assert (parameter.grad is not None) == (id(parameter) in learning)
