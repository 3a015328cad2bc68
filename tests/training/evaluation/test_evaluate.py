"""Evaluation of tiny networks with random weights, on bright squares of three sizes."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import typer
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from typer.testing import CliRunner

from cli.evaluate import evaluate as evaluate_command
from files.durable import replace_file
from tests.support.galleries.labelled_gallery import labelled
from tests.support.models import manifest
from training.data.dataset import Dataset, HeldOut
from training.data.images.labelled_images import LabelledImages
from training.errors import DataError
from training.evaluation.classification import class_figures, count_confusion
from training.evaluation.evaluate import Measurement, evaluate_model
from training.statistics.calibration import calibration_error
from training.statistics.retrieval import measure_retrieval
from training.statistics.significance import share_interval
from training.training_history import TrainingHistory, read_history
from vision.errors import ModelFolderError
from vision.export.export_model import export_model
from vision.export.variant_selection import ExportImages
from vision.inference.encoder import encode_all
from vision.inference.torch_encoder import TorchEncoder
from vision.model.export_accuracy import LossLimits
from vision.model.manifest import Manifest
from vision.networks.network import build_network
from vision.networks.saved_model import load_model, save_model

LABELS = ("large", "middle", "small")
SIDES = (8, 5, 2)
seeds = st.integers(0, 2**31)


def write_tiny_model(folder: Path, *, seed: int = 0, size: int = 14, **changes: Any) -> Manifest:
    """Write a network with random weights; it tells the squares apart now and then."""
    unbound = replace(manifest(size=size, channels=1, labels=LABELS), **changes)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = build_network(unbound.architecture, unbound.preprocessing)
    return save_model(folder, unbound, network.state_dict())


def squares(each: int, *, seed: int, label_names: tuple[str, ...] = LABELS) -> LabelledImages:
    rng = np.random.default_rng(seed)
    labels_N = rng.permutation(np.repeat(np.arange(len(label_names)), each))
    images_NCHW = rng.integers(0, 220, (len(labels_N), 1, 14, 14)).astype(np.uint8)
    for image_CHW, label in zip(images_NCHW, labels_N, strict=True):
        top, left, side = rng.integers(1, 5), rng.integers(1, 5), SIDES[label]
        image_CHW[:, top : top + side, left : left + side] = 220
    return labelled(images_NCHW, labels_N, label_names)


def squares_dataset(*, held_out: HeldOut | None = None) -> Dataset:
    return Dataset(
        name="squares", train=squares(20, seed=1), test=squares(10, seed=2), held_out=held_out
    )


def write_squares(folder: Path) -> Path:
    """Write the same squares as files, in a folder of class folders."""
    dataset = squares_dataset()
    for part, images in (("train", dataset.train), ("test", dataset.test)):
        for number, (image_CHW, label) in enumerate(
            zip(images.images_NCHW, images.labels_N, strict=True)
        ):
            path = folder / part / LABELS[label] / f"{number:03d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image_CHW[0]).save(path)
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("evaluate") / "model"
    write_tiny_model(folder, temperature=0.25)
    return folder


@pytest.fixture(scope="module")
def measured(model: Path) -> Measurement:
    return evaluate_model(model, squares_dataset(), device="cpu")


# Figures


@settings(max_examples=40, deadline=None)
@given(seed=seeds, images=st.integers(1, 60))
def test_class_figures_are_those_of_a_slow_count(seed: int, images: int) -> None:
    rng = np.random.default_rng(seed)
    labels = np.concatenate([np.arange(4), rng.integers(0, 4, images)])
    given_labels = rng.integers(0, 4, len(labels))
    confusion = count_confusion(labels, given_labels, 4)
    assert confusion.sum() == len(labels)
    for number, figure in enumerate(class_figures(confusion, ("a", "b", "c", "d"))):
        right = int(((labels == number) & (given_labels == number)).sum())
        predicted = int((given_labels == number).sum())
        assert figure.images == (labels == number).sum()
        assert figure.recall == pytest.approx(right / figure.images)
        assert figure.precision == (pytest.approx(right / predicted) if predicted else None)
        assert figure.recall_interval == share_interval(right, figure.images)
        if figure.precision and figure.recall:
            harmonic = 2 / (1 / figure.precision + 1 / figure.recall)
            assert figure.f1 == pytest.approx(harmonic)
        else:
            assert figure.f1 == 0


KEYS = """model data images gallery_images accuracy accuracy_interval balanced_accuracy mean_loss
temperature calibration_error calibration_error_uncalibrated reliability reliability_uncalibrated
same_item tried
r_at_1 r_at_1_interval precision_at_10 map map_interval map_at_r held_out classes confusion history
novelty speed computed_by noticed_drop in_words
calibration_error_honest calibration_error_honest_high
calibration_error_beyond_chance calibration_error_beyond_chance_interval"""


def test_an_evaluation_becomes_json_values_and_nothing_else(
    model: Path, measured: Measurement
) -> None:
    figures = measured.evaluation.to_json()
    assert json.loads(json.dumps(figures, allow_nan=False)) == figures
    assert set(figures) == set(KEYS.split())
    written, network = load_model(model)
    assert figures["model"] == {
        "name": "test-model",
        "fingerprint": written.fingerprint,
        "recipe": "none: random weights",
        "network": "deck-cnn",
        "embedding_layer": "embedding",
        "width": 256,
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "weights_bytes": (model / "weights.safetensors").stat().st_size,
        "created": written.created,
    }
    assert figures["data"] == {
        "name": "squares",
        "train_images": 60,
        "test_images": 30,
        "test_fingerprint": squares_dataset().test.fingerprint,
        "selection": None,
    }
    assert (figures["images"], figures["gallery_images"]) == (30, 60)
    assert (figures["held_out"], figures["history"]) == (None, [])
    assert figures["speed"].keys() == {"device", "threads", "ms_one_image", "images_per_s"}
    assert figures["reliability"][0].keys() == {"low", "high", "images", "confidence", "accuracy"}
    assert figures["classes"][0].keys() == {
        *("label", "images", "precision", "precision_interval", "recall", "recall_interval", "f1")
    }


def test_the_figures_are_means_of_what_became_of_each_image(measured: Measurement) -> None:
    figures, predictions = measured.evaluation.to_json(), measured.predictions
    assert predictions.correct_N is not None
    assert predictions.retrieval is not None
    assert figures["accuracy"] == predictions.correct_N.mean()
    assert figures["r_at_1"] == predictions.retrieval.first_Q.mean()
    assert figures["precision_at_10"] == predictions.retrieval.precision_Q.mean()
    assert figures["map"] == predictions.retrieval.average_precision_Q.mean()
    assert figures["map_at_r"] == predictions.retrieval.average_precision_at_r_Q.mean()
    assert figures["balanced_accuracy"] == pytest.approx(figures["accuracy"])  # ten images a class
    for name in ("accuracy", "r_at_1", "map"):
        low, high = figures[f"{name}_interval"]
        assert 0 <= low < figures[name] < high <= 1


def test_the_error_before_calibration_is_that_of_the_same_weights_at_temperature_one(
    measured: Measurement, tmp_path: Path
) -> None:
    write_tiny_model(tmp_path / "m", temperature=1.0)
    dataset = squares_dataset()
    plain = encode_all(TorchEncoder.load(tmp_path / "m", device="cpu"), dataset.test.images_NCHW)
    figures = measured.evaluation.to_json()
    assert figures["temperature"] == 0.25
    uncalibrated = figures["calibration_error_uncalibrated"]
    assert uncalibrated == pytest.approx(
        calibration_error(plain.probabilities_BL, dataset.test.labels_N), abs=1e-5
    )
    assert figures["calibration_error"] != pytest.approx(uncalibrated)
    at_one = evaluate_model(tmp_path / "m", dataset, device="cpu").evaluation.to_json()
    assert at_one["accuracy"] == figures["accuracy"]


def test_classes_that_were_held_out_are_searched_among_themselves_and_among_all(
    model: Path,
) -> None:
    new = ("disc", "star")
    held_out = HeldOut(
        train=squares(6, seed=3, label_names=new), test=squares(4, seed=4, label_names=new)
    )
    dataset = squares_dataset(held_out=held_out)
    figures = evaluate_model(model, dataset, device="cpu").evaluation.held_out
    assert figures is not None
    assert (figures.classes, figures.images) == (new, 8)

    encoder = TorchEncoder.load(model, device="cpu")
    queries = encode_all(encoder, held_out.test.images_NCHW).vectors_BD
    stored = encode_all(encoder, held_out.train.images_NCHW).vectors_BD
    known = encode_all(encoder, dataset.train.images_NCHW).vectors_BD
    alone = measure_retrieval(queries, held_out.test.labels_N, stored, held_out.train.labels_N)
    assert figures.among_held_out.gallery_images == 12
    assert figures.among_held_out.map == alone.means["map"]
    nobody = np.full(len(known), -1)
    joined = measure_retrieval(
        queries,
        held_out.test.labels_N,
        np.concatenate([stored, known]),
        np.concatenate([held_out.train.labels_N, nobody]),
    )
    assert figures.among_all.gallery_images == 72
    assert figures.among_all.map_at_r == pytest.approx(joined.means["map_at_r"])
    assert figures.among_all.map < figures.among_held_out.map


def test_a_model_with_an_export_is_measured_with_it_and_the_figures_are_those_of_torch(
    model: Path, tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(model, tmp_path / "m"))
    dataset = squares_dataset()
    sample = ExportImages(
        data="squares",
        calibration_NCHW=dataset.train.images_NCHW,
        test_NCHW=dataset.test.images_NCHW,
        labels_N=dataset.test.labels_N,
    )
    limits = LossLimits(min_overlap=0.0, max_accuracy_loss=1.0)
    export_model(copy, sample, precision="fp32", limits=limits, threads=1)

    by_torch, by_export = (
        evaluate_model(copy, dataset, device="cpu", runtime=runtime).evaluation
        for runtime in ("torch", "auto")
    )
    assert (by_torch.computed_by, by_export.computed_by) == ("torch, fp32", "openvino, fp32")
    assert by_export.classification is not None
    assert by_torch.classification is not None
    assert by_export.classification.accuracy == by_torch.classification.accuracy
    assert by_export.classification.mean_loss == pytest.approx(
        by_torch.classification.mean_loss, abs=1e-4
    )
    assert by_export.class_search is not None
    assert by_torch.class_search is not None
    assert by_export.class_search.map == pytest.approx(by_torch.class_search.map, abs=1e-3)
    assert by_export.same_item.r_at_1 == pytest.approx(by_torch.same_item.r_at_1, abs=0.02)
    assert by_export.model == by_torch.model


def test_other_classes_than_the_models_are_refused(tmp_path: Path) -> None:
    write_tiny_model(tmp_path / "m", labels=("large", "middle", "tiny"))
    with pytest.raises(DataError, match="knows the classes large, middle, tiny; the data have"):
        evaluate_model(tmp_path / "m", squares_dataset(), device="cpu")


def test_the_history_is_what_the_model_folder_says(tmp_path: Path) -> None:
    assert read_history(tmp_path) == TrainingHistory()
    epochs = [{"epoch": 1, "loss": 2.5, "validation_loss": None}, {"epoch": 2, "loss": 1.5}]
    (tmp_path / "training.json").write_text(json.dumps({"history": epochs, "more": 1}))
    assert list(read_history(tmp_path).epochs) == epochs


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"history": 3}', '{"history": [1]}', "[" * 9999])
def test_a_damaged_history_is_refused_with_a_sentence(tmp_path: Path, text: str) -> None:
    (tmp_path / "training.json").write_text(text)
    with pytest.raises(ModelFolderError, match=r"training\.json is damaged"):
        read_history(tmp_path)


# The command

app = typer.Typer()
app.command()(evaluate_command)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_squares(tmp_path_factory.mktemp("squares"))


def test_the_command_prints_what_it_writes_into_the_model_folder(
    data: Path, tmp_path: Path
) -> None:
    write_tiny_model(tmp_path / "m")
    asked = [str(tmp_path / "m"), "--data", str(data), "--device", "cpu"]
    result = CliRunner().invoke(app, [*asked, "--json"])
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout) == json.loads((tmp_path / "m" / "report.json").read_text())
    assert (tmp_path / "m" / "report.html").read_text().lstrip().startswith("<!doctype html>")
    assert "report.html" in result.stderr
    assert {path.name for path in (tmp_path / "m").iterdir()} == {
        *("manifest.json", "weights.safetensors", "report.json", "report.html")
    }

    shown = CliRunner().invoke(app, [*asked, "--report", str(tmp_path / "new" / "report")])
    assert shown.exit_code == 0, shown.output
    assert "mean average precision at R" in shown.stdout
    assert " to " in shown.stdout
    assert len(list((tmp_path / "new" / "report").iterdir())) == 2


def test_figures_are_printed_even_if_the_report_cannot_be_written(
    data: Path, tmp_path: Path
) -> None:
    write_tiny_model(tmp_path / "m")
    (tmp_path / "in-the-way").write_text("a file")
    result = CliRunner().invoke(
        app,
        [
            *(str(tmp_path / "m"), "--data", str(data), "--device", "cpu", "--json"),
            *("--report", str(tmp_path / "in-the-way")),
        ],
    )
    assert isinstance(result.exception, OSError)
    assert json.loads(result.stdout)["images"] == 30


def test_a_file_that_cannot_be_written_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace_file(tmp_path / "report.html", b"old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        replace_file(tmp_path / "report.html", b"new")
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]
    assert (tmp_path / "report.html").read_text() == "old"
