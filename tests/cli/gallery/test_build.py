"""`lookalike index` for building, searching, adding, removing, verifying; and `classify`."""

import csv
import io
import json
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from cli.commands import app
from dataset.errors import DatasetError
from index.errors import GalleryFolderError, ModelMismatchError, UnknownIdError
from index.gallery import Gallery
from tests.support.images.pngs import encoded, picture, png
from tests.support.models import write_model
from tests.support.paths import ROOT
from vision.errors import CorruptImageError


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def run_json(*arguments: object) -> dict[str, Any]:
    result = run(*arguments, "--json")
    assert result.exit_code == 0, result.exception
    document: dict[str, Any] = json.loads(result.stdout)
    return document


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 3 coats, 3 bags, a file that is no image and one that only seems to be one."""
    folder = tmp_path_factory.mktemp("images")
    for number, label in enumerate(["coat", "bag"] * 3):
        (folder / label).mkdir(exist_ok=True)
        (folder / label / f"{number}.png").write_bytes(png(number))
    (folder / "bag" / "notes.txt").write_text("no image")
    (folder / "bag" / "broken.jpg").write_text("no image")
    return folder


@pytest.fixture(scope="module")
def built(model: Path, images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A gallery made by the command, for tests that only read."""
    folder = tmp_path_factory.mktemp("built") / "gallery"
    report = run_json("index", "build", model, "--data", images, "--out", folder, "--device", "cpu")
    assert (report["added"], report["count"]) == (6, 6)
    assert [refused["id"] for refused in report["refused"]] == ["bag:broken.jpg"]
    assert [one["examples"] for one in report["reasons"]] == [["bag:broken.jpg"]]
    assert [one["examples"] for one in report["findings"]] == [["bag/notes.txt"]]
    return folder


@pytest.fixture
def gallery(built: Path, tmp_path: Path) -> Path:
    """A gallery of one's own."""
    return Path(shutil.copytree(built, tmp_path / "gallery"))


def test_a_second_build_changes_nothing(gallery: Path, model: Path, images: Path) -> None:
    report = run_json("index", "build", model, "--data", images, "--out", gallery)

    assert (report["added"], report["unchanged"], report["count"]) == (0, 6, 6)


def test_a_build_shows_a_table_and_the_refused_images(
    tmp_path: Path, model: Path, images: Path
) -> None:
    result = run("index", "build", model, "--data", images, "--out", tmp_path / "g")

    assert result.exit_code == 0
    assert "added" in result.stdout
    assert "bag/notes.txt" in result.stderr
    assert "bag:broken.jpg" in result.stderr
    assert "this is text, and not a JPEG" in result.stderr
    table, _, next_command = result.stderr.rpartition("serve it: ")
    assert next_command, "what to type next is one line, to be copied"
    assert max(map(len, table.splitlines())) <= 80


def test_a_table_gives_items_their_labels_and_metadata_and_a_later_build_prunes(
    tmp_path: Path, model: Path, images: Path
) -> None:
    shop = shutil.copytree(images, tmp_path / "shop")
    table = shop / "shop.csv"
    rows = ["File;Class;Set;Price", "coat\\\\0.png;Coat;Train;49,5", "bag/1.png;Bag ;valid;12"]
    table.write_text("\n".join(rows), encoding="utf-16")
    asked = ("index", "build", model, "--data", table, "--out", tmp_path / "g")

    report = run_json(*asked)

    assert (report["added"], report["refused"]) == (2, [])
    assert [one["reason"] for one in report["findings"]] == [
        "a column of numbers with a comma for the point: read as numbers"
    ]
    cheap = (
        '{"must": [{"key": "Price", "range": {"lt": 20}}, {"key": "split", "match": "validation"}]}'
    )
    (hit,) = run_json("search", tmp_path / "g", shop / "coat/0.png", "--filter", cheap)["hits"]
    assert (hit["id"], hit["label"]) == ("bag:1.png", "Bag")
    assert hit["metadata"] == {"path": "bag/1.png", "split": "validation", "Price": 12}

    table.write_text("\n".join(rows[:2]))
    stale = run_json(*asked)
    assert (stale["unchanged"], stale["stale"], stale["count"]) == (1, 1, 2)
    would = run_json(*asked, "--prune", "--dry-run")
    assert (would["unchanged"], would["pruned"], would["count"]) == (1, 1, 1)
    assert run_json("index", "info", tmp_path / "g")["count"] == 2
    pruned = run_json(*asked, "--prune")
    assert (pruned["pruned"], pruned["stale"], pruned["count"]) == (1, 0, 1)


def test_parts_are_no_labels_of_a_gallery(tmp_path: Path, model: Path, images: Path) -> None:
    for part in ("train", "test"):
        shutil.copytree(images, tmp_path / "p" / part)
    run_json("index", "build", model, "--data", tmp_path / "p", "--out", tmp_path / "g")
    hits = run_json("search", tmp_path / "g", images / "coat" / "0.png", "-k", 2)["hits"]
    assert {hit["label"] for hit in hits} == {"coat"}
    assert {hit["metadata"]["split"] for hit in hits} == {"train", "test"}


def test_nothing_is_pruned_while_a_part_of_the_data_is_out_of_reach(
    tmp_path: Path, model: Path, images: Path
) -> None:
    data = shutil.copytree(images, tmp_path / "data")
    nas = shutil.move(data / "bag", tmp_path / "nas")
    (data / "bag").symlink_to(nas)
    asked = ("index", "build", model, "--data", data, "--out", tmp_path / "g")
    assert run_json(*asked)["added"] == 6
    shutil.move(nas, tmp_path / "unmounted")

    refused = run(*asked, "--prune")

    assert isinstance(refused.exception, DatasetError)
    assert "bag" in str(refused.exception)
    assert run_json(*asked)["count"] == 6


def test_search_finds_the_same_image_with_the_model_the_gallery_remembers(
    built: Path, images: Path
) -> None:
    hits = run_json("search", built, images / "coat" / "0.png", "-k", 3)["hits"]

    assert len(hits) == 3
    assert hits[0]["id"] == "coat:0.png"
    assert hits[0]["label"] == "coat"
    assert hits[0]["metadata"] == {"path": "coat/0.png"}
    assert hits[0]["score"] == pytest.approx(1, abs=1e-4)
    assert "coat:0.png" in run("search", built, images / "coat" / "0.png").stdout


def test_search_and_add_take_a_moved_model_and_refuse_another_one(
    gallery: Path, model: Path, images: Path, tmp_path: Path
) -> None:
    moved = shutil.copytree(model, tmp_path / "moved")
    write_model(tmp_path / "other", seed=1)
    with sqlite3.connect(gallery / "gallery.sqlite") as connection:
        connection.execute("UPDATE meta SET value = '/nowhere' WHERE name = 'model_folder'")
    connection.close()
    image = images / "coat" / "0.png"

    lost = run("search", gallery, image)
    assert isinstance(lost.exception, GalleryFolderError)
    assert "name its folder with --model" in str(lost.exception)
    assert run_json("search", gallery, image, "--model", moved)["hits"]
    assert run_json("index", "add", gallery, "--data", images, "--model", moved)["unchanged"] == 6
    for command in (("search", gallery, image), ("index", "add", gallery, "--data", images)):
        wrong = run(*command, "--model", tmp_path / "other")
        assert isinstance(wrong.exception, ModelMismatchError)


def test_add_remove_and_info(gallery: Path, tmp_path: Path) -> None:
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "new.png").write_bytes(png(99))

    assert run_json("index", "add", gallery, "--data", tmp_path / "more")["added"] == 1
    assert run_json("index", "remove", gallery, "coat:0.png") == {
        "removed": ["coat:0.png"],
        "unknown": [],
        "count": 6,
    }
    facts = run_json("index", "info", gallery)
    assert (facts["count"], facts["seq"], facts["width"]) == (6, 8, 256)
    assert "test-model" in run("index", "info", gallery).stdout
    unknown = run("index", "remove", gallery, "new.png", "nobody")
    assert isinstance(unknown.exception, UnknownIdError)
    assert run_json("index", "info", gallery)["count"] == 5


def test_verify_is_quiet_about_a_good_gallery_and_lists_the_faults_of_a_bad_one(
    gallery: Path,
) -> None:
    assert run_json("index", "verify", gallery) == {"ok": True, "problems": []}
    with sqlite3.connect(gallery / "gallery.sqlite") as connection:
        connection.execute("UPDATE thumbnails SET data = x'00' WHERE key = 1")
    connection.close()

    result = run("index", "verify", gallery)
    assert (result.exit_code, "its thumbnail was changed" in result.stdout) == (1, True)

    with sqlite3.connect(gallery / "gallery.sqlite") as connection:
        connection.execute("DELETE FROM vectors WHERE key = 2")  # now it cannot even be loaded
    connection.close()

    result = run("index", "verify", gallery, "--json")
    assert result.exit_code == 1
    problems = json.loads(result.stdout)["problems"]
    assert len(problems) == 2
    assert "has no vector" in problems[1]


def test_classify_gives_probabilities_best_first(model: Path, images: Path) -> None:
    image = images / "coat" / "0.png"

    answer = run_json("classify", model, image, "-k", 10)

    chances = [prediction["probability"] for prediction in answer["predictions"]]
    assert chances == sorted(chances, reverse=True)
    assert sum(chances) == pytest.approx(1, abs=1e-4)
    assert answer["label"] == answer["predictions"][0]["label"]
    assert answer["label"] in run("classify", model, image).stdout


def test_faults_are_sentences_and_wrong_use_is_2(
    built: Path, model: Path, images: Path, tmp_path: Path
) -> None:
    notes = images / "bag" / "notes.txt"
    (tmp_path / "cut.png").write_bytes(png(1)[:100])

    assert "notes.txt: this is text, and not" in str(run("search", built, notes).exception)
    assert isinstance(run("classify", model, tmp_path / "cut.png").exception, CorruptImageError)
    assert isinstance(run("index", "info", tmp_path).exception, GalleryFolderError)
    missing = run("index", "add", built, "--data", tmp_path / "nowhere")
    assert isinstance(missing.exception, DatasetError)
    for wrong in (
        ("search", built, tmp_path / "nowhere.png"),
        ("search", built, notes, "-k", 0),
        ("index", "build", model),
        ("index", "remove", built),
    ):
        assert run(*wrong).exit_code == 2


def test_the_program_ends_with_one_sentence_and_1(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "cli.main", "index", "info", str(tmp_path)]

    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)

    assert ended.returncode == 1
    assert ended.stdout == ""
    assert ended.stderr == f"lookalike: {tmp_path} is not a gallery: no gallery.sqlite in it\n"


def test_labels_and_metadata_are_counted(tmp_path: Path, model: Path, images: Path) -> None:
    table = shutil.copytree(images, tmp_path / "shop") / "shop.csv"
    rows = ("coat/0.png,coat,1,red", "coat/2.png,coat,2,red", "bag/1.png,bag,3,", "bag/3.png,,4,a")
    table.write_text("\n".join(("path,label,price,colour", *rows)))
    run_json("index", "build", model, "--data", table, "--out", tmp_path / "g")

    facts = run_json("index", "info", tmp_path / "g", "--labels")

    assert facts["labels"] == {"coat": 2, "bag": 1}
    assert list(facts["labels"]) == ["coat", "bag"], "most first"
    assert facts["unlabelled"] == 1
    assert {name: (one["items"], one["values"]) for name, one in facts["metadata"].items()} == {
        "colour": (3, 2),
        "path": (4, 4),
        "price": (4, 4),
    }
    assert facts["metadata"]["colour"]["most"][0] == {"value": "red", "count": 2}
    shown = run("index", "info", tmp_path / "g", "--labels").stdout
    assert "(without a label)" in shown
    assert "red (2)" in shown
    assert "labels" not in run_json("index", "info", tmp_path / "g")


def test_a_gallery_remembers_how_large_it_keeps_pictures(
    tmp_path: Path, model: Path, gallery: Path
) -> None:
    def side(item_id: str) -> int:
        with Gallery.open(gallery, fingerprint=None) as opened:
            thumbnail = opened.thumbnail(item_id)
        with Image.open(io.BytesIO(thumbnail.data)) as picture:
            return max(picture.size)

    for name in ("one", "two", "three"):
        (tmp_path / name).mkdir()
        # So large that the network of 28 pixels is given an eighth of it.
        large = encoded(picture(len(name), (2400, 3000)), "JPEG", quality=50)
        (tmp_path / name / f"{name}.jpg").write_bytes(large)
    assert run_json("index", "info", gallery)["thumbnail_side"] == 256
    run_json("index", "add", gallery, "--data", tmp_path / "one")
    changed = run("index", "add", gallery, "--data", tmp_path / "two", "--thumbnail", 512)
    assert "from now on pictures of 512 pixels are kept" in changed.stderr
    run_json("index", "add", gallery, "--data", tmp_path / "three")
    run_json("index", "replace", gallery, "coat:0.png", tmp_path / "three" / "three.jpg")

    assert run_json("index", "info", gallery)["thumbnail_side"] == 512
    sides = {name: side(name) for name in ("one.jpg", "two.jpg", "three.jpg", "coat:0.png")}
    assert sides == {"one.jpg": 256, "two.jpg": 512, "three.jpg": 512, "coat:0.png": 512}
    with Gallery.open(gallery, fingerprint=None) as opened:
        same = opened.vector("three.jpg") @ opened.vector("coat:0.png")
    assert same == pytest.approx(1, abs=1e-4)
    assert run("index", "add", gallery, "--data", tmp_path / "one", "--thumbnail", 9).exit_code == 2


def test_what_was_refused_is_written_to_a_file(
    tmp_path: Path, model: Path, images: Path, gallery: Path
) -> None:
    listed = tmp_path / "failures.csv"

    run_json("index", "build", model, "--data", images, "--out", gallery, "--failures", listed)

    with listed.open(encoding="utf-8", newline="") as file:
        (refused,) = csv.DictReader(file)
    assert refused["id"] == "bag:broken.jpg"
    assert "not a JPEG" in refused["reason"]
