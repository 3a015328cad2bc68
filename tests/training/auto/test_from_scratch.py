"""Small gray pictures: when `auto` tries a network of their own, its judgement, and if it wins."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.support.images.pngs import picture
from tests.training.auto.test_auto import Watching, run, small
from training.data.dataset import load_dataset
from training.data.source_preview import SourcePreview, preview_source
from training.heads.cross_validation import ValidationFigures
from training.heads.model_choice import is_better_at_classes
from training.recipes.auto_recipe import LITE0, LITE2, AutoRecipe, FromScratch, auto_recipe
from training.recipes.from_scratch import cnn_gray
from vision.inference.torch_encoder import TorchEncoder
from vision.model.manifest import read_manifest

SIDE = 28  # pixels


def write_small(folder: Path) -> Path:
    """Write twenty gray pictures of each of three classes: in one a bar lies, in one it stands."""
    for place, label in enumerate(("lying", "none", "standing")):
        (folder / label).mkdir(parents=True)
        for number in range(20):
            rng = np.random.default_rng([place, number])
            pixels = rng.integers(0, 90, (SIDE, SIDE), np.uint8)
            where = rng.integers(4, SIDE - 6)
            if label == "lying":
                pixels[where : where + 3, 3:-3] += 120
            if label == "standing":
                pixels[3:-3, where : where + 3] += 120
            Image.fromarray(pixels).save(folder / label / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small(tmp_path_factory.mktemp("pictures"))


def trying(**changes: object) -> AutoRecipe:
    """Return a set-up in which little is learnt, on few pictures."""
    how = FromScratch(recipe=cnn_gray(SIDE, bits=16), fewest_images=8, steps=20, most_epochs=20)
    how = replace(how, **changes)  # type: ignore[arg-type]
    return small(budget_s=1e6, scratch=how)


def test_it_is_tried_for_small_gray_pictures_alone(pictures: Path, tmp_path: Path) -> None:
    assert preview_source(str(pictures)) == SourcePreview(60, SIDE)
    recipe = auto_recipe(seed=3).adapted_to(*preview_source(str(pictures)))
    assert recipe.scratch is not None
    assert recipe.scratch.recipe.preprocessing.size == SIDE
    assert recipe.scratch.recipe.preprocessing.channels == 1
    assert recipe.scratch.recipe.seed == 3

    for name, image in {
        "gray-in-colour": picture(1, (20, 16), "L").convert("RGB"),
        "one-bit": picture(1, (20, 16), "L").convert("1"),
    }.items():
        (tmp_path / name).mkdir()
        image.save(tmp_path / name / "1.png")
        assert preview_source(str(tmp_path / name)) == SourcePreview(1, 20)
    for name, image in {
        "colour": picture(1, (20, 16)),
        "large": picture(1, (65, 16), "L"),
    }.items():
        (tmp_path / name).mkdir()
        image.save(tmp_path / name / "1.png")
        assert preview_source(str(tmp_path / name)) == SourcePreview(1, None)
        assert auto_recipe().adapted_to(1, None).scratch is None


def test_a_file_that_cannot_be_read_tells_nothing(tmp_path: Path) -> None:
    (tmp_path / "1.png").write_bytes(b"\x89PNG\r\n\x1a\nbroken")
    assert preview_source(str(tmp_path)) == SourcePreview(1, None)
    picture(1, (20, 16), "L").save(tmp_path / "2.png")
    assert preview_source(str(tmp_path)) == SourcePreview(2, 20)


def test_few_pictures_are_looked_at_more_often() -> None:
    how = FromScratch(recipe=cnn_gray(SIDE, bits=16))
    batch = how.recipe.batch_size
    assert how.of(300).epochs == how.most_epochs
    assert how.of(50 * batch).epochs == how.steps / 50
    assert how.of(60_000).epochs == how.recipe.epochs


def test_of_many_photos_the_quicker_network_comes_first() -> None:
    def order(recipe: AutoRecipe) -> list[tuple[str, int]]:
        return [(one.network, one.preprocessing.size) for one in recipe.extractors]

    usual = [(LITE2, 320), (LITE0, 288)]
    assert order(auto_recipe().adapted_to(20_000, None)) == usual
    assert order(auto_recipe().adapted_to(20_001, None)) == [(LITE0, 224), (LITE2, 320)]
    assert order(auto_recipe(size=64).adapted_to(20_001, None)) == [(LITE0, 64), (LITE2, 64)]


def test_it_is_judged_by_pictures_held_out_beside_the_others(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "training.auto.model_selection.is_better_at_classes", lambda one, than: False
    )
    watching = run(pictures, tmp_path / "model", trying())
    own, pretrained, same = watching.candidates
    assert own.name == "cnn from scratch at 28 px"
    assert same.name == f"{pretrained.name}, on the same photos"
    assert 0 < own.held_out_images == same.held_out_images < pretrained.held_out_images
    assert own.accuracy is not None
    assert own.same_item is not None
    manifest = read_manifest(tmp_path / "model")
    assert manifest.architecture.network == LITE0
    tried = json.loads((tmp_path / "model" / "training.json").read_bytes())["tried"]
    assert [one["name"] for one in tried["candidates"]] == [own.name, pretrained.name, same.name]


def test_where_it_is_better_it_learns_from_all_pictures_and_is_the_model(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "training.auto.model_selection.is_better_at_classes", lambda one, than: True
    )
    recipe = trying(steps=60, most_epochs=60)
    watching = run(pictures, tmp_path / "whole", recipe)
    manifest = read_manifest(tmp_path / "whole")
    assert manifest.architecture.network == "cnn"
    assert manifest.labels == ("lying", "none", "standing")
    assert manifest.recipe["name"] == "auto"
    assert manifest.metrics["held_out_accuracy"] == watching.candidates[0].accuracy
    assert manifest.metrics["test_accuracy"] >= 0.6  # a third by chance
    data = load_dataset(str(pictures), manifest.preprocessing)
    encoding = TorchEncoder.load(tmp_path / "whole", device="cpu").encode(data.test.images_NCHW)
    right = (encoding.probabilities_BL.argmax(axis=1) == data.test.labels_N).mean()
    assert right == pytest.approx(manifest.metrics["test_accuracy"])
    card = (tmp_path / "whole" / "README.md").read_text()
    assert "Of small gray pictures the class is what counts" in card

    stops = Watching(stop_after_epoch=watching.epochs[0][0])
    with pytest.raises(KeyboardInterrupt):
        run(pictures, tmp_path / "parts", recipe, watching=stops)
    run(pictures, tmp_path / "parts", recipe, resume=True)
    again = read_manifest(tmp_path / "parts")
    assert again.weights_sha256 == manifest.weights_sha256
    assert not (tmp_path / "parts.training").exists()


def test_it_is_taken_where_it_tells_kinds_apart_better_or_clearly_better() -> None:
    usual = ValidationFigures(100, 0.90, 0.90, 0.99)
    assert is_better_at_classes(ValidationFigures(100, 0.92, 0.91, 0.30), usual)
    assert not is_better_at_classes(ValidationFigures(100, 0.91, 0.89, 0.99), usual)
    assert is_better_at_classes(ValidationFigures(100, 0.904, 0.904, 0.99), usual)
    assert not is_better_at_classes(ValidationFigures(100, 0.904, 0.904, 0.30), usual)


def test_too_few_pictures_or_too_little_time_are_named(pictures: Path, tmp_path: Path) -> None:
    few = run(pictures, tmp_path / "few", trying(fewest_images=300)).candidates[0]
    assert "300 are the least" in (few.not_tried or "")
    late = replace(trying(), budget_s=1e-3)
    assert "no time left" in (run(pictures, tmp_path / "late", late).candidates[0].not_tried or "")
