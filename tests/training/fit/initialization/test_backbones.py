"""Pretrained backbones: what stays, what moves, and that they learn."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor

from tests.support.learners import images_done, press_ctrl_c
from tests.support.paths import ROOT
from tests.training.test_train import easy_dataset
from training.data.dataset import Dataset, load_dataset
from training.data.images.labelled_images import LabelledImages
from training.errors import RecipeError, WeightsError
from training.progress import EpochMetrics, Event
from training.recipes.built_in import (
    backbone_finetune,
    backbone_frozen,
    vgg19_finetune,
    vgg19_frozen,
)
from training.recipes.recipe import Augmentation, FineTuning, Recipe
from training.train import train
from vision.inference.torch_encoder import TorchEncoder
from vision.model.manifest import WEIGHTS_NAME
from vision.networks.backbone import build_backbone
from vision.networks.network import build_network

CLOTHING = ROOT.parent / "shared" / "datasets" / "clothing"
SMALL = "torchvision:shufflenet_v2_x0_5"


@pytest.fixture(scope="module")
def weights_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of the small backbone, with running means that no initialisation has."""
    path = tmp_path_factory.mktemp("weights") / "small.safetensors"
    torch.manual_seed(5)
    state = build_backbone(SMALL).body.state_dict()
    for name, tensor in state.items():
        if name.endswith("running_mean"):
            tensor.uniform_(-0.1, 0.1)
    safetensors.torch.save_file(state, path)
    return path


def coloured(size: int = 32, *, each: int = 16) -> Dataset:
    """Return the three easy classes of other tests, as colour images."""
    grey = easy_dataset(each=each)

    def in_colour(images: LabelledImages) -> LabelledImages:
        pixels = np.repeat(images.images_NCHW, 3, axis=1)
        side = -(-size // 14)
        larger = pixels.repeat(side, axis=2).repeat(side, axis=3)[:, :, :size, :size]
        return replace(images, images_NCHW=np.ascontiguousarray(larger))

    return replace(grey, train=in_colour(grey.train), test=in_colour(grey.test))


def small(recipe: Recipe, weights: Path | None, **changes: object) -> Recipe:
    settings = {
        "preprocessing": replace(recipe.preprocessing, size=32),
        "weights": None if weights is None else str(weights),
        "width": 16,
        "batch_size": 8,
        "epochs": 2,
        **changes,
    }
    return replace(recipe, **settings)  # type: ignore[arg-type]


def backbone_tensors(model: Path) -> dict[str, Tensor]:
    state = safetensors.torch.load_file(model / WEIGHTS_NAME)
    start = "features.body."
    return {name[len(start) :]: state[name] for name in state if name.startswith(start)}


@pytest.mark.parametrize(
    "changes",
    [{}, {"reduction": "pca", "metric_loss": "none"}, {"views": 1}],
    ids=["projection", "pca", "one view"],
)
def test_a_frozen_backbone_keeps_every_byte(
    changes: dict[str, object], weights_file: Path, tmp_path: Path
) -> None:
    recipe = small(backbone_frozen(SMALL), weights_file, **changes)
    told: list[tuple[int, int]] = []
    manifest = train(
        *(recipe, coloured()),
        **{"out": tmp_path / "m", "device": "cpu"},
        progress=images_done(told),
    )
    assert told[0][1] == recipe.views * (48 - 3)  # one of each class is held out
    assert (45 * recipe.views, 45 * recipe.views) in told
    before = safetensors.torch.load_file(weights_file)
    after = backbone_tensors(tmp_path / "m")
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        assert torch.equal(tensor, after[name]), name
    assert manifest.recipe["weights"] == "small.safetensors"
    assert len(manifest.recipe["weights_sha256"]) == 64
    encoder = TorchEncoder.load(tmp_path / "m", device="cpu")
    assert encoder.encode(coloured().test.images_NCHW[:2]).vectors_BD.shape == (2, 16)


def test_a_frozen_backbone_as_it_is_gives_its_own_features(
    weights_file: Path, tmp_path: Path
) -> None:
    recipe = small(
        backbone_frozen(SMALL), weights_file, reduction="none", width=1024, metric_loss="none"
    )
    train(recipe, coloured(), out=tmp_path / "m", device="cpu")
    images_NCHW = coloured().test.images_NCHW[:3]
    vectors = TorchEncoder.load(tmp_path / "m", device="cpu").encode(images_NCHW).vectors_BD
    backbone = build_backbone(SMALL).eval()
    backbone.body.load_state_dict(safetensors.torch.load_file(weights_file))
    mean, std = (torch.tensor(v)[:, None, None] for v in recipe_statistics(recipe))
    with torch.inference_mode():
        features = backbone((torch.from_numpy(images_NCHW) / 255 - mean) / std)
    expected = torch.nn.functional.normalize(features, dim=1).numpy()
    assert vectors == pytest.approx(expected, abs=1e-4)


def recipe_statistics(recipe: Recipe) -> tuple[tuple[float, ...], tuple[float, ...]]:
    return recipe.preprocessing.mean, recipe.preprocessing.std


def test_fine_tuning_moves_the_layers_it_says_and_no_others(
    weights_file: Path, tmp_path: Path
) -> None:
    tuning = FineTuning(groups=4, frozen_groups=2, head_epochs=1, rate=1.0)
    recipe = small(backbone_finetune(SMALL), weights_file, fine_tuning=tuning, average=0.0)
    train(recipe, coloured(), out=tmp_path / "m", device="cpu")
    before, after = safetensors.torch.load_file(weights_file), backbone_tensors(tmp_path / "m")
    moved = [name for name in before if not torch.equal(before[name], after[name])]
    in_order = build_backbone(SMALL).body.state_dict()
    kernels = [name for name, tensor in in_order.items() if tensor.ndim == 4]
    assert [name for name in kernels if name in moved] == kernels[len(kernels) // 2 :]
    assert not any(name.startswith(("conv1.", "stage2.")) for name in moved)
    assert {"conv5.0.weight", "conv5.1.running_mean"} <= set(moved)


def test_head_epochs_move_nothing_of_the_backbone(weights_file: Path, tmp_path: Path) -> None:
    recipe = small(
        backbone_finetune(SMALL), weights_file, fine_tuning=FineTuning(groups=1, head_epochs=9)
    )
    train(recipe, coloured(), out=tmp_path / "m", device="cpu")
    after = backbone_tensors(tmp_path / "m")
    for name, tensor in safetensors.torch.load_file(weights_file).items():
        assert torch.equal(tensor, after[name]), name


def test_an_interrupted_fine_tuning_goes_on_to_the_same_weights(
    weights_file: Path, tmp_path: Path
) -> None:
    recipe = small(
        backbone_finetune(SMALL),
        weights_file,
        fine_tuning=FineTuning(groups=3, head_epochs=1, epochs_per_group=1),
        epochs=3,
    )
    train(recipe, coloured(), out=tmp_path / "whole", device="cpu")
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            train(
                *(recipe, coloured()),
                **{"out": tmp_path / "parts", "device": "cpu", "resume": True},
                progress=press_ctrl_c,
            )
    train(recipe, coloured(), out=tmp_path / "parts", device="cpu", resume=True)
    whole, parts = ((tmp_path / name / WEIGHTS_NAME).read_bytes() for name in ("whole", "parts"))
    assert whole == parts


def test_weights_of_another_network_leave_nothing_behind(
    weights_file: Path, tmp_path: Path
) -> None:
    recipe = small(backbone_frozen("torchvision:squeezenet1_1"), weights_file)
    with pytest.raises(WeightsError):
        train(recipe, coloured(), out=tmp_path / "m", device="cpu")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"reduction": "none", "metric_loss": "none", "width": 100}, "1024"),
        ({"reduction": "pca", "metric_loss": "none", "width": 2000}, "2000"),
        ({"embedding_layer": "fc9"}, "fc9"),
    ],
    ids=["as it is", "pca", "layer"],
)
def test_a_width_or_layer_that_does_not_fit_is_a_sentence(
    changes: dict[str, object], sentence: str, weights_file: Path, tmp_path: Path
) -> None:
    recipe = small(backbone_frozen(SMALL), weights_file, **changes)
    with pytest.raises(RecipeError, match=sentence):
        train(recipe, coloured(), out=tmp_path / "m", device="cpu")
    assert list(tmp_path.iterdir()) == []


# Real ImageNet weights


@pytest.mark.skipif(not CLOTHING.is_dir(), reason=f"no photos of clothes in {CLOTHING}")
def test_real_weights_tell_photos_of_clothes_apart_after_a_few_examples(tmp_path: Path) -> None:
    table = ["path,label,split"]
    for part, split, each in (("train", "train", 12), ("validation", "test", 8)):
        for label in ("dress", "hat", "pants", "shoes"):
            paths = sorted((CLOTHING / part / label).iterdir())[:each]
            table += [f"{path},{label},{split}" for path in paths]
    (tmp_path / "photos.csv").write_text("\n".join(table))
    recipe = backbone_frozen("timm:tf_efficientnet_lite0")
    recipe = replace(
        recipe,
        preprocessing=replace(recipe.preprocessing, size=96),
        views=1,
        batch_size=16,
    )
    dataset = load_dataset(str(tmp_path / "photos.csv"), recipe.preprocessing)
    real = train(recipe, dataset, out=tmp_path / "real", device="cpu")
    random = train(replace(recipe, weights=None), dataset, out=tmp_path / "random", device="cpu")
    assert real.metrics["test_accuracy"] >= 0.8
    assert real.metrics["test_accuracy"] > random.metrics["test_accuracy"] + 0.1


# VGG-19, in small


def test_a_pooling_block_of_vgg_19_gives_vectors_of_its_width() -> None:
    recipe = replace(
        vgg19_frozen(),
        preprocessing=replace(vgg19_frozen().preprocessing, size=32),
        embedding_layer="pool2",
        width=128,
        reduction="none",
        metric_loss="none",
    )
    network = build_network(recipe.architecture(3), recipe.preprocessing).eval()
    vectors_BD, logits_BL = network(torch.randn(2, 3, 32, 32))
    assert vectors_BD.shape == (2, 128)
    assert logits_BL.shape == (2, 3)
    assert torch.allclose(vectors_BD.norm(dim=1), torch.ones(2), atol=1e-5)


def test_three_hundred_steps_on_a_frozen_vgg_19_lower_the_loss(tmp_path: Path) -> None:
    recipe = small(
        vgg19_frozen(),
        None,
        embedding_layer="pool3",
        epochs=60,
        views=1,
        augmentation=Augmentation(),
    )
    losses = losses_of(recipe, tmp_path)
    assert len(losses) == 60  # of 5 steps
    assert np.mean(losses[-5:]) < 0.8 * np.mean(losses[:5])


@pytest.mark.parametrize(
    "epochs", [2, pytest.param(50, marks=pytest.mark.slow)], ids=["12 steps", "300 steps"]
)
def test_steps_of_fine_tuning_all_of_vgg_19_lower_the_loss(epochs: int, tmp_path: Path) -> None:
    recipe = small(
        *(vgg19_finetune(), None),
        **{"epochs": epochs, "learning_rate": 3e-4, "average": 0.0},
        fine_tuning=FineTuning(groups=4, rate_decay=0.7),
        augmentation=Augmentation(),
    )
    losses = losses_of(recipe, tmp_path)
    assert losses[-1] < (0.9 if epochs < 50 else 0.6) * losses[0]


def losses_of(recipe: Recipe, folder: Path) -> list[float]:
    events: list[Event] = []
    train(recipe, coloured(), out=folder / "m", device="cpu", progress=events.append)
    return [event.loss for event in events if isinstance(event, EpochMetrics)]
