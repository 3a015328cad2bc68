"""`lookalike export` as a program: what it prints, what it refuses, and who takes the export."""

import json
from pathlib import Path

import pytest

from tests.models import write_model
from tests.pictures import png, write_photographs
from tests.test_cli import lookalike
from vision.exported import has_export
from vision.openvino_encoder import RUNTIME

LENIENT = ("--min-cosine", "0.9", "--max-accuracy-loss", "100")


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
    done = lookalike("export", str(small), "--data", str(photos), "--json", *LENIENT)
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)
    assert (figures["runtime"], figures["precision"]) == ("openvino", "int8")
    assert 0.9 < figures["cosine_mean"] < 1

    after, torchs = (
        lookalike("classify", str(small), str(tmp_path / "a.png"), "--json", *options)
        for options in ((), ("--runtime", "torch"))
    )
    assert before.stdout == torchs.stdout
    probabilities = [json.loads(one.stdout)["probability"] for one in (before, after)]
    assert probabilities[0] == pytest.approx(probabilities[1], abs=0.05)
    assert probabilities[0] != probabilities[1]


def test_an_export_that_loses_too_much_is_one_sentence_and_exit_code_1(
    small: Path, photos: Path
) -> None:
    done = lookalike("export", str(small), "--data", str(photos), "--min-cosine", "1")

    assert done.returncode == 1
    sentence = " ".join(done.stderr.split())
    assert "the mean cosine is below 1.0: mean cosine 0.9" in sentence
    assert "--precision fp32 loses nothing" in sentence
    assert not has_export(small, RUNTIME)


def test_data_of_other_classes_are_refused(model: Path, photos: Path) -> None:
    done = lookalike("export", str(model), "--data", str(photos))

    assert done.returncode == 1
    assert "knows the classes" in done.stderr
    assert not has_export(model, RUNTIME)


def test_a_runtime_without_an_export_is_one_sentence(small: Path, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png(1))
    done = lookalike("classify", str(small), str(tmp_path / "a.png"), "--runtime", "openvino")

    assert done.returncode == 1
    assert "lookalike: " in done.stderr
    assert "no manifest.json" in " ".join(done.stderr.split())
