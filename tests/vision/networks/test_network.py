"""Our own networks: parameters, unit vectors, heads, and what does not fit."""

import numpy as np
import pytest
import torch

from vision.image.preprocessing import Preprocessing
from vision.model.manifest import EMBEDDING_LAYER, Architecture
from vision.networks.network import Network, build_network
from vision.networks.wide_resnet import WideResNet


def network(
    name: str, *, width: int, size: int = 28, channels: int = 1, labels: int = 10
) -> Network:
    return build_network(
        Architecture(network=name, embedding_layer=EMBEDDING_LAYER, width=width, num_labels=labels),
        preprocessing(size, channels),
    )


def preprocessing(size: int, channels: int) -> Preprocessing:
    assert channels in (1, 3)
    return Preprocessing(
        size=size,
        channels=3 if channels == 3 else 1,
        mean=(0.5,) * channels,
        std=(0.5,) * channels,
    )


def parameters(of: Network) -> int:
    return sum(parameter.numel() for parameter in of.parameters())


def test_the_deck_network_has_the_published_number_of_parameters() -> None:
    assert parameters(network("deck-cnn", width=256)) == 278_218


def test_our_network_is_small() -> None:
    assert 100_000 < parameters(network("cnn", width=128)) < 500_000


@pytest.mark.parametrize(
    ("name", "width", "size", "channels", "labels"),
    [
        ("deck-cnn", 256, 28, 1, 10),
        ("deck-cnn", 256, 10, 3, 2),
        ("deck-cnn", 256, 45, 1, 3),
        ("cnn", 128, 28, 1, 10),
        ("cnn", 16, 13, 3, 2),
        ("cnn", 64, 65, 3, 101),
        ("whitened-cnn", 128, 28, 1, 10),
        ("whitened-cnn", 16, 10, 3, 2),
    ],
)
def test_vectors_are_of_unit_length_and_logits_one_per_label(
    name: str, width: int, size: int, channels: int, labels: int
) -> None:
    torch.manual_seed(0)
    model = network(name, width=width, size=size, channels=channels, labels=labels).eval()
    with torch.inference_mode():
        vectors_BD, logits_BL = model(torch.randn(4, channels, size, size))
    assert vectors_BD.shape == (4, width)
    assert logits_BL.shape == (4, labels)
    np.testing.assert_allclose(vectors_BD.norm(dim=1), 1.0, atol=1e-5)


@pytest.mark.parametrize("name", ["deck-cnn", "cnn"])
def test_a_black_image_has_a_unit_vector_too(name: str) -> None:
    torch.manual_seed(0)
    model = network(name, width=256).train()
    model(torch.randn(8, 1, 28, 28))  # gives batch normalisation something to remember
    with torch.inference_mode():
        vectors_BD, _ = model.eval()(torch.full((1, 1, 28, 28), -1.0))
    assert vectors_BD.norm().item() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("name", ["deck-cnn", "cnn"])
def test_an_image_keeps_its_vector_whatever_else_is_in_the_batch(name: str) -> None:
    torch.manual_seed(0)
    model = network(name, width=256).eval()
    images_BCHW = torch.randn(5, 1, 28, 28)
    with torch.inference_mode():
        together_BD, _ = model(images_BCHW)
        alone_1D, _ = model(images_BCHW[3:4])
    np.testing.assert_allclose(together_BD[3:4], alone_1D, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "width", "size", "layer", "sentence"),
    [
        (
            "vgg-91",
            128,
            28,
            EMBEDDING_LAYER,
            "known are cnn, deck-cnn, whitened-cnn, wide-resnet, torchvision:NAME",
        ),
        ("deck-cnn", 128, 28, EMBEDDING_LAYER, "deck-cnn has width 256, not 128"),
        ("deck-cnn", 256, 9, EMBEDDING_LAYER, "at least 10 pixels, not 9"),
        ("cnn", 128, 12, EMBEDDING_LAYER, "at least 13 pixels, not 12"),
        ("cnn", 0, 28, EMBEDDING_LAYER, "width of at least 1"),
        ("wide-resnet", 128, 15, EMBEDDING_LAYER, "at least 16 pixels, not 15"),
        ("whitened-cnn", 128, 9, EMBEDDING_LAYER, "at least 10 pixels, not 9"),
        ("cnn", 128, 28, "fc9", "has the embedding layer 'embedding', not 'fc9'"),
    ],
)
def test_what_does_not_fit_is_refused_with_a_sentence(
    name: str, width: int, size: int, layer: str, sentence: str
) -> None:
    architecture = Architecture(network=name, embedding_layer=layer, width=width, num_labels=10)
    with pytest.raises(ValueError, match=sentence):
        build_network(architecture, preprocessing(size, 1))


def test_our_own_networks_take_no_reduction() -> None:
    architecture = Architecture(
        network="cnn", embedding_layer=EMBEDDING_LAYER, width=8, num_labels=2, reduction="pca"
    )
    with pytest.raises(ValueError, match="the reduction 'pca' is for backbones"):
        build_network(architecture, preprocessing(28, 1))


@pytest.mark.parametrize("name", ["deck-cnn", "cnn"])
def test_the_head_makes_of_features_what_the_network_makes_of_images(name: str) -> None:
    model = network(name, width=256).eval()
    images_BCHW = torch.randn(3, 1, 28, 28)
    for whole, in_steps in zip(
        model(images_BCHW), model.head(model.features(images_BCHW)), strict=True
    ):
        torch.testing.assert_close(whole, in_steps, rtol=0, atol=0)


def test_the_wide_network_has_the_published_number_of_parameters() -> None:
    with torch.device("meta"):
        model = network("wide-resnet", width=128, channels=3, size=32)
        vectors_BD, logits_BL = model(torch.empty(2, 3, 32, 32))
    # Table 3 of the paper says 36.5 million for CIFAR-10, whose classifier reads the 640 directly.
    assert parameters(model) == 36_479_194 - 640 * 10 - 10 + 640 * 128 + 2 * 128 + 128 * 10 + 10
    assert vectors_BD.shape == (2, 128)
    assert logits_BL.shape == (2, 10)


@pytest.mark.parametrize(("channels", "size"), [(1, 16), (3, 17), (1, 28), (3, 33)])
def test_a_wide_network_takes_any_size_and_all_of_it_learns(channels: int, size: int) -> None:
    torch.manual_seed(0)
    model = WideResNet(channels, depth=10, widening=2)
    features_BF = model(torch.randn(2, channels, size, size))
    features_BF.square().sum().backward()
    assert features_BF.shape == (2, model.width)
    assert model.width == 128
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
