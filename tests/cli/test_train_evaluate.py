"""The commands `train` and `evaluate`, as a person would type them."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import typer
from PIL import Image
from typer.testing import CliRunner

from cli.evaluate import evaluate
from cli.training.train import train
from tests.support.images.pngs import picture, write_photographs
from tests.support.paths import ROOT
from training.errors import CheckpointError, DataError, TrainingError
from vision.model.manifest import read_manifest

app = typer.Typer()
app.command()(train)
app.command()(evaluate)


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of twenty pictures each, a file that is none and one that only seems one."""
    folder = write_photographs(tmp_path_factory.mktemp("photographs"), classes=2)
    (folder / "kind-1" / "notes.txt").write_text("not an image")
    (folder / "kind-1" / "broken.jpg").write_text("not an image")
    return folder


def test_train_and_evaluate_print_json_on_standard_output(
    photographs: Path, tmp_path: Path
) -> None:
    out = str(tmp_path / "m")
    asked = ["--data", str(photographs), "--device", "cpu", "--json"]
    short = ["--recipe", "cnn", "--epochs", "2", "--size", "24"]
    trained = CliRunner().invoke(app, ["train", "--out", out, *short, *asked])
    assert trained.exit_code == 0, trained.output
    result = json.loads(trained.stdout)
    assert result["metrics"]["epochs"] == 2
    assert result["data"]["unreadable"] == 1
    assert [one["count"] for one in result["findings"]] == [1, 1]
    for name in ("notes.txt", "broken.jpg"):
        assert name in trained.stderr.replace("\n", "")
        assert name in str(result["findings"])

    measured = CliRunner().invoke(app, ["evaluate", out, *asked])
    figures = json.loads(measured.stdout)
    assert figures["accuracy"] == result["metrics"]["test_accuracy"]
    assert figures["images"] == result["data"]["test_images"]
    assert figures["findings"] == result["findings"]
    assert json.loads(Path(out, "report.json").read_text()) == figures
    assert "kind-1/notes.txt" in Path(out, "report.html").read_text()
    assert [figure["label"] for figure in figures["classes"]] == ["kind-0", "kind-1"]

    table = CliRunner().invoke(app, ["evaluate", out, "--data", str(photographs)])
    assert "mean average precision" in table.stdout


def test_evaluating_on_other_classes_is_refused(photographs: Path, tmp_path: Path) -> None:
    out = str(tmp_path / "m")
    asked = ["--recipe", "cnn", "--device", "cpu", "--epochs", "1", "--size", "24"]
    CliRunner().invoke(app, ["train", "--out", out, "--data", str(photographs), *asked])
    for kind in ("hat", "shoe"):
        for number in range(2):
            path = tmp_path / "other" / kind / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            picture(number).save(path)
    result = CliRunner().invoke(app, ["evaluate", out, "--data", str(tmp_path / "other")])
    assert isinstance(result.exception, DataError)
    assert "it knows kind-0, kind-1; the data have hat, shoe" in str(result.exception)


@pytest.mark.parametrize(
    "wrong",
    [
        ["--recipe", "deck-dnn"],
        ["--epochs", "0"],
        ["--seed", "-1"],
        ["--no-such-option"],
        ["--recipe", "backbone-frozen"],
        ["--recipe", "backbone-frozen", "--backbone", "torchvision:vgg99"],
        ["--backbone", "torchvision:vgg19"],
        ["--metric-loss", "triplets"],
        ["--mixup", "0.2"],
        ["--views", "2"],
        ["--frozen-groups", "1"],
        ["--recipe", "vgg19-finetune", "--frozen-groups", "8"],
        ["--learning-rate", "-1"],
        ["--recipe", "vgg19-frozen", "--reduction", "pca"],
    ],
    ids=" ".join,
)
def test_wrong_use_ends_with_exit_code_2(wrong: list[str], tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["train", "--out", str(tmp_path / "m"), *wrong])
    assert result.exit_code == 2
    assert list(tmp_path.iterdir()) == []


def test_ctrl_c_ends_with_code_130_and_resume_finishes(photographs: Path, tmp_path: Path) -> None:
    out = tmp_path / "m"
    asked = ["train", "--out", str(out), "--data", str(photographs), "--device", "cpu"]
    asked += ["--recipe", "deck-cnn", "--epochs", "6"]
    with subprocess.Popen(
        [sys.executable, "-m", "cli.main", *asked], cwd=ROOT, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        while not process.stderr.readline().startswith("epoch 1:"):
            assert process.poll() is None
        os.kill(process.pid, signal.SIGINT)
        rest = process.stderr.read()
    assert process.returncode == 130
    assert "interrupted; what was finished is kept" in rest
    assert not out.exists()

    again = CliRunner().invoke(app, asked)
    assert isinstance(again.exception, CheckpointError)
    finished = CliRunner().invoke(app, [*asked, "--resume"])
    assert finished.exit_code == 0, finished.output
    assert out.exists()


def test_what_cannot_be_trained_ends_in_a_sentence_and_leaves_nothing(
    photographs: Path, tmp_path: Path
) -> None:
    asked = ["train", "--out", str(tmp_path / "m"), "--data", str(photographs), "--device", "cpu"]
    backbone = ["--recipe", "backbone-frozen", "--backbone", "torchvision:squeezenet1_1"]
    backbone += ["--size", "32"]
    for options, sentence in (
        ([*backbone, "--weights", str(tmp_path / "none.pth")], "none.pth"),
        ([*backbone, "--weights", "none", "--layer", "pool6"], "pool6"),
        ([*backbone, "--weights", "none", "--size", "16"], "16"),
        (["--hold-out", "kind-9"], "kind-9"),
        (["--hold-out", "kind-0"], "at least 2"),
        (["--recipe", "cnn", "--precision", "fp16"], "fp16 needs a GPU"),
    ):
        result = CliRunner().invoke(app, [*asked, *options])
        assert isinstance(result.exception, TrainingError), (options, result.output)
        assert sentence in str(result.exception)
        assert list(tmp_path.iterdir()) == []


def test_curves_for_tensorboard_are_written(photographs: Path, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import (  # noqa: PLC0415 - slow
        EventAccumulator,
    )

    asked = ["--data", str(photographs), "--device", "cpu", "--recipe", "cnn"]
    asked += ["--epochs", "2", "--batch-size", "4"]
    curves = str(tmp_path / "curves")
    CliRunner().invoke(
        app, ["train", "--out", str(tmp_path / "m"), *asked, "--tensorboard", curves]
    )
    written = EventAccumulator(curves).Reload()
    assert len(written.Scalars("epoch/loss")) == 2
    assert len(written.Scalars("step/learning_rate")) >= 1
    history = json.loads((tmp_path / "m" / "training.json").read_text())["history"]
    for event, epoch in zip(written.Scalars("epoch/loss"), history, strict=True):
        assert event.value == pytest.approx(epoch["loss"], rel=1e-5)


def write_deep_photographs(folder: Path, *, bits: int) -> Path:
    """Write gray pictures of 16 bits that use ``bits`` of them, in two classes."""
    for label, shade in enumerate((60, 180)):
        for number in range(12):
            gray = np.asarray(picture(number, (40, 36), "L"), np.uint32) // 4 + shade
            values = (gray * ((1 << bits) - 1) // 255).astype(np.uint16)
            path = folder / f"kind-{label}" / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(values).save(path)
    return folder


@pytest.mark.parametrize(
    ("bits", "options", "read_as"),
    [
        (12, [], 12),
        (10, [], 10),
        (16, [], 16),
        (12, ["--bits", "16"], 16),
        (12, ["--bits", "14"], 14),
    ],
)
def test_gray_pictures_of_few_bits_are_seen_and_the_model_keeps_how(
    tmp_path: Path, bits: int, options: list[str], read_as: int
) -> None:
    data = write_deep_photographs(tmp_path / "data", bits=bits)
    out = tmp_path / "m"
    short = ["--recipe", "cnn", "--device", "cpu", "--epochs", "1", "--size", "24"]

    trained = CliRunner().invoke(
        app, ["train", "--out", str(out), "--data", str(data), *short, *options]
    )

    assert trained.exit_code == 0, trained.output
    preprocessing = read_manifest(out).preprocessing
    assert preprocessing.bits == read_as
    assert (f"use only {bits} of them" in trained.stderr) == (bits < 16 and not options)
    first = (data / "kind-1" / "0.png").read_bytes()
    brightest = preprocessing.pixels(preprocessing.decode(first)).max()
    assert brightest >= 180 * 2**bits // 2**read_as
