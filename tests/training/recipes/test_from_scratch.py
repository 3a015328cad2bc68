"""Recipes that begin with random weights: images become a model that is exported and classifies."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import typer
from typer.testing import CliRunner

from cli.classify import classify
from cli.export_model import export
from cli.training.train import train
from tests.support.images.pngs import write_photographs
from tests.support.learners import small_trainable_model
from training.recipes.from_scratch import cnn_fast, vgg19_scratch
from vision.networks.whitened_cnn import WhitenedCnn

app = typer.Typer()
for command in (train, export, classify):
    app.command()(command)


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_photographs(tmp_path_factory.mktemp("photographs"), classes=2)


def said(*arguments: str) -> dict[str, Any]:
    done = CliRunner().invoke(app, [*arguments, "--json"])
    assert done.exit_code == 0, done.output
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


@pytest.mark.parametrize(
    ("recipe", "options"),
    [
        ("cnn-fast", ["--epochs", "6", "--batch-size", "8", "--learning-rate", "0.1"]),
        ("vgg19-scratch", ["--epochs", "1", "--batch-size", "8"]),
    ],
)
def test_images_become_a_model_that_is_exported_and_classifies(
    recipe: str, options: list[str], photographs: Path, tmp_path: Path
) -> None:
    model, data = str(tmp_path / "m"), ["--data", str(photographs)]
    trained = said("train", "--recipe", recipe, "--out", model, "--device", "cpu", *data, *options)
    assert trained["model"] == model
    said("export", model, *data, "--precision", "fp32", "--min-overlap", "0.5")
    for runtime in ("torch", "openvino"):
        answer = said(
            "classify", model, str(photographs / "kind-1" / "3.png"), "--runtime", runtime
        )
        assert {one["label"] for one in answer["predictions"]} == {"kind-0", "kind-1"}


def test_whitened_patches_are_uncorrelated_and_of_variance_one() -> None:
    images = torch.rand(300, 1, 12, 12, generator=torch.Generator().manual_seed(0))
    smooth = torch.nn.functional.avg_pool2d(images, 3, stride=1, padding=1) - 0.5
    network = WhitenedCnn(1)
    network.whiten(smooth)
    rows = torch.nn.functional.conv2d(smooth, network.whitening_FCHW[:9]).transpose(0, 1).flatten(1)
    covariance = (rows @ rows.T / rows.shape[1]).numpy()
    off = covariance - np.diag(np.diag(covariance))
    assert np.abs(off).max() < 0.02
    assert np.diag(covariance).max() <= 1
    assert np.median(np.diag(covariance)) > 0.5
    assert torch.equal(network.whitening_FCHW[9:], -network.whitening_FCHW[:9])


def test_only_the_biases_of_the_features_learn_faster_and_the_heads_rate_is_told() -> None:
    recipe = cnn_fast()
    model = small_trainable_model(recipe)
    groups = model.parameter_groups(recipe)
    assert groups[0]["lr"] == recipe.learning_rate
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    fast = {
        names[id(parameter)]
        for group in groups
        if group["lr"] == recipe.bias_rate * recipe.learning_rate
        for parameter in group["params"]
    }
    wanted = {n for n in names.values() if n.startswith("network.features.") and n.endswith("bias")}
    assert fast == wanted
    assert len(fast) == 7
    assert {group["lr"] for group in groups} == {
        recipe.learning_rate,
        recipe.bias_rate * recipe.learning_rate,
    }


def test_vgg_19_begins_as_he_and_others_do() -> None:
    features = small_trainable_model(vgg19_scratch()).network.features
    kernels = [m.weight for m in features.modules() if isinstance(m, torch.nn.Conv2d)]
    assert len(kernels) == 16
    for kernel in kernels[1:]:
        fan_out = kernel.shape[0] * kernel[0, 0].numel()
        assert kernel.std().item() == pytest.approx((2 / fan_out) ** 0.5, rel=0.05)
    norms = [m for m in features.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert len(norms) == len(kernels)
