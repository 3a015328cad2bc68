"""Nothing is measured that was learnt: records in model folders, and `lookalike evaluate`."""

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import typer
from click.testing import Result
from typer.testing import CliRunner

from cli.compare import compare as compare_command
from cli.evaluate import evaluate as evaluate_command
from tests.support.images.pngs import picture
from tests.support.models import manifest
from training.data.dataset import load_dataset
from training.data.images.photo_hashes import hash_photo
from training.data.images.training_record import (
    TRAINING_RECORD_NAME,
    TRAINING_RECORD_SHA256,
    TrainingRecord,
    read_training_record,
)
from training.data.unseen_images import load_unseen
from training.errors import DataError
from vision.errors import ModelFolderError
from vision.image.preprocessing import Preprocessing
from vision.model.manifest import Manifest, read_manifest
from vision.networks.network import build_network
from vision.networks.saved_model import save_model

LABELS = ("bag", "coat", "hat")
SMALL = Preprocessing(size=14, channels=3, mean=(0.5,) * 3, std=(0.5,) * 3)

app = typer.Typer()
app.command("evaluate")(evaluate_command)
app.command("compare")(compare_command)


def photos(
    folder: Path, *, each: int, first_seed: int = 0, labels: tuple[str, ...] = LABELS
) -> Path:
    for number, name in enumerate(labels):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for image in range(each):
            seed = first_seed + 1000 * number + image
            picture(seed, (80, 60)).save(folder / name / f"{seed}.png")
    return folder


def write_model(
    folder: Path, learnt: TrainingRecord | None, *, seed: int = 0, **changes: Any
) -> Manifest:
    """Write a network with random weights that says it has learnt from these images."""
    unbound = replace(manifest(size=14, labels=LABELS), preprocessing=SMALL, **changes)
    files: dict[str, bytes] = {}
    if learnt is not None:
        files[TRAINING_RECORD_NAME] = learnt.to_bytes()
        sha256 = hashlib.sha256(files[TRAINING_RECORD_NAME]).hexdigest()
        unbound = replace(unbound, data={**unbound.data, TRAINING_RECORD_SHA256: sha256})
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = build_network(unbound.architecture, unbound.preprocessing)
    return save_model(folder, unbound, network.state_dict(), lambda _: files)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return photos(tmp_path / "photos", each=40)


@pytest.fixture
def model(tmp_path: Path, data: Path) -> Path:
    write_model(tmp_path / "model", TrainingRecord.of(load_dataset(str(data), SMALL).train))
    return tmp_path / "model"


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [*map(str, arguments), "--device", "cpu"])


def evaluated(model: Path, data: Path) -> dict[str, Any]:
    result = run("evaluate", model, "--data", data, "--json")
    assert result.exit_code == 0, result.output
    printed: dict[str, Any] = json.loads(result.stdout)
    assert printed == json.loads((model / "report.json").read_text())
    return printed


# Records


def test_a_record_is_small_and_the_same_in_whatever_order_the_images_came(data: Path) -> None:
    train = load_dataset(str(data), SMALL).train
    record = TrainingRecord.of(train)
    turned = TrainingRecord.of(train.take(np.arange(len(train))[::-1].copy()))
    assert record.to_bytes() == turned.to_bytes()
    assert len(record.to_bytes()) < 16 * len(train) + 300
    again = TrainingRecord.from_bytes(record.to_bytes())
    assert again.contains(train.contents_N, train.phashes_N).all()


def test_what_looks_like_an_image_that_is_there_itself_is_judged_by_the_pictures() -> None:
    numbers = np.array([1, 2, 3], np.uint64)
    looks = np.array([0b1111_0000, 0b1111_0001, 0b1010_1010_1010_1010], np.uint64)
    record = TrainingRecord(contents_K=numbers[:1], phashes_K=looks[:1])
    assert record.contains(numbers, looks).tolist() == [True, False, False]
    assert record.contains(numbers[1:], looks[1:]).tolist() == [True, False]


def test_a_record_does_not_change_the_models_fingerprint(tmp_path: Path, data: Path) -> None:
    train = load_dataset(str(data), SMALL).train
    without = write_model(tmp_path / "without", None)
    with_record = write_model(tmp_path / "with", TrainingRecord.of(train))
    assert without.fingerprint == with_record.fingerprint
    assert read_training_record(tmp_path / "without", without) is None
    assert read_training_record(tmp_path / "with", with_record) is not None


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def changed(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("harm", "sentence"),
    [
        (Path.unlink, "has no learnt.safetensors, which its manifest names"),
        (cut, "was changed: its SHA-256 is not the manifest's"),
        (changed, "was changed: its SHA-256 is not the manifest's"),
    ],
)
def test_a_damaged_record_is_refused_with_a_sentence(
    model: Path, harm: Callable[[Path], None], sentence: str
) -> None:
    harm(model / TRAINING_RECORD_NAME)
    with pytest.raises(ModelFolderError, match=sentence):
        read_training_record(model, read_manifest(model))


@pytest.mark.parametrize("content", [b"", b"x" * 99])
def test_what_is_no_record_is_refused_with_a_sentence(content: bytes) -> None:
    with pytest.raises(ModelFolderError, match="is damaged"):
        TrainingRecord.from_bytes(content)


# Data that were learnt from, with changes


def test_the_part_that_was_kept_apart_is_measured_and_the_rest_is_said(
    model: Path, data: Path
) -> None:
    split = load_dataset(str(data), SMALL)
    figures = evaluated(model, data)
    assert figures["images"] == len(split.test)
    assert figures["gallery_images"] == len(split.train)
    assert figures["data"]["selection"] == {
        "images": 120,
        "known": len(split.train),
        "unknown_classes": [],
        "unknown_images": 0,
        "recorded": True,
        "drawn_of": 0,
        "classes": 3,
        "among": "learnt images",
    }
    sentence = f"{len(split.train)} of 120 images were left out: the model has learnt from them."
    assert sentence in figures["in_words"]
    assert sentence in (model / "report.html").read_text()
    assert sentence in " ".join(run("evaluate", model, "--data", data).stdout.split())


def test_adding_and_renaming_photos_changes_no_more_than_what_the_new_one_adds(
    model: Path, data: Path
) -> None:
    before = evaluated(model, data)
    picture(4711, (80, 60)).save(data / "bag" / "0000-new.png")
    after = evaluated(model, data)
    right = round(before["accuracy"] * before["images"])
    assert after["images"] == before["images"] + 1
    assert round(after["accuracy"] * after["images"]) in (right, right + 1)
    for path in sorted(data.rglob("*.png"))[::3]:
        path.rename(path.with_name(f"zz-{path.name}"))
    renamed = evaluated(model, data)
    assert (renamed["images"], renamed["accuracy"]) == (after["images"], after["accuracy"])


def test_copies_of_what_was_learnt_are_known_whatever_they_are_called_and_however_saved(
    model: Path, data: Path, tmp_path: Path
) -> None:
    split = load_dataset(str(data), SMALL)
    learnt = set(split.train.contents_N.tolist())
    copies = tmp_path / "copies"
    known = 0
    for path in sorted(data.rglob("*.png")):
        image = picture(int(path.stem), (80, 60))
        if hash_photo(path.read_bytes(), image).content not in learnt:
            continue
        known += 1
        (copies / path.parent.name).mkdir(parents=True, exist_ok=True)
        target = copies / path.parent.name / f"c{path.stem}"
        if known % 2:
            shutil.copy(path, target.with_suffix(".png"))
        else:
            image.save(target.with_suffix(".bmp"))
    photos(copies, each=3, first_seed=500)
    figures = evaluated(model, copies)
    assert figures["images"] == 9
    assert figures["data"]["selection"]["known"] == known


# New data


def test_of_a_wholly_new_folder_everything_is_measured_each_among_the_others(
    model: Path, tmp_path: Path
) -> None:
    figures = evaluated(model, photos(tmp_path / "new", each=12, first_seed=500))
    assert (figures["images"], figures["data"]["selection"]["known"]) == (36, 0)
    assert figures["data"]["selection"]["among"] == "measured images"
    assert figures["r_at_1"] < 1  # no image finds itself


def test_a_new_folder_may_have_few_of_the_classes_and_some_of_its_own(
    model: Path, tmp_path: Path
) -> None:
    new = photos(tmp_path / "new", each=5, first_seed=500, labels=("zebra", "hat", "bag", "apple"))
    figures = evaluated(model, new)
    assert figures["images"] == 10
    assert [(one["label"], one["images"]) for one in figures["classes"]] == [
        ("bag", 5),
        ("coat", 0),
        ("hat", 5),
    ]
    assert figures["classes"][1]["recall"] is None
    selection = figures["data"]["selection"]
    assert (selection["unknown_classes"], selection["unknown_images"]) == (["apple", "zebra"], 10)
    said = " ".join(figures["in_words"])
    assert "10 images of classes that the model does not know were left out: apple, zebra." in said
    assert "1 class has no test image and is not measured: coat." in said


def test_a_new_folder_of_one_class_is_measured(model: Path, tmp_path: Path) -> None:
    new = photos(tmp_path / "new", each=4, labels=("hat",), first_seed=600)
    figures = evaluated(model, new)
    assert figures["images"] == 4
    assert figures["data"]["selection"]["classes"] == 1
    assert sum("of one class, so that a search can only" in one for one in figures["in_words"]) == 1


def test_where_everything_is_known_a_sentence_says_so(model: Path, data: Path) -> None:
    split = load_dataset(str(data), SMALL)
    record = read_training_record(model, read_manifest(model))
    assert record is not None
    for path in data.rglob("*.png"):
        identity = hash_photo(path.read_bytes(), picture(int(path.stem), (80, 60)))
        if identity.content in split.test.contents_N:
            path.unlink()
    result = run("evaluate", model, "--data", data)
    assert isinstance(result.exception, DataError)
    assert str(result.exception) == (
        f"nothing of {data} is left to measure: the model has learnt from all "
        f"{len(split.train)} images of it"
    )


def test_where_no_class_is_known_a_sentence_names_both_sides(model: Path, tmp_path: Path) -> None:
    photos(tmp_path / "new", each=3, labels=("apple", "zebra"))
    result = run("evaluate", model, "--data", tmp_path / "new")
    assert "it knows bag, coat, hat; the data have apple, zebra" in str(result.exception)


def test_of_data_with_parts_the_test_part_is_measured_less_what_is_known(tmp_path: Path) -> None:
    data = tmp_path / "data"
    photos(data / "train", each=6)
    photos(data / "test", each=4, first_seed=500)
    test = load_dataset(str(data), SMALL).test
    write_model(tmp_path / "model", TrainingRecord.of(test.take(np.arange(5))))
    figures = evaluated(tmp_path / "model", data)
    assert (figures["images"], figures["gallery_images"]) == (7, 18)
    assert figures["data"]["selection"]["images"] == 12


def test_a_model_that_keeps_no_record_is_measured_with_a_warning(
    tmp_path: Path, data: Path
) -> None:
    write_model(tmp_path / "old", None)
    figures = evaluated(tmp_path / "old", data)
    assert figures["images"] == len(load_dataset(str(data), SMALL).test)
    assert "does not say what it has learnt from" in figures["in_words"][0]
    assert f"of the 120 images, those {figures['images']} are measured" in figures["in_words"][0]


# Comparing


def test_what_any_of_the_models_has_learnt_from_is_left_out_of_a_comparison(
    tmp_path: Path, data: Path
) -> None:
    images = load_dataset(str(data), SMALL)
    write_model(tmp_path / "first", TrainingRecord.of(images.train))
    write_model(tmp_path / "second", TrainingRecord.of(images.test.take(np.arange(10))), seed=1)
    folders = (tmp_path / "first", tmp_path / "second")
    result = run("compare", *folders, "--data", data, "--json")
    assert result.exit_code == 0, result.output
    printed = json.loads(result.stdout)
    assert printed["images"] == len(images.test) - 10
    known = len(images.train) + 10
    assert f"{known} of 120 images were left out" in printed["in_words"][0]


# Classes that were held out


def test_a_picture_of_a_held_out_class_and_of_a_known_one_is_not_searched_for(
    tmp_path: Path,
) -> None:
    data = photos(tmp_path / "data", each=12)
    for path in sorted((data / "bag").iterdir())[:3]:
        shutil.copy(path, data / "hat" / f"copy-{path.name}")
    dataset = load_dataset(str(data), SMALL, hold_out=["hat"])
    assert dataset.held_out is not None
    assert len(dataset.held_out.train) + len(dataset.held_out.test) == 12
    reasons = {finding.reason: finding.count for finding in dataset.findings}
    assert reasons["of a class that is held out, but a copy is in a known class: left out"] == 3


def test_held_out_classes_are_measured_where_the_data_have_them_and_not_missed_elsewhere(
    tmp_path: Path,
) -> None:
    data = photos(tmp_path / "data", each=20, labels=(*LABELS, "scarf"))
    dataset = load_dataset(str(data), SMALL, hold_out=["scarf"])
    write_model(
        tmp_path / "model", TrainingRecord.of(dataset.train), data={"held_out_classes": ["scarf"]}
    )
    model = read_manifest(tmp_path / "model")
    learnt = [read_training_record(tmp_path / "model", model)]
    measured = load_unseen(str(data), model, learnt)
    assert measured.held_out is not None
    assert measured.held_out.test.label_names == ("scarf",)
    assert len(measured.held_out.train) + len(measured.held_out.test) == 20
    shutil.rmtree(data / "scarf")
    assert load_unseen(str(data), model, learnt).held_out is None
