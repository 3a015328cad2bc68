"""`lookalike up` for the first time: everything from the folder to the gallery, and kills between.

Photos are few, and the time to train is short, so the figures mean nothing.
"""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.commands.run_command import COMMAND_S
from tests.support.commands.up_runs import QUICK, kill_when, sentence_of, stages_of, up, write_few
from tests.support.server.servers import clean_environment

PHOTOS = 20


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_few(tmp_path / "photos")
    return tmp_path


NO_HOME = {"HOME": "/dev/null/home", "XDG_CACHE_HOME": "/dev/null/cache"}
NO_NETWORK = dict.fromkeys(("http_proxy", "https_proxy", "all_proxy"), "http://127.0.0.1:9")


def test_it_says_five_lines_then_one_for_each_stage_right_at_80_columns(folder: Path) -> None:
    """With no home to write to and no network."""
    done = subprocess.run(
        [sys.executable, "-m", "cli.main", "up", *QUICK, "--no-serve", "photos"],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
        env=clean_environment(COLUMNS="80", **NO_HOME, **NO_NETWORK),
        timeout=COMMAND_S,
    )

    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    assert not set("\r\x1b━") & set(done.stderr)  # no progress in a file
    lines = done.stderr.splitlines()
    assert len(lines) == 5 + 4 + 1
    assert max(map(len, lines[:-1])) <= 80
    what, inside, train, rest, end = lines[:5]
    assert what == f"photos: {PHOTOS} photos in 2 classes of 10 each"
    assert re.fullmatch(r"\d+ kB, JPEG, about 200 x 150 pixels; none broken or twice", inside)
    assert re.fullmatch(r"train with auto on \d+ cores?: .+", train)
    assert re.fullmatch(r"export, measure, index: .+; \d+ MB in photos-lookalike .+ free\)", rest)
    assert re.fullmatch(r"in .+ all is ready to be served", end)
    trained, exported, measured, indexed = stages_of(done.stderr)
    assert re.fullmatch(r"trained in .+: .+% right of \d+ photos kept apart", trained)
    assert re.fullmatch(r"measured: .+; photos-lookalike/model/report.html", measured)
    assert "exported" in exported
    assert indexed.startswith(f"indexed {PHOTOS} photos in ")


def test_one_photo_is_told_to_be_too_few(tmp_path: Path) -> None:
    write_few(tmp_path / "photos", ("coat",), each=1)

    done = up("photos", cwd=tmp_path)

    assert done.returncode == 1
    assert sentence_of(done)


@pytest.mark.slow
def test_a_folder_without_classes_is_searched_all_the_same(tmp_path: Path) -> None:
    write_few(tmp_path / "sorted")
    (tmp_path / "photos").mkdir()
    for number, path in enumerate((tmp_path / "sorted").rglob("*.jpg")):
        path.rename(tmp_path / "photos" / f"{number}.jpg")

    done = up("photos", cwd=tmp_path)

    assert done.returncode == 0, done.stderr
    assert done.stderr.startswith(f"photos: {PHOTOS} photos without classes\n")
    assert f"indexed {PHOTOS} photos" in done.stderr


KILLED = {  # what has just come about when it is killed, each a stage further
    "training": "photos-lookalike/model.training/lock",
    "trained": "photos-lookalike/model/manifest.json",
    "exported": "photos-lookalike/model/runtimes/openvino/manifest.json",
    "measured": "photos-lookalike/model/report.html",
    "indexing": "photos-lookalike/gallery/gallery.sqlite",
    "indexed": "photos-lookalike/files.jsonl",
}


@pytest.mark.slow
def test_killed_at_every_stage_the_next_run_goes_on(folder: Path) -> None:
    for made in KILLED.values():
        kill_when(made, ["photos"], cwd=folder)

    done = up("photos", cwd=folder)

    assert done.returncode == 0, done.stderr
    assert [line.split()[0] for line in stages_of(done.stderr)] == [
        *("trained:", "exported", "measured:", "indexed:")
    ]
    assert {path.name for path in (folder / "photos-lookalike").iterdir()} == {
        *("files.jsonl", "gallery", "lock", "model", "state.json")
    }


@pytest.mark.slow
def test_an_interrupted_training_begins_again_when_the_photos_have_changed(folder: Path) -> None:
    kill_when("photos-lookalike/model.training/state.json", ["photos"], cwd=folder)
    write_few(folder / "more", ("glove",), each=9)
    (folder / "more" / "glove").rename(folder / "photos" / "glove")

    done = up("photos", cwd=folder)

    assert done.returncode == 0, done.stderr
    assert "29 photos in 3 classes" in done.stderr


@pytest.mark.slow
def test_training_again_keeps_what_was_there_before(folder: Path) -> None:
    assert up("photos", cwd=folder).returncode == 0
    kept = folder / "photos-lookalike"
    before = (kept / "model" / "manifest.json").read_text()
    write_few(folder / "more", ("glove",), each=9)
    (folder / "more" / "glove").rename(folder / "photos" / "glove")

    kill_when("photos-lookalike/next/model/manifest.json", ["photos", "--retrain"], cwd=folder)
    done = up("photos", cwd=folder)  # goes on with it, without being asked again

    assert done.returncode == 0, done.stderr
    manifest = json.loads((kept / "model" / "manifest.json").read_text())
    assert manifest["labels"] == ["coat", "glove", "hat"]
    assert (kept / "before" / "model" / "manifest.json").read_text() == before
    assert (kept / "before" / "gallery").is_dir()
    assert not (kept / "next").exists()
