"""Options of `lookalike train` on tiny data: each set ends in a model or in one sentence."""

import json
import os
from pathlib import Path

import pytest
import safetensors.torch
import torch
from typer.testing import CliRunner, Result

from cli.commands import app
from index.errors import VectorIndexError
from tests.support.images.pngs import picture
from training.errors import TrainingError
from vision.errors import VisionError
from vision.networks.backbone import build_backbone

SMALL = "torchvision:shufflenet_v2_x0_5"
OURS = (TrainingError, VisionError, VectorIndexError)
MODEL = "a model"  # what an option set ends in, where it is no sentence
WRONG_USE = 2  # typer's exit code
FROZEN = f"--recipe backbone-frozen --backbone {SMALL} --weights none --size 32"
TUNED = f"--recipe backbone-finetune --backbone {SMALL} --weights none --size 32"


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes of ten pictures each."""
    folder = tmp_path_factory.mktemp("photos")
    for kind in range(3):
        (folder / f"kind-{kind}").mkdir()
        for number in range(10):
            picture(100 * kind + number).save(folder / f"kind-{kind}" / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes with one picture each to learn from, and two to measure with."""
    folder = tmp_path_factory.mktemp("few")
    for part, each in (("train", 1), ("test", 2)):
        for kind in range(3):
            (folder / part / f"kind-{kind}").mkdir(parents=True)
            for number in range(each):
                path = folder / part / f"kind-{kind}" / f"{number}.png"
                picture(100 * kind + number + 50 * (part == "test")).save(path)
    return folder


def run(data: Path, options: str, out: Path) -> Result:
    arguments = ["train", "--data", str(data), "--out", str(out), "--device", "cpu"]
    if "--epochs" not in options:
        arguments += ["--epochs", "1"]
    if "--recipe" not in options:
        arguments += ["--recipe", "cnn"]
    return CliRunner().invoke(app, [*arguments, *options.split()])


def assert_ends_well(result: Result, expected: str, out: Path) -> None:
    """Check for a model, or for a sentence that holds ``expected`` and leaves nothing behind."""
    if expected == MODEL:
        assert result.exit_code == 0, (result.output, repr(result.exception))
        assert (out / "manifest.json").exists()
        return
    assert result.exit_code in (1, WRONG_USE), (result.output, repr(result.exception))
    if result.exit_code == WRONG_USE:
        said = " ".join(result.output.replace("│", " ").split())
    else:
        assert isinstance(result.exception, OURS), repr(result.exception)
        said = str(result.exception)
        assert "\n" not in said
    assert expected in said
    assert not out.exists()
    assert not out.with_name(f"{out.name}.training").exists()


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        # Batches
        ("--size 24 --batch-size 1", "needs a batch size of at least 2"),
        ("--size 24 --batch-size 2", MODEL),
        ("--size 24 --batch-size 23", MODEL),
        ("--size 24 --batch-size 100000", MODEL),
        ("--recipe deck-cnn --batch-size 1", MODEL),
        (
            "--recipe deck-cnn --batch-size 1 --metric-loss supervised-contrastive",
            "no batch would hold two of one",
        ),
        ("--recipe cnn-best --size 24 --batch-size 1", "needs a batch size of at least 2"),
        (f"{FROZEN} --batch-size 1", "needs a batch size of at least 2"),
        (f"{FROZEN} --batch-size 1 --reduction pca --width 4 --metric-loss none", MODEL),
        (f"{TUNED} --batch-size 1", "needs a batch size of at least 2"),
        ("--batch-size 0", "batch-size"),
        # Widths and reductions
        (f"{FROZEN} --reduction pca --width 128 --metric-loss none", "principal components"),
        (f"{FROZEN} --reduction pca --width 2000 --metric-loss none", "cannot make 2000"),
        (f"{FROZEN} --reduction pca --width 12 --metric-loss none --views 1", MODEL),
        (f"{FROZEN} --reduction pca --width 8", "needs a projection"),
        (f"{FROZEN} --reduction none --metric-loss none --width 7", "gives 1024 numbers"),
        (f"{FROZEN} --reduction none --metric-loss none --width 1024", MODEL),
        (f"{TUNED} --reduction pca --metric-loss none", "so it needs a frozen backbone"),
        ("--recipe deck-cnn --width 8", "has width 256, not 8"),
        ("--reduction pca", "needs a frozen backbone"),
        ("--reduction projection", "an embedding of its own"),
        ("--width 0", "width"),
        ("--width 1 --size 24", MODEL),
        ("--width 100000000000000", "width"),
        # Layers and sizes
        (f"{FROZEN} --layer fc9", "no layer 'fc9'"),
        (f"{FROZEN} --layer penultimate+penultimate", "twice"),
        (f"{FROZEN} --layer +", "twice"),
        ("--layer fc7", "has the embedding layer"),
        ("--size 4", "images of 4 pixels are too small"),
        ("--size 12", "at least 13 pixels"),
        ("--recipe deck-cnn --size 9", "at least 10 pixels"),
        ("--recipe cnn-best --size 15", "at least 16 pixels"),
        ("--size 13", MODEL),
        ("--size 1000000", "size"),
        (f"{FROZEN} --size 1", MODEL),
        ("--recipe backbone-frozen --backbone torchvision:alexnet --weights none --size 16", "224"),
        ("--recipe backbone-frozen --backbone torchvision:vgg99", "close to it are"),
        ("--recipe backbone-frozen --backbone vgg19", "expected torchvision:NAME"),
        ("--fit stretch", "fit"),
        # Rates and the like
        ("--epochs 0", "epochs"),
        ("--epochs -3", "epochs"),
        ("--learning-rate 0", "learning_rate must be above 0"),
        ("--learning-rate -1", "learning_rate must be above 0"),
        ("--learning-rate nan", "learning_rate must be above 0"),
        ("--learning-rate inf", "finite"),
        ("--size 24 --learning-rate 1e30 --epochs 3", "diverged"),
        ("--class-balance nan", "class-balance"),
        ("--class-balance 2", "class-balance"),
        ("--erase nan", "erase"),
        ("--mixup nan --metric-loss none", "mixup"),
        ("--mixup inf --metric-loss none", "finite"),
        ("--cutmix inf --metric-loss none", "finite"),
        ("--seed -1", "seed"),
        ("--seed 99999999999999999999999999", "seed"),
        ("--size 24 --seed 9223372036854775807", MODEL),
        # Losses and mixing
        ("--mixup 0.2", "needs one label per image"),
        ("--size 24 --mixup 0.2 --cutmix 1 --metric-loss none", MODEL),
        ("--recipe deck-cnn --mixup 0.2 --batch-size 1", MODEL),
        ("--recipe deck-cnn --cutmix 1 --batch-size 1", MODEL),
        ("--size 24 --metric-loss cosface --batch-size 2", MODEL),
        ("--size 24 --metric-loss triplets", "metric-loss"),
        (f"{FROZEN} --mixup 0.5 --metric-loss none", "learns nothing from mixed images"),
        (f"{FROZEN} --views 1", MODEL),
        (f"{FROZEN} --views 0", "views"),
        (f"{TUNED} --views 2", "cannot be fine-tuned"),
        (f"{TUNED} --frozen-groups 8", "at least one of the 8 groups"),
        (f"{TUNED} --frozen-groups 7", MODEL),
        ("--frozen-groups 1", "no fine-tuning"),
        # Devices and precision
        ("--precision fp16", "fp16 needs a GPU"),
        ("--size 24 --precision bf16", MODEL),
        ("--device cuda:99", "is not there"),
        ("--device tpu", "unknown device"),
        ("--device cuda:x", "unknown device"),
        # Classes
        ("--hold-out kind-0,kind-1,kind-2", "class"),
        ("--hold-out kind-0,kind-1", "class"),
        ("--hold-out kind-9", "kind-9"),
        ("--size 24 --hold-out kind-0", MODEL),
        ("--size 24 --hold-out ,", MODEL),
        # Weights
        ("--weights IMAGENET1K_V1", "is not a network with pretrained weights"),
        ("--weights nowhere.safetensors", "is not a network with pretrained weights"),
        (f"{FROZEN} --weights nowhere.safetensors", "there is no weights file"),
        (f"{FROZEN} --weights nowhere/model", "a model folder, not 'nowhere/model'"),
        (f"{FROZEN} --weights IMAGENET22K", "are IMAGENET1K_V1"),
        (f"{FROZEN} --weights-sha256 12", MODEL),
        ("--recipe nothing", "unknown recipe"),
    ],
    ids=lambda value: value if value.startswith("--") else "",
)
def test_every_set_of_options_ends_in_a_model_or_a_sentence(
    options: str, expected: str, photos: Path, tmp_path: Path
) -> None:
    assert_ends_well(run(photos, options, tmp_path / "m"), expected, tmp_path / "m")


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ("--size 24", "no batch would hold two of one"),
        ("--size 24 --metric-loss cosface", MODEL),
        ("--size 24 --metric-loss none", MODEL),
        ("--recipe deck-cnn", MODEL),
        (f"{FROZEN} --reduction pca --width 4 --metric-loss none", "up to 2 principal components"),
        (f"{FROZEN} --reduction pca --width 2 --metric-loss none", MODEL),
        (f"{TUNED} --metric-loss none", MODEL),
        ("--size 24 --metric-loss none --class-balance 1", MODEL),
    ],
)
def test_one_image_of_each_class_ends_in_a_model_or_a_sentence(
    options: str, expected: str, few: Path, tmp_path: Path
) -> None:
    assert_ends_well(run(few, options, tmp_path / "m"), expected, tmp_path / "m")


@pytest.mark.parametrize(
    "options",
    [
        "--batch-size 1",
        f"{FROZEN} --layer fc9",
        f"{FROZEN} --weights nowhere.safetensors",
        "--precision fp16",
        "--device cuda:99",
        "--size 4",
    ],
)
def test_what_needs_no_image_is_said_before_any_is_looked_for(options: str, tmp_path: Path) -> None:
    result = run(tmp_path / "no photos here", options, tmp_path / "m")
    assert result.exception is not None
    assert "no photos here" not in str(result.exception)
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written_is_said_before_any_image_is_looked_for(
    tmp_path: Path,
) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "m").mkdir()
    nowhere = tmp_path / "no photos here"
    for out, sentence in (
        (tmp_path / "file" / "m", "Not a directory"),
        (tmp_path / "file", "exists already"),
        (tmp_path / "m", "exists already"),
    ):
        result = run(nowhere, "--size 24", out)
        assert isinstance(result.exception, OURS)
        assert sentence in str(result.exception)
    result = run(nowhere, f"--size 24 --tensorboard {tmp_path / 'file' / 'curves'}", tmp_path / "n")
    assert isinstance(result.exception, TrainingError)
    assert "cannot write" in str(result.exception)


def test_an_interrupted_training_in_the_way_is_said_before_any_image_is_looked_for(
    tmp_path: Path,
) -> None:
    (tmp_path / "m.training").mkdir()
    (tmp_path / "m.training" / "state.json").write_text("{}")
    result = run(tmp_path / "no photos here", "--size 24", tmp_path / "m")
    assert "holds an interrupted training" in str(result.exception)


@pytest.mark.parametrize(
    ("environment", "sentence"),
    [
        ({"WORLD_SIZE": "3"}, "cannot be shared by 3 processes"),
        ({"WORLD_SIZE": "none"}, "WORLD_SIZE"),
        ({"WORLD_SIZE": "0"}, "WORLD_SIZE"),
        ({"WORLD_SIZE": "2"}, "torchrun"),
        ({"WORLD_SIZE": "2", "RANK": "9", "MASTER_ADDR": "::", "MASTER_PORT": "x"}, "torchrun"),
    ],
    ids=["batch", "no number", "zero", "no address", "wrong address"],
)
def test_processes_that_do_not_fit_are_a_sentence(
    environment: dict[str, str],
    sentence: str,
    photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    result = run(photos, "--size 24 --batch-size 16", tmp_path / "m")
    assert isinstance(result.exception, TrainingError), repr(result.exception)
    assert sentence in str(result.exception)


def test_weights_from_a_file_train_and_their_hash_is_checked(photos: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    path = tmp_path / "weights.safetensors"
    safetensors.torch.save_file(build_backbone(SMALL).body.state_dict(), path)
    options = f"{FROZEN} --weights {path} --weights-sha256"
    for digest, expected in (("12", "64 hexadecimal digits"), ("0" * 64, "was expected")):
        result = run(photos, f"{options} {digest}", tmp_path / "m")
        assert_ends_well(result, expected, tmp_path / "m")


def test_resuming_nothing_is_said_and_begins(photos: Path, tmp_path: Path) -> None:
    result = run(photos, "--size 24 --resume", tmp_path / "m")
    assert "there is nothing to resume, the training begins" in result.stderr
    assert_ends_well(result, MODEL, tmp_path / "m")


def test_a_model_goes_on_from_the_command_line(photos: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    assert_ends_well(run(photos, "--size 24", first), MODEL, first)
    assert_ends_well(run(photos, f"--weights {first}", second), MODEL, second)
    manifest = json.loads((second / "manifest.json").read_bytes())
    assert manifest["preprocessing"]["size"] == 24
    assert manifest["recipe"]["weights"] == "first"
    wrong = run(photos, f"--recipe cnn-best --weights {first}", tmp_path / "third")
    assert_ends_well(wrong, "go on with --recipe cnn", tmp_path / "third")
    empty = tmp_path / "empty"
    empty.mkdir()
    wrong = run(photos, f"--weights {empty}", tmp_path / "third")
    assert_ends_well(wrong, "is not a model folder", tmp_path / "third")
    assert os.listdir(empty) == []
