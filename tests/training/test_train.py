"""Trainings of a fraction of a second, on images of three easy classes."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.support.faults.loop_filesystems import small_filesystem
from tests.support.galleries.labelled_gallery import labelled
from tests.support.images.pngs import picture
from tests.support.paths import ROOT
from training.data.dataset import Dataset, load_dataset
from training.data.images.fashion_mnist import PACKAGE_FOLDER
from training.data.images.labelled_images import LabelledImages
from training.data.images.split import group_keys_of_positions
from training.data.images.training_record import read_training_record
from training.errors import CheckpointError, DivergenceError
from training.evaluation.evaluate import evaluate_model
from training.fit.checkpoint import CheckpointFolder
from training.progress import EpochMetrics, Event, StepMetrics, TrainingStarted
from training.recipes.from_scratch import cnn, cnn_photos, deck_cnn
from training.recipes.recipe import Precision, Recipe
from training.train import train
from vision.errors import ModelFolderError
from vision.image.preprocessing import Preprocessing
from vision.inference.torch_encoder import TorchEncoder
from vision.model.manifest import WEIGHTS_NAME, Manifest, read_manifest

TINY = Preprocessing(size=14, channels=1, mean=(0.3,), std=(0.3,))

# Between them: two optimizers, two schedules, dropout, early stopping, best and averaged weights,
# a metric loss.
OURS = replace(
    cnn(), preprocessing=TINY, width=16, epochs=3, batch_size=8, average=0.9, precision="fp32"
)
LECTURE = replace(deck_cnn(), preprocessing=TINY, epochs=3, validation=0.2, keep_best=True)


def easy_dataset(*, seed: int = 0, each: int = 40) -> Dataset:
    """Return bright squares of three sizes on noise."""
    rng = np.random.default_rng(seed)

    def part(each: int) -> LabelledImages:
        labels_N = np.repeat(np.arange(3), each)
        images_NCHW = rng.integers(0, 90, (len(labels_N), 1, 14, 14)).astype(np.uint8)
        for image_CHW, label in zip(images_NCHW, labels_N, strict=True):
            top, left, side = rng.integers(1, 5), rng.integers(1, 5), 2 + 3 * label
            image_CHW[:, top : top + side, left : left + side] = 220
        images = labelled(images_NCHW, labels_N, ("small", "middle", "large"))
        return replace(
            images, group_keys_N=group_keys_of_positions(labels_N)
        )  # the last ones are held out

    return Dataset(name="squares", train=part(each), test=part(10))


class Watcher:
    """Remembers the epochs, and presses Ctrl-C at a step."""

    def __init__(self, *, interrupt_at: int | None = None) -> None:
        self.epochs: list[EpochMetrics] = []
        self.steps = 0
        self.epochs_done_before = 0
        self._interrupt_at = interrupt_at

    def __call__(self, event: Event) -> None:
        match event:
            case TrainingStarted():
                assert event.epochs >= 1
                assert event.steps_per_epoch >= 1
                self.epochs_done_before = event.epochs_done
            case StepMetrics():
                assert event.images > 0
                self.steps += 1
                if self.steps == self._interrupt_at:
                    raise KeyboardInterrupt
            case EpochMetrics():
                self.epochs.append(event)


def weights(model: Path) -> bytes:
    return (model / WEIGHTS_NAME).read_bytes()


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A model of each recipe, trained in one go."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    for recipe in (OURS, LECTURE):
        train(recipe, easy_dataset(), out=folder / recipe.name, device="cpu")
    return {recipe.name: folder / recipe.name for recipe in (OURS, LECTURE)}


both_recipes = pytest.mark.parametrize("recipe", [OURS, LECTURE], ids=lambda recipe: recipe.name)


def test_what_is_held_out_to_calibrate_with_is_no_copy_of_what_is_learnt() -> None:
    images = easy_dataset(each=10).train
    twice = images.take(np.concatenate([np.arange(30), np.arange(30)]))  # as if saved twice
    rest, held_out = twice.split_validation(0.2)
    assert len(rest) + len(held_out) == 60
    assert len(held_out) == 12
    assert not set(rest.contents_N.tolist()) & set(held_out.contents_N.tolist())
    assert set(held_out.labels_N.tolist()) == {0, 1, 2}


def test_a_model_keeps_what_its_training_looked_at_and_nothing_else(
    uninterrupted: dict[str, Path],
) -> None:
    folder, dataset = uninterrupted[LECTURE.name], easy_dataset()
    learnt = read_training_record(folder, read_manifest(folder))
    assert learnt is not None
    assert learnt.contains(dataset.train.contents_N, dataset.train.phashes_N).all()
    assert not learnt.contains(dataset.test.contents_N, dataset.test.phashes_N).any()


@both_recipes
def test_the_same_seed_gives_the_same_weights_byte_for_byte(
    recipe: Recipe, uninterrupted: dict[str, Path], tmp_path: Path
) -> None:
    train(recipe, easy_dataset(), out=tmp_path / "again", device="cpu")
    assert weights(tmp_path / "again") == weights(uninterrupted[recipe.name])
    train(replace(recipe, seed=1), easy_dataset(), out=tmp_path / "other", device="cpu")
    assert weights(tmp_path / "other") != weights(uninterrupted[recipe.name])


@both_recipes
@pytest.mark.parametrize("epoch", [0, 1, 2])
def test_an_interrupted_training_goes_on_to_the_same_weights(
    recipe: Recipe, epoch: int, uninterrupted: dict[str, Path], tmp_path: Path
) -> None:
    out = tmp_path / "model"
    watcher = Watcher()
    train(recipe, easy_dataset(), out=tmp_path / "count", device="cpu", progress=watcher)
    steps_per_epoch = watcher.steps // 3

    stopper = Watcher(interrupt_at=epoch * steps_per_epoch + 2)
    with pytest.raises(KeyboardInterrupt):
        train(recipe, easy_dataset(), out=out, device="cpu", progress=stopper)
    assert not out.exists()

    rest = Watcher()
    manifest = train(recipe, easy_dataset(), out=out, device="cpu", resume=True, progress=rest)
    assert rest.epochs_done_before == epoch
    assert weights(out) == weights(uninterrupted[recipe.name])
    assert manifest.metrics["epochs"] == 3
    assert list(tmp_path.glob("*.training")) == []


def test_a_training_killed_with_kill_9_goes_on_to_the_same_weights(
    uninterrupted: dict[str, Path], tmp_path: Path
) -> None:
    out = tmp_path / "model"
    program = f"""
import pathlib, sys, time
import torch
from tests.training.test_train import LECTURE, Watcher, easy_dataset
from training.progress import EpochMetrics
from training.train import train

torch.set_num_threads(1)

class Slow(Watcher):
    def __call__(self, event):
        super().__call__(event)
        if isinstance(event, EpochMetrics):
            print("epoch", flush=True)
        elif self.epochs:
            time.sleep(0.2)  # the parent kills in here

train(LECTURE, easy_dataset(), out=pathlib.Path({str(out)!r}), device="cpu", progress=Slow())
"""
    with subprocess.Popen(
        [sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "epoch\n"
        os.kill(process.pid, signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    assert not out.exists()
    rest = Watcher()
    train(LECTURE, easy_dataset(), out=out, device="cpu", resume=True, progress=rest)
    assert rest.epochs_done_before >= 1
    assert weights(out) == weights(uninterrupted[LECTURE.name])


def test_the_model_folder_says_how_it_was_made(uninterrupted: dict[str, Path]) -> None:
    manifest = TorchEncoder.load(uninterrupted["cnn"], device="cpu").manifest
    assert manifest.recipe == OURS.to_json()
    assert manifest.data["train_fingerprint"] == easy_dataset().train.fingerprint
    assert manifest.labels == ("small", "middle", "large")
    assert manifest.metrics["test_accuracy"] >= 0.8
    assert manifest.metrics["train_seconds"] > 0


def test_evaluation_agrees_with_what_training_measured(uninterrupted: dict[str, Path]) -> None:
    evaluation = evaluate_model(uninterrupted["cnn"], easy_dataset(), device="cpu").evaluation
    manifest = TorchEncoder.load(uninterrupted["cnn"], device="cpu").manifest
    figures = evaluation.to_json()
    assert figures["accuracy"] == manifest.metrics["test_accuracy"]
    assert (evaluation.images, evaluation.gallery_images) == (30, 120)
    assert figures["r_at_1"] >= 0.8
    assert {"accuracy", "r_at_1", "precision_at_10", "map"} <= evaluation.to_json().keys()


def test_training_stops_when_patience_is_over_and_keeps_the_best_epoch(tmp_path: Path) -> None:
    rising = replace(LECTURE, epochs=50, learning_rate=0.02, patience=2)
    watcher = Watcher()
    manifest = train(rising, easy_dataset(), out=tmp_path / "m", device="cpu", progress=watcher)
    losses = [report.validation_loss for report in watcher.epochs]
    assert len(losses) < 50
    best = losses.index(min(loss for loss in losses if loss is not None)) + 1
    assert len(losses) == best + 2
    assert manifest.metrics["kept_epoch"] == best


def test_a_short_loss_curve_stays_where_it_was(tmp_path: Path) -> None:
    watcher = Watcher()
    train(OURS, easy_dataset(), out=tmp_path / "m", device="cpu", progress=watcher)
    assert [report.loss for report in watcher.epochs] == pytest.approx(GOLDEN_LOSSES, abs=0.05)


GOLDEN_LOSSES = [1.207, 1.021, 1.073]


def test_a_folder_of_photographs_becomes_a_model_that_knows_them(tmp_path: Path) -> None:
    for part, count, first in (("train", 12, 0), ("test", 4, 50)):
        for label in range(3):
            for number in range(count):
                path = tmp_path / "data" / part / f"kind-{label}" / f"{number}.jpg"
                path.parent.mkdir(parents=True, exist_ok=True)
                image = np.asarray(picture(100 * label + first + number, (80, 70))) // 4
                image[:, :, label] += 180
                Image.fromarray(image).save(path)
    recipe = replace(cnn_photos(), epochs=3, batch_size=12)
    dataset = load_dataset(str(tmp_path / "data"), recipe.preprocessing)
    manifest = train(recipe, dataset, out=tmp_path / "model", device="cpu")
    assert manifest.metrics["test_accuracy"] == 1
    encoder = TorchEncoder.load(tmp_path / "model", device="cpu")
    data = (tmp_path / "data" / "test" / "kind-2" / "0.jpg").read_bytes()
    pixels_CHW = recipe.preprocessing.pixels(recipe.preprocessing.decode(data))
    encoding = encoder.encode(pixels_CHW[None])
    assert encoder.manifest.labels[encoding.probabilities_BL[0].argmax()] == "kind-2"
    assert np.linalg.norm(encoding.vectors_BD[0]) == pytest.approx(1, abs=1e-5)


# What is in the way


def test_an_existing_model_is_never_overwritten(
    uninterrupted: dict[str, Path], tmp_path: Path
) -> None:
    before = weights(uninterrupted["cnn"])
    with pytest.raises(ModelFolderError, match="exists already"):
        train(OURS, easy_dataset(), out=uninterrupted["cnn"], device="cpu")
    assert weights(uninterrupted["cnn"]) == before


def interrupted(out: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(OURS, easy_dataset(), out=out, device="cpu", progress=Watcher(interrupt_at=20))


def test_an_interrupted_training_is_not_passed_over_in_silence(tmp_path: Path) -> None:
    interrupted(tmp_path / "m")
    with pytest.raises(CheckpointError, match="holds an interrupted training; resume it, or"):
        train(OURS, easy_dataset(), out=tmp_path / "m", device="cpu")


@pytest.mark.parametrize(
    ("recipe", "dataset", "sentence"),
    [
        (
            replace(OURS, learning_rate=0.05),
            easy_dataset,
            "another recipe: learning_rate was 0.1, now 0.05",
        ),
        (OURS, lambda: easy_dataset(seed=1), "another data: test_fingerprint was"),
    ],
)
def test_a_training_of_something_else_is_refused(
    tmp_path: Path, recipe: Recipe, dataset: Callable[[], Dataset], sentence: str
) -> None:
    interrupted(tmp_path / "m")
    with pytest.raises(CheckpointError, match=sentence):
        train(recipe, dataset(), out=tmp_path / "m", device="cpu", resume=True)


def test_resuming_what_was_never_begun_begins_it(
    uninterrupted: dict[str, Path], tmp_path: Path
) -> None:
    train(OURS, easy_dataset(), out=tmp_path / "m", device="cpu", resume=True)
    assert weights(tmp_path / "m") == weights(uninterrupted["cnn"])


def test_two_trainings_of_one_model_at_once_are_refused(tmp_path: Path) -> None:
    out = tmp_path / "m"
    with (
        CheckpointFolder(tmp_path / "m.training"),
        pytest.raises(CheckpointError, match="another training is at work"),
    ):
        train(OURS, easy_dataset(), out=out, device="cpu")
    train(OURS, easy_dataset(), out=out, device="cpu")


def test_a_diverging_training_stops_and_leaves_no_model(tmp_path: Path) -> None:
    wild = replace(OURS, learning_rate=1e30, schedule="constant", max_gradient_norm=1e30)
    with pytest.raises(DivergenceError, match="finite numbers were expected"):
        train(wild, easy_dataset(), out=tmp_path / "m", device="cpu")
    assert list(tmp_path.iterdir()) == []


def test_a_disk_too_small_for_a_checkpoint_ends_in_a_sentence(tmp_path: Path) -> None:
    with small_filesystem(tmp_path / "disk", megabytes=1) as disk:
        (disk / "ballast").write_bytes(bytes(900_000))
        with pytest.raises(CheckpointError, match=r"cannot save the training .* No space left"):
            train(OURS, easy_dataset(), out=disk / "m", device="cpu")
        assert [path.name for path in disk.iterdir()] == ["ballast"]


def test_a_disk_that_fills_before_the_model_is_written_loses_no_epoch(
    uninterrupted: dict[str, Path], tmp_path: Path
) -> None:
    with small_filesystem(tmp_path / "disk", megabytes=3) as disk:
        ballast = disk / "ballast"

        class Filler(Watcher):
            def __call__(self, event: Event) -> None:
                super().__call__(event)
                if isinstance(event, EpochMetrics) and event.epoch == OURS.epochs:
                    room = os.statvfs(disk).f_bavail * os.statvfs(disk).f_bsize
                    ballast.write_bytes(bytes(room - 20_000))

        with pytest.raises(ModelFolderError, match="No space left"):
            train(OURS, easy_dataset(), out=disk / "m", device="cpu", progress=Filler())
        assert not (disk / "m").exists()
        ballast.unlink()
        manifest: Manifest = train(OURS, easy_dataset(), out=disk / "m", device="cpu", resume=True)
        assert manifest.metrics["epochs"] == 3
        assert weights(disk / "m") == weights(uninterrupted["cnn"])


@pytest.mark.skipif(not PACKAGE_FOLDER.is_dir(), reason="dataset-fashion-mnist is not installed")
def test_a_twentieth_of_fashion_mnist_is_enough_to_learn_something(tmp_path: Path) -> None:
    recipe = replace(cnn(), epochs=2, batch_size=64)
    whole = load_dataset("fashion-mnist", recipe.preprocessing)
    part = replace(
        whole, train=whole.train.take(np.arange(3000)), test=whole.test.take(np.arange(1000))
    )
    manifest = train(recipe, part, out=tmp_path / "m", device="cpu")
    assert manifest.metrics["test_accuracy"] > 0.6


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("precision", ["auto", "fp16", "fp32"])
def test_a_gpu_trains_in_every_precision_and_goes_on_where_it_was(
    precision: Precision, tmp_path: Path
) -> None:
    recipe = replace(OURS, precision=precision, compile=precision == "auto")
    manifest = train(recipe, easy_dataset(), out=tmp_path / "whole", device="cuda")
    assert manifest.metrics["test_accuracy"] >= 0.8
    with pytest.raises(KeyboardInterrupt):
        train(
            *(recipe, easy_dataset()),
            **{"out": tmp_path / "parts", "device": "cuda"},
            progress=Watcher(interrupt_at=20),
        )
    train(recipe, easy_dataset(), out=tmp_path / "parts", device="cuda", resume=True)
    assert weights(tmp_path / "parts") == weights(tmp_path / "whole")
