"""`lookalike export` as a program: what it prints, what it refuses, and who takes the export."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cli.export_model import sample_of
from tests.support.commands.run_command import lookalike
from tests.support.images.pngs import png, write_photographs
from tests.support.models import manifest, write_model
from training.data.dataset import load_dataset
from training.data.images.training_record import TrainingRecord
from training.data.unseen_images import load_unseen
from vision.inference.openvino_encoder import RUNTIME
from vision.model.export_folder import has_export

LENIENT = ("--min-overlap", "0", "--max-accuracy-loss", "100")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_photographs(tmp_path_factory.mktemp("photos"), classes=2)


@pytest.fixture
def small(tmp_path: Path, photos: Path) -> Path:
    """A model of the photos' classes, with random weights."""
    labels = tuple(sorted(path.name for path in photos.iterdir()))
    write_model(tmp_path / "m", labels=labels)
    return tmp_path / "m"


def test_an_export_is_measured_and_then_taken_by_other_commands(
    small: Path, photos: Path, tmp_path: Path
) -> None:
    (tmp_path / "a.png").write_bytes(png(1))
    before = lookalike("classify", str(small), str(tmp_path / "a.png"), "--json")
    options = ("--precision", "int8", "--json", *LENIENT)
    done = lookalike("export", str(small), "--data", str(photos), *options)
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)
    assert (figures["runtime"], figures["precision"]) == ("openvino", "int8")
    assert 0.9 < figures["cosine_mean"] < 1
    assert figures["lost"] - figures["won"] == round(
        figures["images"] * (figures["accuracy_torch"] - figures["accuracy"])
    )
    assert f"of {figures['images']} test images lost their right class" in figures["in_words"]
    assert "points is excluded (95 %)" in figures["in_words"]

    after, torchs = (
        lookalike("classify", str(small), str(tmp_path / "a.png"), "--json", *options)
        for options in ((), ("--runtime", "torch"))
    )
    assert before.stdout == torchs.stdout
    probabilities = [json.loads(one.stdout)["probability"] for one in (before, after)]
    assert probabilities[0] == pytest.approx(probabilities[1], abs=0.05)
    assert probabilities[0] != probabilities[1]


@pytest.mark.parametrize("learnt", [True, False])
def test_nothing_that_was_learnt_is_measured_and_nothing_measured_calibrates(
    tmp_path: Path, learnt: bool
) -> None:
    (tmp_path / "photos").mkdir()
    data = write_photographs(tmp_path / "photos", classes=2)
    write_unlike(data)
    preprocessing = manifest().preprocessing
    images = load_dataset(str(data), preprocessing)
    record = TrainingRecord.of(images.train if learnt else images.train.take(np.zeros(0, np.int64)))
    learnt_record = [record]
    wanted = replace(manifest(labels=images.label_names), preprocessing=preprocessing)
    dataset = load_unseen(str(data), wanted, learnt_record)
    sample = sample_of(dataset, 10_000)
    measured, calibrating = (
        {image.tobytes() for image in part} for part in (sample.test_NCHW, sample.calibration_NCHW)
    )
    assert measured
    assert calibrating
    assert not measured & calibrating
    if learnt:
        assert measured == {image.tobytes() for image in images.test.images_NCHW}
        assert calibrating <= {image.tobytes() for image in images.train.images_NCHW}


def write_unlike(folder: Path) -> None:
    """Add pictures that are no copies of one another to every class."""
    for number, path in enumerate(sorted(folder.iterdir())):
        for seed in range(15):
            (path / f"unlike-{seed}.png").write_bytes(png(1000 * number + seed, (80, 60)))


def test_data_of_other_classes_are_refused(model: Path, photos: Path) -> None:
    done = lookalike("export", str(model), "--data", str(photos))

    assert done.returncode == 1
    assert "of a class that the model knows: it knows coat" in " ".join(done.stderr.split())
    assert not has_export(model, RUNTIME)


def test_a_runtime_without_an_export_is_one_sentence(small: Path, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png(1))
    done = lookalike("classify", str(small), str(tmp_path / "a.png"), "--runtime", "openvino")

    assert done.returncode == 1
    assert "lookalike: " in done.stderr
    assert "no manifest.json" in " ".join(done.stderr.split())
