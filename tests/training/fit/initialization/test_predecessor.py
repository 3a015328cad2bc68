"""`--weights MODEL_FOLDER`: a training that goes on from one's own model."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor

from cli.training.recipe_options import choose_recipe
from tests.support.learners import SMALL as SMALL_CNN
from tests.training.fit.initialization.test_backbones import SMALL, coloured, small
from tests.training.test_train import LECTURE, OURS, easy_dataset
from training.data.dataset import Dataset
from training.data.images.labelled_images import LabelledImages
from training.data.images.training_record import TRAINING_RECORD_NAME
from training.errors import WeightsError
from training.evaluation.evaluate import evaluate_model
from training.recipes.built_in import backbone_finetune, backbone_frozen
from training.recipes.from_scratch import cnn_best
from training.recipes.recipe import Recipe
from training.train import train
from vision.errors import ModelFolderError
from vision.image.preprocessing import Preprocessing
from vision.model.manifest import MANIFEST_NAME, WEIGHTS_NAME, Manifest, read_manifest

STILL = {"learning_rate": 1e-30, "epochs": 1, "weight_decay": 0.0, "schedule": "constant"}
FROZEN = small(backbone_frozen(SMALL), None, precision="fp32")


def state(model: Path) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = safetensors.torch.load_file(model / WEIGHTS_NAME)
    return tensors


def relabelled(dataset: Dataset, names: tuple[str, ...]) -> Dataset:
    """Return the images of the classes that are in ``names``, counted in that order."""

    def part(images: LabelledImages) -> LabelledImages:
        old = [images.label_names[label] for label in images.labels_N]
        rows = np.flatnonzero([label in names for label in old])
        labels_N = np.array([names.index(old[row]) for row in rows])
        return replace(
            images, images_NCHW=images.images_NCHW[rows], labels_N=labels_N, label_names=names
        )

    return replace(dataset, train=part(dataset.train), test=part(dataset.test))


def going_on(recipe: Recipe, model: Path, **changes: Any) -> Recipe:
    settings: dict[str, Any] = {**STILL, **changes}
    return replace(recipe, weights=str(model), **settings)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A trained model of each kind."""
    folder = tmp_path_factory.mktemp("models")
    kinds = {"cnn": (OURS, easy_dataset()), "deck": (LECTURE, easy_dataset())}
    kinds["frozen"] = (FROZEN, coloured())
    kinds["pca"] = (replace(FROZEN, reduction="pca", metric_loss="none"), coloured())
    for name, (recipe, dataset) in kinds.items():
        train(recipe, dataset, out=folder / name, device="cpu")
    return {name: folder / name for name in kinds}


@pytest.mark.parametrize(
    ("name", "recipe"),
    [
        ("cnn", replace(OURS, average=0.0)),
        ("deck", replace(LECTURE, keep_best=False)),
        ("frozen", FROZEN),
        ("frozen", small(backbone_finetune(SMALL), None, average=0.0, precision="fp32")),
        ("pca", replace(FROZEN, reduction="pca", metric_loss="none")),
    ],
    ids=["cnn", "deck-cnn", "frozen", "fine-tuned", "pca"],
)
def test_a_training_begins_with_everything_its_predecessor_knew(
    name: str, recipe: Recipe, models: dict[str, Path], tmp_path: Path
) -> None:
    dataset = easy_dataset() if recipe.preprocessing.channels == 1 else coloured()
    manifest = train(going_on(recipe, models[name]), dataset, out=tmp_path / "m", device="cpu")
    before, after = state(models[name]), state(tmp_path / "m")
    assert before.keys() == after.keys()
    moving = ("running_mean", "running_var", "num_batches_tracked")
    for key, tensor in before.items():
        if not key.endswith(moving):
            assert torch.allclose(tensor, after[key], rtol=0, atol=1e-12), key
    earlier = read_manifest(models[name])
    assert manifest.recipe["predecessor"] == earlier.fingerprint
    assert manifest.recipe["weights"] == name
    assert manifest.recipe["weights_sha256"] == earlier.weights_sha256
    card = (tmp_path / "m" / "README.md").read_text()
    assert earlier.fingerprint in card


def test_known_labels_keep_their_rows_and_new_ones_begin_fresh(
    models: dict[str, Path], tmp_path: Path
) -> None:
    three = easy_dataset()
    renamed = replace(three.train, label_names=("small", "middle", "huge"))
    dataset = replace(
        three, train=renamed, test=replace(three.test, label_names=renamed.label_names)
    )
    dataset = relabelled(dataset, ("huge", "small", "middle"))
    recipe = going_on(replace(OURS, average=0.0), models["cnn"])
    train(recipe, dataset, out=tmp_path / "m", device="cpu")
    before, after = state(models["cnn"]), state(tmp_path / "m")
    for key in ("classifier.weight", "classifier.bias"):
        assert torch.equal(after[key][1:], before[key][:2])  # small, middle
        assert not torch.equal(after[key][0], before[key][2])  # huge is not large
    assert torch.equal(after["embedding.0.weight"], before["embedding.0.weight"])


def test_a_model_of_other_classes_gives_its_vectors_and_no_rows(
    models: dict[str, Path], tmp_path: Path
) -> None:
    three = easy_dataset()
    names = ("one", "two", "three")
    dataset = replace(
        three,
        train=replace(three.train, label_names=names),
        test=replace(three.test, label_names=names),
    )
    train(going_on(OURS, models["cnn"], average=0.0), dataset, out=tmp_path / "m", device="cpu")
    before, after = state(models["cnn"]), state(tmp_path / "m")
    assert torch.equal(after["features.0.weight"], before["features.0.weight"])
    assert not torch.equal(after["classifier.weight"], before["classifier.weight"])


def test_going_on_ends_better_than_beginning_anew(models: dict[str, Path], tmp_path: Path) -> None:
    one_epoch = {"epochs": 1, "learning_rate": 0.01, "average": 0.0}
    again = replace(OURS, **one_epoch, weights=str(models["cnn"]))
    anew = replace(OURS, **one_epoch)
    losses = {}
    for name, recipe in (("again", again), ("anew", anew)):
        train(recipe, easy_dataset(seed=3), out=tmp_path / name, device="cpu")
        measured = evaluate_model(tmp_path / name, easy_dataset(seed=3), device="cpu")
        losses[name] = measured.evaluation.to_json()["mean_loss"]
    assert losses["again"] < losses["anew"]


def test_an_interrupted_one_goes_on_and_another_predecessor_is_refused(
    models: dict[str, Path], tmp_path: Path
) -> None:
    recipe = replace(FROZEN, weights=str(models["frozen"]))
    train(recipe, coloured(), out=tmp_path / "whole", device="cpu")
    train(recipe, coloured(), out=tmp_path / "again", device="cpu", resume=True)
    assert (tmp_path / "whole" / WEIGHTS_NAME).read_bytes() == (
        tmp_path / "again" / WEIGHTS_NAME
    ).read_bytes()


# What cannot be gone on from


def folder_like(model: Path, folder: Path, **changed: bytes) -> Path:
    """Return a copy of the model folder with some files changed."""
    folder.mkdir()
    for name in (MANIFEST_NAME, WEIGHTS_NAME, TRAINING_RECORD_NAME):
        (folder / name).write_bytes(changed.get(name.split(".")[0], (model / name).read_bytes()))
    return folder


@pytest.mark.parametrize(
    ("recipe", "sentence"),
    [
        (replace(OURS, width=8), "another network: cnn, layer embedding, width 16"),
        (
            replace(cnn_best(), width=16),
            "another network: cnn, .*; this training has wide-resnet",
        ),
        (
            replace(OURS, preprocessing=replace(OURS.preprocessing, size=64)),
            "does not fit this network: .* It was trained with images of 14 pixels",
        ),
        (replace(OURS, weights_sha256="0" * 64), "have the SHA-256 .*… was expected"),
    ],
    ids=["width", "network", "size", "hash"],
)
def test_a_model_that_does_not_fit_is_refused(
    recipe: Recipe, sentence: str, models: dict[str, Path], tmp_path: Path
) -> None:
    with pytest.raises(WeightsError, match=sentence):
        train(
            replace(recipe, weights=str(models["cnn"])),
            *(easy_dataset(),),
            **{"out": tmp_path / "m", "device": "cpu"},
        )
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_harmed_or_no_model_is_refused(
    models: dict[str, Path], tmp_path: Path
) -> None:
    model = models["cnn"]
    harmed = bytearray((model / WEIGHTS_NAME).read_bytes())
    harmed[-1] ^= 1
    cases = {
        folder_like(model, tmp_path / "harmed", weights=bytes(harmed)): "was changed",
        folder_like(model, tmp_path / "cut", manifest=b"{"): "damaged: not the JSON",
        tmp_path / "empty": "is not a model folder: no manifest.json",
    }
    (tmp_path / "empty").mkdir()
    for folder, sentence in cases.items():
        with pytest.raises(ModelFolderError, match=sentence):
            train(
                replace(OURS, weights=str(folder)),
                *(easy_dataset(),),
                **{"out": tmp_path / "m", "device": "cpu"},
            )
    assert not (tmp_path / "m").exists()
    assert not (tmp_path / "m.training").exists()


def test_the_weights_file_inside_a_model_folder_is_answered_with_the_folder(
    models: dict[str, Path], tmp_path: Path
) -> None:
    recipe = replace(FROZEN, weights=str(models["frozen"] / WEIGHTS_NAME))
    with pytest.raises(WeightsError, match=r"to go on from that model, name the folder .*frozen"):
        train(recipe, coloured(), out=tmp_path / "m", device="cpu")


def test_a_missing_folder_is_named_for_a_network_of_our_own(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="of a model folder of the same network, or `none`, not"):
        train(
            replace(SMALL_CNN, weights=str(tmp_path / "nowhere")),
            *(easy_dataset(),),
            **{"out": tmp_path / "m", "device": "cpu"},
        )


# What the command line makes of it


def chosen(recipe: str, weights: Path, **asked: Any) -> Recipe:
    settings = {"preprocessing": {}, "augmentation": {}, "frozen_groups": None, "backbone": None}
    return choose_recipe(recipe, "photos", **{**settings, "weights": str(weights), **asked})


def manifest_folder(folder: Path, **architecture: Any) -> Path:
    """Write a manifest of a VGG-19 that embeds with its fourth pool, with sides of 96 pixels."""
    from tests.support.models import manifest  # noqa: PLC0415

    base = manifest(network="torchvision:vgg19", width=128)
    settings = {"embedding_layer": "pool4", "reduction": "projection", **architecture}
    full = replace(
        base,
        architecture=replace(base.architecture, **settings),
        preprocessing=Preprocessing(
            size=96, channels=3, mean=(0.1,) * 3, std=(0.2,) * 3, fit="squash"
        ),
    )
    assert isinstance(full, Manifest)
    folder.mkdir()
    (folder / MANIFEST_NAME).write_bytes(full.to_bytes())
    return folder


@pytest.mark.parametrize("recipe", ["backbone-frozen", "backbone-finetune", "vgg19-frozen"])
def test_network_layer_width_and_preprocessing_are_the_predecessors(
    recipe: str, tmp_path: Path
) -> None:
    folder = manifest_folder(tmp_path / "m")
    taken = chosen(recipe, folder)
    assert (taken.network, taken.embedding_layer) == ("torchvision:vgg19", "pool4")
    assert (taken.width, taken.reduction) == (128, "projection")
    assert (taken.preprocessing.size, taken.preprocessing.fit) == (96, "squash")
    assert taken.preprocessing.mean == (0.1,) * 3
    asked = chosen(recipe, folder, preprocessing={"size": 64, "fit": None}, epochs=3)
    assert (asked.preprocessing.size, asked.preprocessing.fit) == (64, "squash")
    assert asked.epochs == 3


def test_a_metric_loss_that_could_move_nothing_is_left_out(tmp_path: Path) -> None:
    folder = manifest_folder(tmp_path / "m", reduction="pca")
    assert chosen("backbone-frozen", folder).metric_loss == "none"
    with pytest.raises(ValueError, match="needs a projection"):
        chosen("backbone-frozen", folder, metric_loss="cosface")
    with pytest.raises(ValueError, match="PCA is fitted once, so it needs a frozen backbone"):
        chosen("backbone-finetune", folder)


@pytest.mark.parametrize(
    ("recipe", "asked", "sentence"),
    [
        ("cnn", {}, "'torchvision:vgg19' network, and cnn-photos trains cnn: go on with .*vgg19"),
        ("backbone-frozen", {"width": 64}, "width 128, which --width 64 cannot change"),
        ("backbone-frozen", {"embedding_layer": "fc7"}, "'pool4', which --layer fc7 cannot"),
        ("backbone-frozen", {"backbone": "torchvision:vgg16"}, "trains torchvision:vgg16"),
    ],
)
def test_options_that_contradict_the_predecessor_are_refused(
    recipe: str, asked: dict[str, Any], sentence: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=sentence):
        chosen(recipe, manifest_folder(tmp_path / "m"), **asked)


def test_a_recipe_for_backbones_says_which_recipe_goes_on_with_another_model(
    models: dict[str, Path],
) -> None:
    with pytest.raises(ValueError, match=r"'cnn' network, .* go on with --recipe cnn or --recipe"):
        chosen("backbone-frozen", models["cnn"])
    assert json.loads((models["cnn"] / MANIFEST_NAME).read_bytes())["recipe"]["predecessor"] is None
