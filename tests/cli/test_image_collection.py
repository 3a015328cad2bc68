"""`classify` and `search` of a folder or a table: a row for each picture, in one whole file."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from cli.commands import app
from tests.support.images.pngs import png

COUNT = 70  # more than are decoded at once


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def run_json(*arguments: object) -> dict[str, Any]:
    result = run(*arguments, "--json")
    assert result.exit_code == 0, (result.exception, result.stderr)
    document: dict[str, Any] = json.loads(result.stdout)
    return document


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seventy pictures, one of them broken, with names that CSV has to quote."""
    folder = tmp_path_factory.mktemp("photos")
    (folder / "hüte, rot").mkdir()
    for number in range(COUNT):
        (folder / "hüte, rot" / f"{number:02}.png").write_bytes(png(number))
    (folder / "broken.jpg").write_text("no image")
    return folder


@pytest.fixture(scope="module")
def gallery(model: Path, photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("built") / "gallery"
    report = run_json("index", "build", model, "--data", photos, "--out", folder)
    assert (report["added"], len(report["refused"])) == (COUNT, 1)
    return folder


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_a_folder_is_classified_as_each_of_its_pictures_is(
    model: Path, photos: Path, tmp_path: Path
) -> None:
    out = tmp_path / "answers.jsonl"

    report = run_json("classify", model, photos, "--out", out, "-k", 3)

    assert (report["images"], report["failed"]) == (COUNT + 1, 1)
    assert [one["examples"] for one in report["reasons"]] == [["broken.jpg"]]
    broken, *answers = lines_of(out)
    assert broken["path"] == "broken.jpg"
    assert "not a JPEG" in broken["error"]
    assert [one["path"] for one in answers] == [f"hüte, rot/{n:02}.png" for n in range(COUNT)]
    for number in (0, COUNT - 1):
        alone = run_json("classify", model, photos / "hüte, rot" / f"{number:02}.png", "-k", 3)
        said = answers[number]
        assert said["label"] == alone["label"]
        assert said["probability"] == pytest.approx(alone["probability"], abs=1e-5)
        assert len(said["predictions"]) == 3


def test_a_table_is_classified_to_csv_in_its_order(
    model: Path, photos: Path, tmp_path: Path
) -> None:
    table = photos / "some.csv"
    table.write_text('path\n"hüte, rot/05.png"\nbroken.jpg\n"hüte, rot/01.png"\n')
    out = tmp_path / "answers.csv"
    out.write_text("of yesterday")

    result = run("classify", model, table, "--out", out, "-k", 2)

    assert result.exit_code == 0
    assert "2 of 3 images are answered" in result.stderr
    rows = rows_of(out)
    columns = ["label", "probability", "label_2", "probability_2", "sure", "why_not"]
    assert list(rows[0]) == ["path", *columns, "error"]
    assert [row["why_not"] for row in rows] == ["not_known", "", "not_known"]
    assert [row["path"] for row in rows] == ["hüte, rot/05.png", "broken.jpg", "hüte, rot/01.png"]
    assert [bool(row["error"]) for row in rows] == [False, True, False]
    assert float(rows[0]["probability"]) >= float(rows[0]["probability_2"])
    assert rows[1]["label"] == ""


def test_a_folder_is_searched_as_each_of_its_pictures_is(
    gallery: Path, photos: Path, tmp_path: Path
) -> None:
    out, table = tmp_path / "hits.jsonl", tmp_path / "hits.csv"

    run_json("search", gallery, photos, "--out", out, "-k", 2, "--vote")
    run_json("search", gallery, photos, "--out", table, "-k", 2)

    broken, *answers = lines_of(out)
    assert "not a JPEG" in broken["error"]
    for number, said in enumerate(answers):
        first, _ = said["hits"]
        assert first["metadata"]["path"] == said["path"]
        assert first["score"] == pytest.approx(1, abs=1e-4)
        assert said["vote"][0]["label"] == "hüte, rot"
        if number == 3:
            alone = run_json("search", gallery, photos / said["path"], "-k", 2)["hits"]
            assert [hit["id"] for hit in said["hits"]] == [hit["id"] for hit in alone]
    rows = rows_of(table)
    assert len(rows) == 1 + 2 * COUNT
    assert rows[1]["rank"] == "1"
    assert json.loads(rows[1]["metadata"])["path"] == rows[1]["path"] == "hüte, rot/00.png"
    assert [rows[1]["id"], rows[2]["id"]] == [hit["id"] for hit in answers[0]["hits"]]


def test_a_picture_without_hits_has_a_row_all_the_same(
    gallery: Path, photos: Path, tmp_path: Path
) -> None:
    out = tmp_path / "hits.csv"
    nothing = '{"must": [{"key": "label", "match": "nobody"}]}'
    run_json("search", gallery, photos / "hüte, rot", "--out", out, "--filter", nothing)

    rows = rows_of(out)
    assert [row["path"] for row in rows] == [f"{number:02}.png" for number in range(COUNT)]
    assert {row["rank"] + row["error"] for row in rows} == {""}


def test_an_interruption_leaves_nothing_and_what_was_there(
    model: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "answers.csv"
    out.write_text("of yesterday")

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("cli.classify._classes", interrupted)
    result = run("classify", model, photos, "--out", out)

    assert result.exit_code != 0
    assert out.read_text() == "of yesterday"
    assert [path.name for path in tmp_path.iterdir()] == ["answers.csv"]


def test_what_does_not_fit_together_is_wrong_use(
    model: Path, gallery: Path, photos: Path, tmp_path: Path
) -> None:
    picture = photos / "hüte, rot" / "00.png"
    for wrong, said in (
        (("classify", model, photos), "name a .csv or"),
        (("classify", model, picture, "--out", tmp_path / "a.csv"), "one image is printed"),
        (("classify", model, photos, "--out", tmp_path / "a.txt"), "ends in .csv or .jsonl"),
        (("search", gallery, photos, "--out", tmp_path / "a.csv", "--vote"), ".jsonl files only"),
    ):
        result = run(*wrong)
        assert result.exit_code == 2, wrong
        assert said in " ".join(result.stderr.replace("│", " ").split()), wrong
    assert list(tmp_path.iterdir()) == []
