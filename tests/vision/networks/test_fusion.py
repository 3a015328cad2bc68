"""Fewer passes over a map, the same numbers."""

import pytest
import torch
from torch import nn

from vision.image.preprocessing import Preprocessing
from vision.model.manifest import EMBEDDING_LAYER, Architecture
from vision.networks.fusion import (
    ConvolutionAndReLU,
    fused_layers,
    with_folded_normalisation,
    with_fused_relu,
)
from vision.networks.network import Network, build_network

SIDE = 64


def trained(name: str, *, channels: int = 3, **options: object) -> tuple[Network, torch.Tensor]:
    """Return a network whose normalisation has seen images, and some images."""
    layer = {"embedding_layer": EMBEDDING_LAYER, "width": 64} | options
    preprocessing = Preprocessing(
        size=SIDE, channels=channels, mean=(0.5,) * channels, std=(0.2,) * channels
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        architecture = Architecture(network=name, num_labels=10, **layer)  # type: ignore[arg-type]
        network = build_network(architecture, preprocessing).train()
        images_BCHW = torch.randn(4, channels, SIDE, SIDE)
        with torch.no_grad():
            network(images_BCHW)
    return network.eval(), images_BCHW


def backbone(name: str, layer: str, width: int) -> tuple[Network, torch.Tensor]:
    return trained(name, embedding_layer=layer, width=width, reduction="none")


def count(network: Network, kind: type[nn.Module]) -> int:
    return sum(isinstance(layer, kind) for layer in network.features.modules())


@pytest.mark.parametrize(
    ("made", "folded", "fused"),
    [
        (lambda: trained("cnn", channels=1), 7, 7),
        (lambda: trained("wide-resnet", channels=1), 13, 13),
        (lambda: backbone("torchvision:vgg11", "penultimate", 4096), 0, 8),
        (lambda: backbone("torchvision:vgg11_bn", "pool5", 512), 8, 8),
        (lambda: backbone("torchvision:resnet18", "penultimate", 512), 20, 9),
        (lambda: backbone("timm:resnet18", "penultimate", 512), 20, 1),
        (lambda: backbone("torchvision:vit_b_16", "penultimate", 768), 0, 0),
    ],
    ids=["cnn", "wide-resnet", "vgg", "vgg-bn, cut", "resnet", "timm", "vit"],
)
def test_vectors_stay_and_the_network_too(made: object, folded: int, fused: int) -> None:
    network, images_BCHW = made()  # type: ignore[operator]
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    normalisations = count(network, nn.BatchNorm2d)
    fewer = with_folded_normalisation(network)
    both = with_fused_relu(fewer)
    with torch.inference_mode():
        expected, _ = network(images_BCHW)
        for changed in (fewer, both):
            torch.testing.assert_close(changed(images_BCHW)[0], expected, atol=1e-5, rtol=0)

    assert normalisations - count(fewer, nn.BatchNorm2d) == folded
    assert fused_layers(both) == fused
    assert (fewer is network) == (not folded)
    assert (both is fewer) == (not fused)
    after = network.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())


class Branching(nn.Module):
    """A map that two layers read, a convolution used twice, and one that pads by reflection."""

    def __init__(self) -> None:
        super().__init__()
        self.read_twice = nn.Conv2d(3, 3, 1)
        self.used_twice = nn.Conv2d(3, 3, 1)
        self.reflecting = nn.Conv2d(3, 3, 3, padding=1, padding_mode="reflect")
        self.same = nn.Conv2d(3, 3, 3, padding="same")

    def forward(self, images_BCHW: torch.Tensor) -> torch.Tensor:
        maps = self.read_twice(images_BCHW)
        maps = torch.relu(maps) + maps
        maps = torch.relu(self.used_twice(torch.relu(self.used_twice(maps))))
        maps = torch.relu(self.reflecting(maps)) + torch.relu(self.same(maps))
        return maps.mean(dim=(2, 3))


def test_what_is_not_a_plain_pair_stays_apart() -> None:
    network = Network(Branching(), nn.Identity(), nn.Identity()).eval()

    assert with_fused_relu(network) is network


class Unforeseeable(nn.Module):
    def forward(self, images_BCHW: torch.Tensor) -> torch.Tensor:
        return images_BCHW if images_BCHW.sum() > 0 else -images_BCHW


def test_what_cannot_be_traced_stays() -> None:
    network = Network(Unforeseeable(), nn.Identity(), nn.Identity()).eval()

    assert with_folded_normalisation(network) is network


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_cudnn_does_both_as_one_and_looks_at_nothing_else(dtype: torch.dtype) -> None:
    layer = nn.Conv2d(3, 64, 3, padding=1).cuda().to(dtype).to(memory_format=torch.channels_last)
    images = torch.randn(8, 3, SIDE, SIDE, device="cuda", dtype=dtype)
    images = images.contiguous(memory_format=torch.channels_last)
    with torch.inference_mode():
        expected = torch.relu(layer(images)).float()
        torch.cuda.empty_cache()
        torch.full((2**26,), torch.nan, device="cuda")  # where the result will lie
        made = ConvolutionAndReLU(layer)(images).float()
    torch.testing.assert_close(made, expected, atol=3e-2, rtol=3e-2)
