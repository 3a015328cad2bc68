"""Backbones: their layers, widths, reductions and refusals."""

import copy
import sys

import pytest
import torch
from torch import nn

from vision.image.preprocessing import Preprocessing
from vision.model.manifest import Architecture, Manifest
from vision.networks.backbone import Backbone, build_backbone, default_preprocessing
from vision.networks.network import build_network
from vision.networks.saved_model import load_model, save_model

IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
VGG19 = {  # what each layer gives, and the parameters up to it
    "pool1": (64, "features.2"),
    "pool2": (128, "features.7"),
    "pool3": (256, "features.16"),
    "pool4": (512, "features.25"),
    "pool5": (512, "features.34"),
    "fc6": (4096, "classifier.0"),
    "fc7": (4096, "classifier.3"),
    "penultimate": (4096, "classifier.3"),
}


@pytest.fixture(scope="module", autouse=True)
def _timm_is_here() -> None:
    pytest.importorskip("timm")


def images(side: int, count: int = 2) -> torch.Tensor:
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(0))


def on_meta(name: str, layer: str) -> Backbone:
    """Build without numbers: VGG-19 has 144 million of them."""
    with torch.device("meta"):
        return build_backbone(name, layer)


@pytest.mark.parametrize("layer", VGG19)
def test_every_layer_of_vgg19_has_its_width_and_nothing_behind_it(layer: str) -> None:
    width, last = VGG19[layer]
    backbone = on_meta("torchvision:vgg19", layer)

    assert backbone.width == width
    assert backbone(torch.empty(2, 3, 32, 32, device="meta")).shape == (2, width)
    assert list(backbone.state_dict())[-1] == f"body.{last}.bias"


@pytest.mark.parametrize("name", ["vgg11", "vgg11_bn", "vgg13", "vgg13_bn", "vgg16", "vgg16_bn"])
def test_the_friendly_names_fit_the_whole_vgg_family(name: str) -> None:
    widths = [on_meta(f"torchvision:{name}", layer).width for layer in ("pool1", "pool5", "fc6")]

    assert widths == [64, 512, 4096]


def test_a_friendly_name_is_the_layer_that_the_paper_means() -> None:
    torch.manual_seed(0)
    backbone = build_backbone("torchvision:vgg11", "pool3").eval()
    uncut = nn.Sequential(*[backbone.body.get_submodule(f"features.{n}") for n in range(11)])

    features_BF = backbone(images(32))

    expected_BF = uncut(images(32)).mean(dim=(2, 3))
    torch.testing.assert_close(features_BF, expected_BF, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("name", "width", "classifier"),
    [
        ("torchvision:resnet18", 512, "fc"),
        ("torchvision:squeezenet1_1", 512, "classifier"),
        ("torchvision:mobilenet_v3_small", 1024, "classifier.3"),
        ("torchvision:shufflenet_v2_x0_5", 1024, "fc"),
        ("torchvision:efficientnet_b0", 1280, "classifier"),
        ("torchvision:regnet_y_400mf", 440, "fc"),
        ("timm:tf_efficientnet_lite0", 1280, "classifier"),
        ("timm:resnet18", 512, "fc"),
        ("timm:mobilenetv3_small_050", 1024, "classifier"),
        ("timm:convnext_atto", 320, "head.fc"),
        ("timm:test_vit", 64, "head"),
    ],
)
def test_the_penultimate_layer_gives_one_row_per_image_and_learns(
    name: str, width: int, classifier: str
) -> None:
    backbone = build_backbone(name)
    side = 160 if name == "timm:test_vit" else 64

    features_BF = backbone(images(side))
    features_BF.square().sum().backward()

    assert features_BF.shape == (2, width)
    assert backbone.width == width
    assert not [key for key in backbone.body.state_dict() if key.startswith(f"{classifier}.")]
    assert all(parameter.grad is not None for parameter in backbone.parameters())


@pytest.mark.parametrize(
    ("name", "layer", "width"),
    [
        ("torchvision:resnet18", "layer2", 128),
        ("torchvision:resnet18", "layer4.1.relu", 512),
        ("torchvision:squeezenet1_1", "features.5", 128),
        ("torchvision:swin_t", "features.1", 96),  # channels last
        ("timm:tf_efficientnet_lite0", "blocks.3", 80),
        ("timm:test_vit", "blocks.0", 64),  # tokens
    ],
)
def test_a_layer_in_the_middle_is_averaged_to_one_row_per_image(
    name: str, layer: str, width: int
) -> None:
    backbone = build_backbone(name, layer)
    side = 160 if name == "timm:test_vit" else 64
    features_BF = backbone(images(side))
    features_BF.square().sum().backward()

    assert features_BF.shape == (2, width)
    assert all(parameter.grad is not None for parameter in backbone.parameters())
    assert all(
        key in backbone.full_shapes for key in backbone.body.state_dict() if "swin" not in name
    )


@pytest.mark.parametrize("layer", ["penultimate", "layer3"])
def test_a_copy_of_a_backbone_gives_the_same_rows_and_learns_alone(layer: str) -> None:
    backbone = build_backbone("torchvision:resnet18", layer).eval()
    backbone.body.get_submodule("layer1").train()
    twin = copy.deepcopy(backbone)
    torch.testing.assert_close(twin(images(32)), backbone(images(32)), rtol=0, atol=0)
    with torch.no_grad():
        next(twin.parameters()).zero_()
    assert twin.body.get_submodule("layer1.0.bn1").training
    assert not twin.body.get_submodule("layer2.0.bn1").training
    assert not torch.equal(twin(images(32)), backbone(images(32)))


def test_finding_the_width_draws_no_random_number_and_leaves_the_statistics() -> None:
    from vision.networks.backbone import _output_shapes  # noqa: PLC0415

    backbone = build_backbone("torchvision:mobilenet_v3_small")
    before, state = copy.deepcopy(backbone.state_dict()), torch.get_rng_state()

    assert _output_shapes(backbone.body, 64) == [(2, 1024)]

    assert backbone.training
    assert torch.equal(torch.get_rng_state(), state)
    for key, tensor in backbone.state_dict().items():
        torch.testing.assert_close(tensor, before[key], rtol=0, atol=0)


@pytest.mark.parametrize("name", ["googlenet", "inception_v3"])
def test_a_network_with_auxiliary_classifiers_has_one_output_while_it_learns(name: str) -> None:
    backbone = on_meta(f"torchvision:{name}", "penultimate").train()

    assert backbone(torch.empty(2, 3, 128, 128, device="meta")).shape == (2, backbone.width)
    assert not [key for key in backbone.body.state_dict() if key.lower().startswith("aux")]


@pytest.mark.parametrize(
    ("name", "layer", "sentence"),
    [
        ("torchvision:resnet19", "penultimate", "close to it are .*torchvision:resnet18"),
        ("timm:tf_efficientnet_lit0", "penultimate", "close to it are timm:tf_efficientnet_lite0"),
        ("torchvision:zzzz", "penultimate", "unknown network 'torchvision:zzzz'$"),
        ("timm:hf-hub:someone/something", "penultimate", "unknown network"),
        ("keras:vgg19", "penultimate", "expected torchvision:NAME or timm:NAME"),
        ("torchvision:resnet18", "layer9", "layers are penultimate, layer4, layer3, layer2"),
        ("torchvision:vgg11", "pool6", "layers are penultimate, pool1, .*, fc7"),
        ("timm:test_resnet", "blocks", "has no layer 'blocks'"),
    ],
)
def test_what_is_not_there_is_refused_with_what_is(name: str, layer: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        on_meta(name, layer)


def test_a_network_that_cannot_be_traced_has_its_penultimate_layer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import torchvision  # noqa: PLC0415

    def forward(self: nn.Module, x: torch.Tensor) -> torch.Tensor:
        if not isinstance(x, torch.Tensor):
            raise TypeError("not a tensor")  # as some networks' own code finds of a proxy
        return self._forward_impl(x)

    monkeypatch.setattr(torchvision.models.ResNet, "forward", forward)

    assert build_backbone("torchvision:resnet18").width == 512
    with pytest.raises(ValueError, match="'layer3': it cannot be traced, and has the layer 'penul"):
        build_backbone("torchvision:resnet18", "layer3")


def test_without_timm_the_way_to_get_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)

    with pytest.raises(ValueError, match="pip install timm"):
        build_backbone("timm:resnet18")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (
            "torchvision:vgg19",
            Preprocessing(size=224, channels=3, crop_fraction=0.875, **IMAGENET),
        ),
        (
            "torchvision:resnet18",
            Preprocessing(size=224, channels=3, crop_fraction=0.875, **IMAGENET),
        ),
        (
            "timm:tf_efficientnet_lite0",
            Preprocessing(
                size=224,
                channels=3,
                mean=(0.5, 0.5, 0.5),
                std=(0.5, 0.5, 0.5),
                crop_fraction=0.875,
                interpolation="bicubic",
            ),
        ),
    ],
)
def test_images_are_prepared_as_the_pretrained_weights_want_them(
    name: str, expected: Preprocessing
) -> None:
    assert default_preprocessing(name) == expected
    assert default_preprocessing(name, size=96).size == 96


def on(name: str, *, size: int = 32, channels: int = 3, **settings: object) -> tuple:
    fields = {"embedding_layer": "penultimate", "width": 16, "num_labels": 3, **settings}
    preprocessing = Preprocessing(
        size=size, channels=channels, mean=(0.5,) * channels, std=(0.5,) * channels
    )
    return Architecture(network=name, **fields), preprocessing


@pytest.mark.parametrize(
    ("reduction", "width", "embedding"),
    [
        ("none", 512, []),
        ("projection", 600, ["0.weight", "1.weight", "1.bias"]),
        ("pca", 16, ["weight", "bias"]),
    ],
)
def test_a_backbone_is_reduced_to_the_width_and_classified(
    reduction: str, width: int, embedding: list[str]
) -> None:
    network = build_network(*on("torchvision:resnet18", width=width, reduction=reduction)).eval()

    vectors_BD, logits_BL = network(images(32))

    assert vectors_BD.shape == (2, width)
    assert logits_BL.shape == (2, 3)
    assert [name for name, _ in network.embedding.named_parameters()] == embedding
    torch.testing.assert_close(vectors_BD.norm(dim=1), torch.ones(2))
    in_steps = network.head(network.features(images(32)))
    for ours, again in zip(in_steps, (vectors_BD, logits_BL), strict=True):
        torch.testing.assert_close(ours, again, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({}, "needs a reduction, one of none, projection, pca, item-and-kind; got None"),
        ({"reduction": "umap"}, "got 'umap'"),
        ({"reduction": "none", "width": 128}, "gives 512 numbers; .* the width cannot be 128"),
        ({"reduction": "pca", "width": 513}, "gives 512 numbers; .* cannot make 513"),
        ({"reduction": "pca", "width": 0}, "a width of at least 1"),
        ({"reduction": "pca", "channels": 1}, "looks at 3 channels, not 1"),
    ],
)
def test_a_reduction_that_does_not_fit_is_refused(
    settings: dict[str, object], sentence: str
) -> None:
    with pytest.raises(ValueError, match=sentence):
        build_network(*on("torchvision:resnet18", **settings))


def test_an_image_of_the_wrong_size_is_refused_before_anything_is_trained() -> None:
    with pytest.raises(
        ValueError, match="timm:vit_tiny_patch16_224 does not take images of 32 pixels"
    ):
        build_network(*on("timm:vit_tiny_patch16_224", reduction="projection"))


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("torchvision:shufflenet_v2_x0_5", "penultimate"),
        ("torchvision:squeezenet1_1", "features.5"),
        ("timm:test_resnet", "penultimate"),
        ("timm:test_resnet", "layer3"),
    ],
)
def test_a_saved_backbone_comes_back_as_it_was(name: str, layer: str, tmp_path) -> None:
    architecture, preprocessing = on(name, embedding_layer=layer, reduction="projection")
    network = build_network(architecture, preprocessing)
    network.train()(images(32))  # gives batch normalisation something to remember
    unbound = Manifest(
        name="backbone",
        architecture=architecture,
        labels=("a", "b", "c"),
        preprocessing=preprocessing,
        weights_sha256="",
        created="",
    )

    save_model(tmp_path / "model", unbound, network.state_dict())
    manifest, again = load_model(tmp_path / "model")

    assert manifest.architecture == architecture
    for ours, loaded in zip(network.eval()(images(32)), again(images(32)), strict=True):
        torch.testing.assert_close(ours, loaded, rtol=0, atol=0)


# Several layers


@pytest.mark.parametrize(
    ("name", "layers", "widths"),
    [
        ("torchvision:squeezenet1_1", "features.6+penultimate", [256, 512]),
        ("torchvision:vgg11", "pool2+pool5", [128, 512]),
        ("timm:tf_efficientnet_lite0", "blocks.3+blocks.4+penultimate", [80, 112, 1280]),
    ],
)
def test_several_layers_stand_side_by_side_with_equal_lengths(
    name: str, layers: str, widths: list[int]
) -> None:
    backbone = build_backbone(name, layers).eval()
    assert backbone.width == sum(widths)
    with torch.inference_mode():
        features_BF = backbone(torch.randn(2, 3, 64, 64))
    assert features_BF.shape == (2, sum(widths))
    for part_BF in features_BF.split(widths, dim=1):
        assert part_BF.norm(dim=1).square().mean() == pytest.approx(
            sum(widths) / len(widths), rel=0.01
        )


def test_one_of_several_layers_is_what_it_is_alone_but_for_its_length() -> None:
    images_BCHW = torch.randn(2, 3, 64, 64)
    both = build_backbone("torchvision:resnet18", "layer2+penultimate").eval()
    alone = build_backbone("torchvision:resnet18", "layer2").eval()
    alone.body.load_state_dict(
        {
            name: tensor
            for name, tensor in both.body.state_dict().items()
            if name in alone.body.state_dict()
        }
    )
    with torch.inference_mode():
        part_BF = both(images_BCHW)[:, :128]
        row_BF = alone(images_BCHW)
    expected = torch.nn.functional.normalize(row_BF, dim=1)
    assert torch.allclose(torch.nn.functional.normalize(part_BF, dim=1), expected, atol=1e-5)


@pytest.mark.parametrize("layers", ["layer2+layer2", "layer2+nowhere"])
def test_a_layer_named_twice_or_unknown_among_several_is_refused(layers: str) -> None:
    with pytest.raises(ValueError, match=r"names a layer twice|no layer 'nowhere'"):
        build_backbone("torchvision:resnet18", layers)
