"""What torchvision and timm publish: names, tags, and how images are prepared for each."""

from dataclasses import replace
from typing import Any

import pytest
import safetensors.torch
import torch
import torchvision.models as torchvision_models

from training.errors import RecipeError, WeightsError
from training.fit.initialization.pretrained import load_pretrained
from training.fit.prepare_network import prepare
from training.recipes.built_in import backbone_finetune, backbone_frozen, pick_recipe
from vision.networks.backbone import build_backbone, default_preprocessing, default_weights
from vision.networks.model_zoo import create_model, published_weights, split_name

ALL: list[tuple[str, str]] = [
    (network, weights)
    for network in torchvision_models.list_models(module=torchvision_models)
    for weights in torchvision_models.get_model_weights(network).__members__
]
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _timm_is_here() -> None:
    pytest.importorskip("timm")


def test_every_weights_of_torchvision_bring_their_own_preprocessing() -> None:
    assert len(ALL) > 150
    for network, weights in ALL:
        transforms: Any = torchvision_models.get_model_weights(network)[weights].transforms()
        ours = default_preprocessing(f"torchvision:{network}", weights=weights)
        assert ours.size == transforms.crop_size[0], (network, weights)
        assert ours.crop_fraction == pytest.approx(
            min(1.0, transforms.crop_size[0] / transforms.resize_size[0])
        )
        assert list(ours.mean) == list(transforms.mean)
        assert list(ours.std) == list(transforms.std)
        assert ours.interpolation == transforms.interpolation.value


def test_the_second_weights_of_a_network_are_prepared_for_otherwise_than_the_first() -> None:
    first = backbone_frozen("torchvision:resnet50")
    second = backbone_frozen("torchvision:resnet50", "IMAGENET1K_V2")
    best = backbone_finetune("torchvision:resnet50", "DEFAULT")
    assert (first.weights, second.weights) == ("IMAGENET1K_V1", "IMAGENET1K_V2")
    of_v1 = default_preprocessing("torchvision:resnet50")
    of_v2 = default_preprocessing("torchvision:resnet50", weights="IMAGENET1K_V2")
    assert (of_v1.crop_fraction, of_v2.crop_fraction) == (224 / 256, 224 / 232)
    whole = {"fit": "pad", "crop_fraction": 1.0}  # the whole picture, whatever the weights say
    assert second.preprocessing == replace(of_v2, **whole)
    assert best.preprocessing == second.preprocessing


def test_a_network_without_first_weights_takes_its_best() -> None:
    assert default_weights("torchvision:resnet50") == "IMAGENET1K_V1"
    for network in torchvision_models.list_models(module=torchvision_models):
        assert default_weights(f"torchvision:{network}") in published_weights(network)
    recipe = backbone_frozen("torchvision:regnet_y_128gf")
    assert recipe.weights == "IMAGENET1K_SWAG_E2E_V1"
    assert (recipe.preprocessing.size, recipe.preprocessing.interpolation) == (384, "bicubic")


def test_a_transformer_of_torchvision_is_made_for_the_size_of_its_weights(tmp_path: Any) -> None:
    name, weights = "torchvision:vit_b_16", "IMAGENET1K_SWAG_E2E_V1"
    assert backbone_frozen(name, weights).preprocessing.size == 384
    torch.manual_seed(0)
    state = create_model(name, side=384).state_dict()
    path = tmp_path / "swag.safetensors"
    safetensors.torch.save_file(state, path)
    backbone = build_backbone(name, side=384)
    load_pretrained(backbone, name, str(path))
    key = "encoder.pos_embedding"
    assert torch.equal(backbone.body.state_dict()[key], state[key])
    with pytest.raises(WeightsError, match="position embeddings are for one size of image"):
        load_pretrained(build_backbone(name, side=224), name, str(path))


# timm


@pytest.mark.parametrize(
    ("name", "size", "mean", "interpolation"),
    [
        ("timm:vit_small_patch14_dinov2.lvd142m", 518, (0.485, 0.456, 0.406), "bicubic"),
        ("timm:vit_small_patch14_dinov2", 518, (0.485, 0.456, 0.406), "bicubic"),
        ("timm:resnet50.tv_in1k", 224, (0.485, 0.456, 0.406), "bilinear"),
        ("timm:resnet50.a1_in1k", 224, (0.485, 0.456, 0.406), "bicubic"),
        (
            "timm:vit_base_patch16_clip_224.openai",
            224,
            (0.48145466, 0.4578275, 0.40821073),
            "bicubic",
        ),
        ("timm:convnext_tiny.in12k_ft_in1k_384", 384, (0.485, 0.456, 0.406), "bicubic"),
    ],
)
def test_a_tag_of_timm_decides_how_images_are_prepared(
    name: str, size: int, mean: tuple[float, ...], interpolation: str
) -> None:
    recipe = pick_recipe("backbone-frozen", "photos", backbone=name)
    assert recipe.network == name
    assert recipe.weights == "pretrained"
    assert recipe.preprocessing.size == size
    assert recipe.preprocessing.mean == mean
    assert recipe.preprocessing.interpolation == interpolation
    assert recipe.preprocessing.fit == "pad"


def test_every_weights_of_timm_for_rgb_have_a_preprocessing() -> None:
    import timm  # noqa: PLC0415

    unknown = []
    for model in timm.list_pretrained():
        config = timm.get_pretrained_cfg(model)
        try:
            ours = default_preprocessing(f"timm:{model}")
        except ValueError:
            unknown.append(config.input_size)
            continue
        assert ours.size == config.input_size[-1]
        assert ours.mean == tuple(config.mean)
        assert ours.std == tuple(config.std)
        assert ours.crop_fraction == min(1.0, config.crop_pct)
    assert all(size[0] != 3 or size[1] != size[2] for size in unknown)


def test_weights_from_a_file_fill_a_network_with_a_tag(tmp_path: Any) -> None:
    name = "timm:test_vit.r160_in1k"
    torch.manual_seed(1)
    state = create_model(name).state_dict()
    path = tmp_path / "tagged.safetensors"
    safetensors.torch.save_file(state, path)
    recipe = replace(backbone_frozen(name), weights=str(path))
    ready, network = prepare(recipe, ("a", "b"), CPU)
    body = network.features.body  # type: ignore[union-attr]
    assert torch.equal(body.state_dict()["pos_embed"], state["pos_embed"])  # type: ignore[operator,union-attr]
    assert ready.architecture(2).network == name


# Names and sizes that are not there


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        (
            "timm:vit_small_patch14_dinov2.lvd142",
            "no weights with the tag 'lvd142'; tags .* lvd142m",
        ),
        ("timm:resnet50.nope", "tags of timm:resnet50 are a1_in1k, a1h_in1k"),
        ("timm:vit_smal_patch14_dinov2.lvd142m", "close to it are timm:vit_small_patch14_dinov2"),
        ("timm:ResNet50", "close to it are timm:resnet50"),
        ("torchvision:ResNet50", "close to it are torchvision:resnet50"),
        (
            "torchvision:resnet50.IMAGENET1K_V2",
            "--backbone torchvision:resnet50 --weights IMAGENET1K_V1 .or IMAGENET1K_V2",
        ),
        ("torchvision:vgg19.", "weights are named apart"),
        ("timm:", "unknown network"),
        ("resnet50", "expected torchvision:NAME or timm:NAME"),
    ],
)
def test_a_name_that_is_not_there_is_answered_with_the_nearest(name: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        split_name(name)


@pytest.mark.parametrize(
    ("name", "size", "sentence"),
    [
        ("timm:vit_small_patch14_dinov2.lvd142m", 224, "images of 224 pixels, only of 518"),
        ("torchvision:vit_b_16", 100, "sides are multiples of 16 pixels, not of 100"),
        ("torchvision:maxvit_t", 128, "images of 128 pixels, only of 224"),
        ("torchvision:alexnet", 32, "images of 32 pixels, it was made for 224"),
        ("torchvision:inception_v3", 32, "images of 32 pixels, it was made for 224"),
    ],
)
def test_a_size_that_a_network_does_not_take_is_a_sentence(
    name: str, size: int, sentence: str
) -> None:
    recipe = replace(backbone_frozen(name), weights=None)
    recipe = replace(recipe, preprocessing=replace(recipe.preprocessing, size=size))
    with pytest.raises(RecipeError, match=sentence):
        prepare(recipe, ("a", "b"), CPU)
