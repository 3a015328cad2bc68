"""`auto`: what comes along, what is tried, what is kept, and what cannot be used, in a sentence."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.support.images.pngs import encoded, picture, write_photographs
from training.auto import train_auto as auto_module
from training.auto.frozen_features import build_extractor
from training.auto.model_selection import NO_TIME
from training.auto.train_auto import train_auto
from training.data.dataset import Dataset, load_dataset
from training.data.images.labelled_images import UNLABELLED
from training.errors import CheckpointError, DataError
from training.fit.initialization.pretrained import is_at_hand
from training.heads.model_choice import Candidate
from training.progress import CandidateEpoch, Event
from training.recipes.auto_recipe import LITE0, AutoFineTuning, AutoRecipe, auto_recipe
from training.recipes.built_in import VGG19
from vision.image.preprocessing import Preprocessing
from vision.inference.torch_encoder import TorchEncoder
from vision.model.manifest import read_manifest

SIDE = 64  # pixels: seconds are enough


class Watching:
    """Keeps what it is told."""

    def __init__(
        self, stop_after: int | None = None, *, stop_after_epoch: int | None = None
    ) -> None:
        self.epochs: list[tuple[int, int, float]] = []
        self._stop_after_epoch = stop_after_epoch
        self.candidates: list[Candidate] = []
        self._stop_after = stop_after

    def __call__(self, event: Event) -> None:
        if isinstance(event, CandidateEpoch):
            self.epochs.append((event.epoch, event.epochs, event.loss))
            if self._stop_after_epoch == event.epoch:
                raise KeyboardInterrupt
        if isinstance(event, Candidate):
            self.candidates.append(event)
            if self._stop_after == len(self.candidates):
                raise KeyboardInterrupt


def small(**changes: object) -> AutoRecipe:
    """Return a set-up of the smaller network only, for small pictures."""
    recipe = replace(auto_recipe(size=SIDE), tuning=None)
    extractors = tuple(one for one in recipe.extractors if one.network == LITE0)
    return replace(recipe, extractors=extractors, **changes)  # type: ignore[arg-type]


def run(source: Path, out: Path, recipe: AutoRecipe | None = None, **settings: object) -> Watching:
    def load(preprocessing: Preprocessing) -> Dataset:
        return load_dataset(str(source), preprocessing, unlabelled=True)

    watching = settings.pop("watching", None) or Watching()
    train_auto(recipe or small(), load, out=out, progress=watching, **settings)  # type: ignore[arg-type]
    return watching  # type: ignore[return-value]


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_photographs(tmp_path_factory.mktemp("photographs"), classes=3)


@pytest.fixture(scope="module")
def model(photographs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("models") / "photographs"
    run(photographs, out)
    return out


def test_photos_in_folders_become_a_model_that_knows_classes_and_things(
    model: Path, photographs: Path
) -> None:
    manifest = read_manifest(model)
    architecture = manifest.architecture
    assert manifest.labels == ("kind-0", "kind-1", "kind-2")
    assert architecture.reduction == "item-and-kind"
    assert architecture.mirrored
    assert architecture.width - (architecture.item_width or 0) == 2  # classes less one
    assert manifest.metrics["test_accuracy"] >= 0.8
    assert not model.with_name("photographs.training").exists()

    data = load_dataset(str(photographs), manifest.preprocessing, unlabelled=True)
    encoding = TorchEncoder.load(model, device="cpu").encode(data.test.images_NCHW)
    right = (encoding.probabilities_BL.argmax(axis=1) == data.test.labels_N).mean()
    assert right == pytest.approx(manifest.metrics["test_accuracy"])
    np.testing.assert_allclose(np.linalg.norm(encoding.vectors_BD, axis=1), 1, rtol=1e-5)


def test_what_was_tried_lies_in_the_model_folder(model: Path) -> None:
    tried = json.loads((model / "training.json").read_bytes())["tried"]
    (one,) = tried["candidates"]
    assert tried["winner"] == one["name"]
    assert one["held_out_images"] == read_manifest(model).data["train_images"]
    assert 0.5 < one["accuracy"] <= 1
    assert 0 <= one["same_item"] <= 1
    assert one["seconds"] > 0
    assert one["name"] in tried["why"]


def test_the_same_photos_give_the_same_model(
    model: Path, photographs: Path, tmp_path: Path
) -> None:
    run(photographs, tmp_path / "again")
    assert read_manifest(tmp_path / "again").fingerprint == read_manifest(model).fingerprint


def test_an_interrupted_training_goes_on_and_computes_nothing_twice(
    model: Path, photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "model"
    with pytest.raises(KeyboardInterrupt):
        run(photographs, out, watching=Watching(stop_after=1))
    with pytest.raises(CheckpointError, match="resume it, or remove"):
        run(photographs, out)
    with pytest.raises(CheckpointError, match="seed was 0, now 1"):
        run(photographs, out, small(seed=1), resume=True)

    def no_more(*_: object, **__: object) -> None:
        raise AssertionError("features were computed before")

    monkeypatch.setattr("training.auto.frozen_features.feature_encoder", no_more)
    run(photographs, out, resume=True)
    assert read_manifest(out).fingerprint == read_manifest(model).fingerprint


def test_photos_without_classes_become_a_model_to_search_with(
    photographs: Path, tmp_path: Path
) -> None:
    flat = tmp_path / "flat"
    flat.mkdir()
    for number, path in enumerate(sorted(photographs.rglob("*.png"))):
        (flat / f"{number}.png").write_bytes(path.read_bytes())
    watching = run(flat, tmp_path / "model")
    manifest = read_manifest(tmp_path / "model")
    assert manifest.labels == ()
    assert manifest.architecture.num_labels == 0
    assert manifest.architecture.reduction == "pca"
    assert "test_accuracy" not in manifest.metrics
    assert watching.candidates[0].accuracy is None
    assert (watching.candidates[0].same_item or 0) > 0.3
    encoding = TorchEncoder.load(tmp_path / "model", device="cpu").encode(
        np.zeros((2, 3, SIDE, SIDE), np.uint8)
    )
    assert encoding.probabilities_BL.shape == (2, 0)
    assert "turns an image into a vector" in (tmp_path / "model" / "README.md").read_text()


def test_photos_without_a_class_help_those_with_one(photographs: Path, tmp_path: Path) -> None:
    rows = ["path,label"]
    for number, path in enumerate(sorted(photographs.rglob("*.png"))):
        rows.append(f"{path},{'' if number % 3 == 0 else path.parent.name}")
    table = tmp_path / "some.csv"
    table.write_text("\n".join(rows))
    data = load_dataset(str(table), small().preprocessing, unlabelled=True)
    assert data.unlabelled is not None
    assert set(data.unlabelled.labels_N.tolist()) == {UNLABELLED}
    assert len(data.train) + len(data.test) == 40
    assert 0 < len(data.unlabelled) <= 20
    run(table, tmp_path / "model")
    manifest = read_manifest(tmp_path / "model")
    assert manifest.labels == ("kind-0", "kind-1", "kind-2")
    assert manifest.data["unlabelled_images"] == len(data.unlabelled)


def test_a_network_whose_weights_cannot_be_had_is_passed_over(
    photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    recipe = small()
    (known,) = recipe.extractors
    missing = replace(
        known, network="torchvision:mobilenet_v3_small", item_layers=("penultimate",),
        kind_layers=(), weights=str(tmp_path / "missing.pth"),
    )  # fmt: skip
    watching = run(photographs, tmp_path / "model", replace(recipe, extractors=(missing, known)))
    assert "there is no weights file" in (watching.candidates[0].not_tried or "")
    assert read_manifest(tmp_path / "model").architecture.network == LITE0


def test_a_network_learns_on_where_there_is_time_and_is_taken_where_it_wins(
    photographs: Path, tmp_path: Path
) -> None:
    recipe = small(
        budget_s=1e6, tuning=AutoFineTuning(epochs=2, fewest_epochs=1, fewest_images=8, side=48)
    )
    watching = run(photographs, tmp_path / "whole", recipe)
    assert [(done, epochs) for done, epochs, _ in watching.epochs] == [(1, 2), (2, 2)]
    frozen, same, tuned = watching.candidates
    assert (same.held_out_images, tuned.held_out_images) == (same.held_out_images,) * 2
    assert frozen.held_out_images > same.held_out_images > 0
    tried = json.loads((tmp_path / "whole" / "training.json").read_bytes())["tried"]
    assert tried["winner"] in (frozen.name, tuned.name)

    with pytest.raises(KeyboardInterrupt):
        run(photographs, tmp_path / "parts", recipe, watching=Watching(stop_after_epoch=1))
    rest = run(photographs, tmp_path / "parts", recipe, resume=True)
    assert [done for done, _, _ in rest.epochs] == [2]
    assert rest.epochs[-1] == pytest.approx(watching.epochs[-1])
    assert (
        read_manifest(tmp_path / "parts").weights_sha256
        == read_manifest(tmp_path / "whole").weights_sha256
    )


def test_what_there_is_no_time_for_is_named(photographs: Path, tmp_path: Path) -> None:
    recipe = small(budget_s=0.01)
    twice = replace(recipe, extractors=recipe.extractors * 2)
    watching = run(photographs, tmp_path / "model", twice)
    assert [one.not_tried for one in watching.candidates] == [None, NO_TIME]


@pytest.mark.parametrize(
    ("photos", "sentence"),
    [
        ({"a": 1}, "too few different photos"),
        ({"a": 1, "b": 1}, "nothing to measure with"),
    ],
    ids=["one photo", "two photos of two classes"],
)
def test_too_few_photos_are_a_sentence(
    photos: dict[str, int], sentence: str, tmp_path: Path
) -> None:
    for label, count in photos.items():
        (tmp_path / "photos" / label).mkdir(parents=True)
        for number in range(count):
            picture(hash(label) % 1000 + number).save(tmp_path / "photos" / label / f"{number}.png")
    with pytest.raises(DataError, match=sentence):
        run(tmp_path / "photos", tmp_path / "model")
    assert list(tmp_path.glob("model*")) == []


def test_classes_with_few_photos_are_learnt(tmp_path: Path) -> None:
    for label, count in {"many": 6, "two": 2, "one": 1}.items():
        (tmp_path / "photos" / label).mkdir(parents=True)
        for number in range(count):
            path = tmp_path / "photos" / label / f"{number}.png"
            picture(len(label) * 100 + number, (60, 50)).save(path)
    run(tmp_path / "photos", tmp_path / "model")
    assert read_manifest(tmp_path / "model").labels == ("many", "one", "two")


def test_photos_that_all_look_the_same_are_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    for number in range(6):  # other sizes of one colour: other files, the same pixels for a network
        Image.new("RGB", (40 + number, 40 + number), (9, 9, 9)).save(
            tmp_path / "photos" / f"{number}.png"
        )
    with pytest.raises(DataError, match="cannot be told apart"):
        run(tmp_path / "photos", tmp_path / "model")
    assert list(tmp_path.glob("model*")) == []


def test_several_processes_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(Exception, match="works in one process"):
        auto_module.check_auto(small(), out=tmp_path / "model", device="cpu", resume=False)


def test_vgg19_is_compared_last_where_its_weights_are_at_hand(
    photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path))
    assert not is_at_hand(VGG19, "IMAGENET1K_V1")
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "vgg19-dcbb9e9d.pth").write_bytes(b"cut short")
    assert is_at_hand(VGG19, "IMAGENET1K_V1")
    recipe = small().with_vgg19()
    assert recipe.with_vgg19() == recipe
    assert [one.network for one in recipe.extractors] == [LITE0, VGG19]
    lite0, vgg19 = recipe.extractors
    vgg19 = replace(vgg19, preprocessing=lite0.preprocessing)  # at its own size: ten seconds more
    recipe = replace(recipe, extractors=(lite0, vgg19))
    late = run(photographs, tmp_path / "late", replace(recipe, budget_s=0.01)).candidates
    assert [one.not_tried for one in late] == [None, NO_TIME]
    watching = run(photographs, tmp_path / "model", replace(recipe, budget_s=1e6))
    assert "changed or cut short" in (watching.candidates[1].not_tried or "")
    assert read_manifest(tmp_path / "model").architecture.network == LITE0


def test_vgg19_tells_kinds_apart_by_its_last_pools_and_layers() -> None:
    *_, vgg19 = small().with_vgg19().extractors
    assert build_extractor(vgg19).widths == (512, 512, 4096)


def test_photos_that_change_meanwhile_do_not_mix_with_those_that_it_began_with(
    model: Path, photographs: Path, tmp_path: Path
) -> None:
    """As many photos as before, one of them another: the second network would learn mixed-up."""
    photos = tmp_path / "photographs"
    shutil.copytree(photographs, photos)
    first = sorted(photos.rglob("*.*"))[0]
    recipe = small()
    larger = replace(recipe.preprocessing, size=2 * SIDE)
    (one,) = recipe.extractors
    recipe = replace(recipe, extractors=(one, replace(one, preprocessing=larger)))
    watching = Watching()

    def load(preprocessing: Preprocessing) -> Dataset:
        dataset = load_dataset(str(photos), preprocessing, unlabelled=True)
        first.write_bytes(encoded(picture(99, (90, 90)), "PNG"))
        return dataset

    train_auto(recipe, load, out=tmp_path / "out", progress=watching)

    _, second = watching.candidates
    assert "the photos have changed" in str(second)
    assert read_manifest(tmp_path / "out").fingerprint == read_manifest(model).fingerprint
