"""The command line: exit codes, one sentence per failure, JSON, and answers like the server's."""

import json
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest

from service.security.api_keys import KeyRing
from tests.support.commands.run_command import lookalike
from tests.support.galleries.small_galleries import write_gallery
from tests.support.images.pngs import png
from tests.support.paths import ROOT
from tests.support.server.servers import Server, answered
from tests.vision.export.test_export_model import export


def test_help_is_quick_because_it_imports_nothing_heavy() -> None:
    code = (
        "import sys; sys.argv = ['lookalike', '--help']\n"
        "from cli.main import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print('heavy:', sorted({'torch', 'faiss', 'bentoml', 'fastapi'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )

    assert "heavy: []" in done.stdout
    assert "demo" in done.stdout


def test_the_lines_of_help_break_where_the_terminal_ends() -> None:
    help_text = lookalike("train", "--help", COLUMNS="200").stdout
    assert "where it was and ends with the very same weights" in help_text


@pytest.mark.parametrize(
    "arguments",
    [
        ["nonsense"],
        ["train"],
        ["train", "--out", "x", "--recipe", "soup"],
        ["serve"],
        ["search", "gallery"],
        ["new-key", "shop", "--rights", "everything"],
        ["new-key", 'a"b'],
    ],
    ids=" ".join,
)
def test_wrong_use_ends_with_2(arguments: list[str]) -> None:
    done = lookalike(*arguments)

    assert done.returncode == 2
    assert done.stdout == ""
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["classify", "nowhere", "README.md"], "nowhere is not a model folder"),
        (["search", "nowhere", "README.md"], "nowhere"),
        (["evaluate", "nowhere"], "nowhere is not a model folder"),
        (["index", "info", "nowhere"], "nowhere"),
        (["pack", "nowhere"], "nowhere is not a model folder"),
        (["train", "--data", "nowhere", "--out", "out"], "nowhere"),
    ],
)
def test_a_failure_is_one_sentence_and_ends_with_1(arguments: list[str], part: str) -> None:
    done = lookalike(*arguments)

    assert done.returncode == 1
    assert done.stdout == ""
    lines = [line for line in done.stderr.splitlines() if line.startswith("lookalike: ")]
    assert len(lines) == 1, done.stderr
    assert part in lines[0]
    assert "Traceback" not in done.stderr


def test_search_and_classify_answer_as_the_server_does(
    model: Path, server: Server, tmp_path: Path
) -> None:
    write_gallery(tmp_path / "gallery", model)
    (tmp_path / "image.png").write_bytes(png(6))

    found = lookalike("search", "gallery", "image.png", "-k", "5", "--json", cwd=tmp_path)
    said = lookalike("classify", str(model), "image.png", "-k", "3", "--json", cwd=tmp_path)

    headers = {"Content-Type": "image/png"}
    nearest = httpx.post(f"{server.url}/v1/search?k=5", content=png(6), headers=headers)
    hits = answered(nearest)["hits"]
    answer = answered(httpx.post(f"{server.url}/v1/classify?k=3", content=png(6), headers=headers))
    assert [hit["id"] for hit in json.loads(found.stdout)["hits"]] == [hit["id"] for hit in hits]
    assert json.loads(said.stdout)["predictions"] == [
        {"label": one["label"], "probability": pytest.approx(one["probability"], abs=1e-5)}
        for one in answer["predictions"]
    ]


def test_an_image_that_is_none_is_refused(model: Path, tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("hello")

    done = lookalike("classify", str(model), "text.png", cwd=tmp_path)

    assert done.returncode == 1
    assert "not a JPEG, PNG, WebP, GIF, BMP, TIFF, AVIF or HEIC picture" in done.stderr


def test_a_new_key_is_accepted_by_the_file_its_lines_make(tmp_path: Path) -> None:
    options = ("--rights", "read,write", "--expires", "2999-01-31", "--json")
    made = json.loads(lookalike("new-key", "shop", *options).stdout)
    (tmp_path / "keys.toml").write_text(made["lines"])

    found = KeyRing.load(tmp_path / "keys.toml").find(made["key"])

    assert found is not None
    assert (found.name, found.rights) == ("shop", {"read", "write"})
    assert found.expires == datetime(2999, 1, 31, tzinfo=UTC)
    assert made["key"] not in made["lines"]


def test_a_demo_that_was_made_is_used_again(model: Path, tmp_path: Path) -> None:
    (tmp_path / "demo").mkdir()
    shutil.copytree(model, tmp_path / "demo" / "model")
    export(tmp_path / "demo" / "model")
    write_gallery(tmp_path / "demo" / "gallery", model)
    (tmp_path / "demo" / "gallery.complete").write_text("40 images\n")

    done = lookalike("demo", "--no-serve", "--out", "demo", "--json", cwd=tmp_path)

    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["model"] == "demo/model"
    assert "1/5 trained: " in done.stderr
    assert "4/5 indexed: demo/gallery" in done.stderr
