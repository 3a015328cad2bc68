"""Models without classes and data without labels are measured by what they have: the vectors."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from cli.commands import app
from tests.support.images.pngs import picture
from tests.support.models import manifest
from training.data.images.training_record import TrainingRecord
from training.data.unseen_images import load_unseen
from training.errors import DataError
from training.evaluation.compare import check_comparable, compare_models, measure_for_comparison
from training.evaluation.evaluate import evaluate_model
from vision.model.manifest import Manifest, read_manifest
from vision.networks.network import build_network
from vision.networks.saved_model import save_model

CLASSES = ("bag", "coat", "hat")


def write_model(folder: Path, *, labels: tuple[str, ...] = (), **changes: Any) -> Manifest:
    """Write a network with random weights and two-part vectors."""
    unbound = manifest(size=32, labels=labels)
    architecture = replace(unbound.architecture, **changes)
    unbound = replace(unbound, architecture=architecture)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = build_network(architecture, unbound.preprocessing)
    return save_model(folder, unbound, network.state_dict())


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model without classes, of two-part vectors."""
    folder = tmp_path_factory.mktemp("bare") / "model"
    write_model(
        folder,
        network="torchvision:mobilenet_v3_small",
        embedding_layer="features.4+penultimate",
        width=24,
        item_width=16,
        kind_share=0.25,
        reduction="item-and-kind",
    )
    return folder


@pytest.fixture(scope="module")
def classed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("classed") / "model"
    write_model(folder, labels=CLASSES)
    return folder


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes of six things, each photographed twice."""
    folder = tmp_path_factory.mktemp("photos")
    for label, name in enumerate(CLASSES):
        for thing in range(6):
            first = picture(10 * label + thing, (48, 40))
            for number, image in enumerate((first, first.rotate(8).crop((4, 4, 44, 36)))):
                path = folder / name / f"{thing}_{number}.png"
                path.parent.mkdir(exist_ok=True)
                image.save(path)
    return folder


@pytest.fixture(scope="module")
def heap(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same photos in one folder."""
    folder = tmp_path_factory.mktemp("heap")
    for path in sorted(photos.rglob("*.png")):
        Image.open(path).save(folder / f"{path.parent.name}-{path.name}")
    return folder


def figures(model: Path, data: Path, *, group: str | None = None) -> dict[str, Any]:
    dataset = load_unseen(str(data), read_manifest(model), [TrainingRecord.empty()], group=group)
    return evaluate_model(model, dataset, device="cpu").evaluation.to_json()


def test_a_model_without_classes_is_measured_by_the_classes_of_the_data(
    bare: Path, photos: Path
) -> None:
    found = figures(bare, photos)
    assert (found["accuracy"], found["classes"], found["confusion"]) == (None, None, None)
    assert 0 < found["r_at_1"] <= 1
    same = found["same_item"]
    assert (same["setup"], same["photos"], same["queries"]) == ("made views", 36, 72)
    assert same["r_at_1"] <= same["r_at_10"]
    assert same["r_at_1_interval"][0] <= same["r_at_1"] <= same["r_at_1_interval"][1]
    ends = [(one["kind"], one["own"]) for one in same["by_kind"]]
    assert ends == [(0, False), (0.25, True), (1, False)]
    own = same["by_kind"][1]
    assert (own["same_item"], own["same_class"]) == (same["r_at_1"], found["r_at_1"])


@pytest.mark.parametrize("which", ["bare", "classed"])
def test_data_without_labels_are_measured_by_the_same_thing_alone(
    which: str, heap: Path, request: pytest.FixtureRequest
) -> None:
    found = figures(request.getfixturevalue(which), heap)
    assert (found["accuracy"], found["r_at_1"], found["map"]) == (None, None, None)
    assert found["images"] == 36
    assert found["same_item"]["photos"] == 36
    assert all(one["same_class"] is None for one in found["same_item"]["by_kind"])
    (sentence,) = [one for one in found["in_words"] if "searched among" in one]
    assert sentence.startswith("The data hold no images that the model has learnt from")


def test_labels_of_some_images_only_are_no_classes_to_search_by(
    bare: Path, photos: Path, tmp_path: Path
) -> None:
    lines = [f"{path},{'bag' if 'bag' in str(path) else ''}" for path in photos.rglob("*.png")]
    (tmp_path / "some.csv").write_text("\n".join(["path,label", *lines]))
    found = figures(bare, tmp_path / "some.csv")
    assert (found["images"], found["r_at_1"]) == (36, None)


def test_with_groups_real_photos_of_the_same_thing_are_to_be_found(
    bare: Path, classed: Path, photos: Path, heap: Path
) -> None:
    found = figures(classed, photos, group=r"(.*)_\d")
    same = found["same_item"]
    assert (same["setup"], same["photos"], same["queries"]) == ("groups", 36, 36)
    assert found["accuracy"] is not None
    by_heap = figures(bare, heap, group=r"(.*)_\d")["same_item"]
    assert (by_heap["setup"], by_heap["photos"]) == ("groups", 36)
    # Its own group does not help a photo to find its class.
    assert found["r_at_1"] <= figures(classed, photos)["r_at_1"]


def test_models_with_and_without_classes_are_compared_by_their_vectors(
    bare: Path, classed: Path, photos: Path, tmp_path: Path
) -> None:
    check_comparable("a", read_manifest(bare), "b", read_manifest(classed))
    contenders = [
        measure_for_comparison(
            folder,
            load_unseen(str(photos), read_manifest(folder), [TrainingRecord.empty()]),
            device="cpu",
        )
        for folder in (classed, bare)
    ]
    comparison = compare_models(*contenders)
    assert set(comparison.differences) == {"r_at_1", "precision_at_10", "map", "map_at_r"} | {
        "same_item"
    }
    assert "accuracy" not in contenders[1].figures()
    assert np.isnan(comparison.differences["same_item"].difference) == False  # noqa: E712


def test_the_commands_take_models_without_classes(bare: Path, heap: Path, tmp_path: Path) -> None:
    run = CliRunner()
    data = ("--data", str(heap), "--group", r"(.*)_\d")
    result = run.invoke(app, ["evaluate", str(bare), *data, "--report", str(tmp_path), "--json"])
    assert result.exit_code == 0, result.output
    written = json.loads((tmp_path / "report.json").read_text())
    assert written["same_item"]["setup"] == "groups"
    page = (tmp_path / "report.html").read_text()
    assert "another photo of the same group" in page
    shown = run.invoke(app, ["evaluate", str(bare), *data, "--report", str(tmp_path)])
    assert "same item is the nearest of 36" in shown.output
    gate = [*data, "--must-not-lose", "same_item", "--json"]
    passed = run.invoke(app, ["compare", str(bare), str(bare), *gate])
    assert passed.exit_code == 0, passed.output
    asked = run.invoke(app, ["compare", str(bare), str(bare), *data, "--must-not-lose", "accuracy"])
    assert isinstance(asked.exception, DataError)
    assert "accuracy cannot be guarded: it was not measured" in str(asked.exception)
