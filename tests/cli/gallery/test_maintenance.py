"""The later life of a gallery, through the commands."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from cli.commands import app
from index.errors import VectorIndexError
from index.gallery import Gallery
from tests.support.fakes import new_item, unit_vectors
from tests.support.galleries.small_galleries import STORED, write_gallery
from tests.support.images.pngs import png
from tests.support.server.servers import children, clean_environment

ITEMS = 1_200  # enough to measure structures on
WIDTH = 8


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def answer(*arguments: object) -> dict[str, Any]:
    done = run(*arguments, "--json")
    assert done.exit_code == 0, done.exception or done.stderr
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def refusal(*arguments: object, code: int = 1) -> str:
    """Return the sentence with which a command ends; `cli.main` prints it (test_cli.py)."""
    done = run(*arguments)
    assert (done.exit_code, done.stdout) == (code, "")
    if code == 1:
        assert isinstance(done.exception, VectorIndexError)
        return str(done.exception)
    return done.stderr


@pytest.fixture(scope="module")
def written(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("written")
    write_gallery(folder / "pictures", model)
    with Gallery.create(
        folder / "vectors", model_name="fake", fingerprint="a1" * 32, width=WIDTH
    ) as gallery:
        gallery.put([new_item(f"i{n}", seed=n // 2, label=f"l{n % 3}") for n in range(ITEMS)])
    return folder


@pytest.fixture
def place(written: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in a folder with the galleries `pictures` and `vectors`, which has each one twice."""
    shutil.copytree(written, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_an_item_gets_another_image_and_keeps_what_is_not_given(place: Path) -> None:
    (place / "new.png").write_bytes(png(500))

    first = answer("index", "replace", "pictures", "item-04", "new.png")
    again = answer("index", "replace", "pictures", "item-04", "new.png")

    assert (first["outcome"], again["outcome"]) == ("replaced", "unchanged")
    hit = answer("search", "pictures", "new.png", "-k", 1)["hits"][0]
    assert (hit["id"], hit["label"]) == ("item-04", "coat")
    assert hit["metadata"] == {"even": True, "number": 4}
    other = ("--label", "gown", "--metadata", '{"size": 1}')
    answer("index", "replace", "pictures", "item-04", "new.png", *other)
    hit = answer("search", "pictures", "new.png", "-k", 1)["hits"][0]
    assert (hit["label"], hit["metadata"]) == ("gown", {"size": 1})
    answer("index", "replace", "pictures", "item-04", "new.png", "--label", " Cafe\u0301 ")
    hit = answer("search", "pictures", "new.png", "-k", 1)["hits"][0]
    assert (hit["label"], hit["metadata"]) == ("Caf\u00e9", {"size": 1})
    for wrong in ("", "  ", "x" * 257):
        assert "a label has 1 to 256 characters" in refusal(
            "index", "replace", "pictures", "item-04", "new.png", "--label", wrong
        )
    assert "no item has the id 'nobody'" in refusal(
        "index", "replace", "pictures", "nobody", "new.png"
    )
    assert "--metadata" in refusal(
        *("index", "replace", "pictures", "item-04", "new.png", "--metadata", "[1]"),
        code=2,
    )


def test_an_item_gets_another_label_and_metadata_and_keeps_its_image(place: Path) -> None:
    edit = ("index", "edit", "pictures", "item-04")

    labelled = answer(*edit, "--label", " gown ")
    merged = answer(*edit, "--metadata", '{"even": null, "size": {"eu": 40}}')
    again = answer(*edit, "--metadata", '{"size": {"eu": 40}}')
    bare = answer(*edit, "--no-label")

    assert (labelled["label"], labelled["metadata"]) == ("gown", {"even": True, "number": 4})
    assert merged["metadata"] == {"number": 4, "size": {"eu": 40}}
    assert again["seq"] == merged["seq"], "nothing was different"
    assert bare["label"] is None
    assert bare["content_sha256"] == labelled["content_sha256"]
    with Gallery.open(place / "pictures", fingerprint=None) as gallery:
        assert gallery.thumbnail("item-04").data
    assert "a label has 1 to 256 characters" in refusal(*edit, "--label", "")
    assert "or --metadata" in refusal(*edit, "--label", "a", "--no-label", code=2)


def test_a_structure_is_tuned_rebuilt_compacted_and_shown(place: Path) -> None:
    rebuilt = answer("index", "rebuild", "vectors")
    assert (rebuilt["generation"], rebuilt["count"], rebuilt["plan"]["kind"]) == (1, ITEMS, "exact")
    tuned = answer("index", "tune", "vectors", "--recall", 0.95)
    assert tuned["plan"] in [trial["plan"] for trial in tuned["trials"]]
    assert tuned["plan"]["recall_target"] == 0.95
    shown = run("index", "tune", "vectors")
    for part in ("structure", "recall@10", "µs per query", "build s", "chosen"):
        assert part in shown.stdout

    with Gallery.open(place / "vectors", fingerprint=None) as gallery:
        gallery.put([new_item("recent", seed=5000)])
    facts = answer("index", "info", "vectors")
    assert (facts["generation"], facts["recent"], facts["state"]) == (3, 1, "writable")
    told = run("index", "info", "vectors").stdout
    for part in ("exact, generation 3", "1 stored since the index was built", "writable"):
        assert part in told
    with Gallery.open(place / "vectors", fingerprint=None) as gallery:
        gallery.delete([f"i{n}" for n in range(ITEMS // 2)])
    before = sum(path.stat().st_size for path in (place / "vectors").glob("gallery.sqlite*"))
    compacted = answer("index", "compact", "vectors")
    after = sum(path.stat().st_size for path in (place / "vectors").glob("gallery.sqlite*"))
    assert compacted["count"] == ITEMS // 2 + 1
    assert compacted["bytes_saved"] > 0
    assert after < 0.8 * before
    facts = answer("index", "info", "vectors")
    assert (facts["generation"], facts["recent"]) == (4, 0)
    assert answer("index", "verify", "vectors")["ok"]
    assert run("index", "compact", "vectors").stdout.count("\n") == 2


def test_a_small_gallery_is_too_small_to_tune(place: Path) -> None:
    assert answer("index", "tune", "pictures")["trials"] == []
    assert "too few to measure" in run("index", "tune", "pictures").stdout


def test_one_process_rebuilds_at_a_time(place: Path) -> None:
    with (
        Gallery.open(place / "vectors", fingerprint=None) as gallery,
        gallery._generations.writing(),
    ):
        sentence = refusal("index", "rebuild", "vectors")

    assert "another process is rebuilding vectors" in sentence


def test_duplicates_are_listed_and_nothing_is_changed(place: Path) -> None:
    found = answer("index", "duplicates", "vectors", "--min-score", 0.9999)

    assert len(found["exact"]) == len(found["near"]) == ITEMS // 2
    assert [member["id"] for member in found["exact"][0]] == ["i0", "i1"]
    assert found["complete"]
    only = answer("index", "duplicates", "vectors", "--exact")
    assert only["exact"] == found["exact"]
    assert "near" not in only
    assert "exact" not in answer("index", "duplicates", "vectors", "--near")
    told = run("index", "duplicates", "vectors")
    assert "1,200 items in 600 groups" in told.stdout
    assert "580 groups more" in told.stderr
    told = run("index", "duplicates", "pictures", "--exact")
    assert told.stdout == "no items with the same content\n"
    for wrong in (2, "nan"):
        refusal("index", "duplicates", "vectors", "--min-score", wrong, code=2)


def test_items_go_out_to_files_and_come_back(place: Path) -> None:
    out = answer("index", "export", "pictures", "x.parquet", "--thumbnails")
    assert (out["format"], out["count"]) == ("parquet", STORED)
    for kind in ("csv", "jsonl"):
        answer("index", "export", "pictures", kind, "--format", kind)

    for source in ("x.parquet", "csv", "jsonl", "pictures"):
        made = answer("index", "import", f"from-{source}", source)
        assert (made["added"], made["refused"]) == (STORED, [])
        assert answer("index", "import", f"from-{source}", source)["unchanged"] == STORED
        assert answer("index", "verify", f"from-{source}")["ok"]
    table = ("index", "import", "pictures", "csv/items.csv", "--vectors", "csv/vectors.npy")
    made = answer(*table)
    assert (made["unchanged"], made["replaced"]) == (STORED, 0)
    assert made["left_as_stored"]["picture"] == STORED
    told = run(*table).stderr
    assert f"left as stored, since the source does not have it: picture of {STORED}" in told
    assert "it is there already" in refusal("index", "export", "pictures", "csv")
    assert "holds vectors of model 'fake'" in refusal("index", "import", "vectors", "x.parquet")
    refusal("index", "export", "pictures", "y", "--thumbnails", code=2)
    assert not (place / "y").exists()


def test_vectors_of_one_s_own_are_imported_and_bad_rows_listed(place: Path, model: Path) -> None:
    vectors = 3 * unit_vectors(4, 256, seed=0)
    vectors[2] = np.nan
    np.save(place / "v.npy", vectors)
    (place / "ids.txt").write_text("a\nb\nc\nd/d\n")
    command = ("index", "import", "new", "v.npy", "--ids", "ids.txt", "--normalize")

    assert "name the model with --model" in refusal(*command)
    made = answer(*command, "--model", model)

    assert (made["added"], made["count"]) == (2, 2)
    assert [one["id"] for one in made["refused"]] == ["c", "d/d"]
    told = run(*command)
    assert "its vector has numbers that are not finite" in " ".join(told.stderr.split())
    refusal("index", "import", "new", "nowhere.csv", code=2)
    (place / "photos").mkdir()
    assert "is neither a gallery nor an export" in refusal("index", "import", "new", "photos")


def test_a_backup_becomes_a_gallery_again(place: Path) -> None:
    assert answer("index", "backup", "pictures", "b")["count"] == STORED
    assert answer("index", "restore", "b", "r")["count"] == STORED

    assert answer("index", "verify", "r")["ok"]
    assert "the folder is not empty" in refusal("index", "backup", "pictures", "r")
    assert "is not a backup" in refusal("index", "restore", "nowhere", "x")
    assert "40 items, checked" in run("index", "backup", "pictures", "b2").stdout


def test_search_filters_bounds_and_votes(place: Path) -> None:
    (place / "image.png").write_bytes(png(6))
    search = ("search", "pictures", "image.png")
    coats = '{"must": [{"key": "label", "match": "coat"}]}'

    hits = answer(*search, "--filter", coats, "-k", 20)["hits"]
    assert {hit["label"] for hit in hits} == {"coat"}
    assert len(hits) == STORED / 4
    everything = answer(*search, "--all", "--min-score", -1)["hits"]
    assert len(everything) == STORED
    bound = everything[7]["score"]
    assert len(answer(*search, "--min-score", bound, "-k", 40)["hits"]) == 8
    assert answer(*search, "--exact", "-k", 5)["hits"] == everything[:5]
    voted = answer(*search, "--vote", "-k", 5)
    assert voted["vote"][0]["label"] == everything[0]["label"]
    assert sum(one["share"] for one in voted["vote"]) == pytest.approx(1)
    assert "share of the votes" in run(*search, "--vote").stdout
    none = run(*search, "--filter", '{"must": [{"key": "a", "match": 1}]}')
    assert none.stdout == "no item matches\n"
    for wrong in (
        ("--filter", "{"),
        ("--filter", "[]"),
        ("--filter", '{"must": 1}'),
        ("--all",),
        ("--min-score", "2"),
    ):
        refusal(*search, *wrong, code=2)


def test_many_new_items_are_folded_in_at_the_end(place: Path) -> None:
    """From 20,000 items on, a structure pays."""
    np.save(place / "v.npy", unit_vectors(20_000, WIDTH, seed=9))
    (place / "ids.txt").write_text("\n".join(f"n{n}" for n in range(20_000)))

    done = run("index", "import", "vectors", "v.npy", "--ids", "ids.txt")

    assert done.exit_code == 0, done.exception
    assert "building the search structure" in done.stderr
    facts = answer("index", "info", "vectors")
    assert (facts["generation"], facts["recent"], facts["count"]) == (1, 0, ITEMS + 20_000)
    assert facts["recall"] >= 0.99


def test_an_interrupted_import_ends_with_130_and_goes_on(place: Path) -> None:
    np.save(place / "v.npy", unit_vectors(200_000, WIDTH, seed=9))
    (place / "ids.txt").write_text("\n".join(f"n{n}" for n in range(200_000)))
    command = [sys.executable, "-m", "cli.main", "index", "import", "vectors", "v.npy"]
    running = subprocess.Popen(
        [*command, "--ids", "ids.txt"],
        cwd=place,
        env=clean_environment(),
        stderr=subprocess.PIPE,
        text=True,
    )
    with Gallery.open(place / "vectors", fingerprint=None) as gallery:
        deadline = time.monotonic() + 60
        while gallery.info().count == ITEMS and time.monotonic() < deadline:
            time.sleep(0.05)
        running.send_signal(signal.SIGINT)
        _, told = running.communicate(timeout=30)
        stored = gallery.info().count - ITEMS

    assert running.returncode == 130
    assert "what was finished is kept" in told
    assert "Traceback" not in told
    assert 0 < stored < 200_000
    assert stored % 1_000 == 0


def test_an_interrupted_rebuild_says_so_and_leaves_no_process(place: Path) -> None:
    before = sorted((place / "vectors").rglob("*"))
    running = subprocess.Popen(
        [sys.executable, "-m", "cli.main", "index", "rebuild", "vectors"],
        cwd=place,
        env=clean_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # so that all of it can be interrupted, as a terminal would
    )
    deadline = time.monotonic() + 60
    while not (started := children(running.pid)) and time.monotonic() < deadline:
        time.sleep(0.02)
    os.killpg(running.pid, signal.SIGINT)
    out, told = running.communicate(timeout=30)

    assert (running.returncode, out) == (130, "")
    assert "Traceback" not in told
    assert "interrupted" in told
    (child,) = started
    while Path(f"/proc/{child}").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not Path(f"/proc/{child}").exists()
    assert not list((place / "vectors").glob("snapshots/gen-*"))
    assert sorted((place / "vectors").glob("gallery*")) == [
        path for path in before if path.name.startswith("gallery")
    ]
    assert answer("index", "rebuild", "vectors")["generation"] == 1
