"""`lookalike up`: the first run, the next ones, what it refuses, and what it survives."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import httpx
import pytest

from tests.filesystems import small_filesystem
from tests.newcomer import PHOTOS, write_photos
from tests.pictures import encoded, picture
from tests.ups import kill_when, page_of, sentence_of, stages_of, up

MADE = 3 * PHOTOS + 4  # photos that ``write_photos`` writes
NAMES = {  # in every script, and in none
    "größe 42.jpg": "hat:gr__e_42.jpg",
    "帽子.jpg": "hat",
    "шляпа \N{PARTY POPPER}.jpg": "hat",
    "two  spaces, [bold] and 'quotes'.jpg": "hat",
}


def photo(number: int) -> bytes:
    return encoded(picture(number, (200, 150)), "JPEG")


def write_few(folder: Path, classes: tuple[str, ...] = ("coat", "hat"), each: int = 8) -> Path:
    for kind, label in enumerate(classes):
        (folder / label).mkdir(parents=True)
        for number in range(each):
            (folder / label / f"{number}.jpg").write_bytes(photo(1000 * kind + number))
    return folder


class Made:
    """A folder with photos and all that `up` made of them, and what it said."""

    def __init__(self, folder: Path, log: str) -> None:
        self.folder = folder
        self.photos = folder / "photos"
        self.kept = folder / "photos-lookalike"
        self.log = log

    def again(self, *arguments: str) -> list[str]:
        """Run `up` once more and return the lines of its stages."""
        done = up("photos", *arguments, cwd=self.folder)
        assert done.returncode == 0, done.stderr
        return stages_of(done.stderr)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("up")
    write_photos(folder / "photos")
    done = up("photos", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    return Made(folder, done.stderr)


def test_it_first_says_in_five_lines_what_it_will_do(made: Made) -> None:
    what, inside, train, rest, end = made.log.splitlines()[:5]

    assert what == f"photos: {MADE} photos in 3 classes of 21 to 22 each"
    assert inside.startswith("950 kB, JPEG 95% PNG 3%, about 300 x 300 pixels")
    assert re.fullmatch(r"train with [\w-]+ on \d+ cores?: .+", train)
    assert re.fullmatch(r"measure, export, index: .+; \d+ MB in photos-lookalike .+ free\)", rest)
    assert re.fullmatch(r"in .+ all is ready to be served", end)


def test_it_says_a_line_a_stage_that_fits_80_columns_and_a_file(made: Made) -> None:
    trained, measured, exported, indexed = stages_of(made.log)

    assert trained.startswith("trained in ")
    assert measured.startswith("measured: ")
    assert measured.endswith("photos-lookalike/model/report.html")
    assert "exported" in exported
    assert indexed.startswith(f"indexed {MADE} photos in ")
    lines = made.log.splitlines()
    assert len(lines) == 5 + 4 + 1, made.log
    assert max(map(len, lines[:-1])) <= 80
    assert not set("\r\x1b━") & set(made.log)


def test_all_is_kept_beside_the_photos(made: Made) -> None:
    kept = {path.name for path in made.kept.iterdir()}

    assert {"model", "gallery", "state.json"} <= kept
    assert {path.name for path in made.folder.iterdir()} == {"photos", "photos-lookalike"}


def test_the_next_time_it_only_says_what_there_is(made: Made) -> None:
    before = json.loads((made.kept / "state.json").read_text())
    trained, measured, exported, indexed = made.again()

    assert trained.startswith("trained: ")
    assert measured.startswith("measured: ")
    assert exported == stages_of(made.log)[2]
    assert indexed == f"indexed: {MADE} photos, nothing new"
    assert json.loads((made.kept / "state.json").read_text()) == before


def test_it_is_the_same_from_within_the_folder(made: Made) -> None:
    done = up(".", cwd=made.photos)

    assert f"indexed: {MADE} photos, nothing new" in done.stderr


def test_what_was_added_changed_and_taken_away_since_is_found(made: Made) -> None:
    (made.photos / "hat" / "new.jpg").write_bytes(photo(501))
    assert made.again()[3] == f"indexed: {MADE + 1} photos, 1 photo added (hat/new.jpg)"

    (made.photos / "hat" / "new.jpg").write_bytes(photo(502))
    assert made.again()[3] == f"indexed: {MADE + 1} photos, 1 changed"

    (made.photos / "hat" / "new.jpg").unlink()
    said = f"indexed: {MADE} photos, nothing new; 1 gone, still found without --prune"
    assert made.again()[3] == said
    assert made.again()[3] == said  # said as long as it is so
    assert made.again("--prune")[3] == f"indexed: {MADE} photos, 1 taken out"
    assert made.again()[3] == f"indexed: {MADE} photos, nothing new"


def test_new_classes_and_many_new_photos_suggest_to_train_again(made: Made) -> None:
    write_few(made.folder / "more", ("glove",), each=2)
    (made.folder / "more" / "glove").rename(made.photos / "glove")
    done = up("photos", cwd=made.folder)
    shutil.rmtree(made.photos / "glove")
    shutil.rmtree(made.folder / "more")
    made.again("--prune")

    assert "the model does not know glove: --retrain trains again" in done.stderr
    assert stages_of(done.stderr)[0].startswith("trained: ")  # never by itself


def test_a_page_answers_when_it_is_said_to_and_takes_in_what_comes(made: Made) -> None:
    log = made.folder / "log.txt"
    with page_of("photos", "--watch", "--prune", cwd=made.folder, log=log) as page:
        assert "Lookalike" in httpx.get(page.url).text
        headers = {"Content-Type": "image/jpeg"}
        image = (made.photos / "coat" / "001.jpg").read_bytes()
        hits = httpx.post(f"{page.url}/v1/search", content=image, headers=headers).json()["hits"]
        assert hits[0]["id"] == "coat:001.jpg"
        ids = page.ids()

        whole = photo(601)
        with (made.photos / "hat" / "slow.jpg").open("wb") as file:  # as it is being copied
            for start in range(0, len(whole), len(whole) // 8 + 1):
                file.write(whole[start : start + len(whole) // 8 + 1])
                file.flush()
                os.utime(file.fileno())
                httpx.get(f"{page.url}/livez")
        page.wait_until(lambda now: now == ids | {"hat:slow.jpg"})

        (made.photos / "hat").rename(made.photos / "caps")
        page.wait_until(lambda now: "caps:slow.jpg" in now and "hat:slow.jpg" not in now)
        assert len(page.ids()) == len(ids) + 1
        (made.photos / "caps").rename(made.photos / "hat")
        (made.photos / "hat" / "slow.jpg").unlink()
        page.wait_until(lambda now: now == ids)

        second = up("photos", cwd=made.folder)
        assert "another `lookalike up` is at work on photos-lookalike" in sentence_of(second)
    lines = log.read_text().splitlines()
    assert [line[:4] for line in lines[:5]] == [f"{number}/5 " for number in range(1, 6)]
    assert "Traceback" not in log.read_text()
    assert max(map(len, lines)) <= 80
    log.unlink()


REFUSED = {
    "empty": "there are no images in",
    "nowhere": "is not there",
    "photos --out text.txt": "text.txt cannot be made: a file is in the way",
    "photos --out photos/kept": "photos/kept lies inside",
    "few --out photos-lookalike": "photos-lookalike holds what was made of",
    "few/coat/0.jpg": "is not a folder",
}


@pytest.mark.parametrize("line", REFUSED)
def test_what_cannot_be_is_said_and_nothing_is_made(line: str, made: Made, tmp_path: Path) -> None:
    shutil.rmtree(made.folder / "few", ignore_errors=True)
    write_few(made.folder / "few", each=1)
    (made.folder / "empty").mkdir(exist_ok=True)
    (made.folder / "text.txt").write_text("hello")
    before = sorted(made.folder.rglob("*"))

    done = up(*line.split(), cwd=made.folder)

    assert done.returncode == 1
    assert REFUSED[line] in sentence_of(done)
    assert sorted(made.folder.rglob("*")) == before
    shutil.rmtree(made.folder / "few")
    (made.folder / "empty").rmdir()
    (made.folder / "text.txt").unlink()


def test_a_budget_that_is_none_is_told(tmp_path: Path) -> None:
    done = up("photos", "--budget", "soon", cwd=tmp_path)

    assert done.returncode == 2
    assert "'soon' is no time" in " ".join(done.stderr.replace("│", " ").split())


def test_one_photo_is_told_to_be_too_few(tmp_path: Path) -> None:
    (tmp_path / "photos" / "coat").mkdir(parents=True)
    (tmp_path / "photos" / "coat" / "1.jpg").write_bytes(photo(1))

    assert sentence_of(up("photos", cwd=tmp_path))


def test_names_in_every_script_half_of_them_broken_and_some_without_a_class(
    tmp_path: Path,
) -> None:
    photos = write_few(tmp_path / "photos", each=10)
    for number, name in enumerate(NAMES):
        (photos / "hat" / name).write_bytes(photo(700 + number))
    (photos / "without a class.jpg").write_bytes(photo(800))
    name = os.fsencode(photos / "hat") + b"/gr\xf6\xdfe.jpg"  # Latin-1: no UTF-8
    Path(os.fsdecode(name)).write_bytes(photo(801))
    for number in range(12):  # half of 24
        path = photos / ("coat", "hat")[number % 2] / f"broken{number}.jpg"
        path.write_bytes(photo(900 + number)[:400])

    done = up("photos", cwd=tmp_path)

    assert done.returncode == 0, done.stderr
    assert stages_of(done.stderr)[3].startswith("indexed 38 photos in ")
    assert stages_of(done.stderr)[3].endswith("; 12 cannot be read")
    again = up("photos", cwd=tmp_path)
    assert stages_of(again.stderr)[3] == "indexed: 38 photos, nothing new; 12 cannot be read"


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    write_few(tmp_path / "photos", each=10)
    return tmp_path


# What is there when it is killed; each a stage further.
KILLED = {
    "training": "photos-lookalike/model.training/lock",
    "trained": "photos-lookalike/model/manifest.json",
    "measured": "photos-lookalike/model/report.html",
    "exported": "photos-lookalike/model/runtimes/openvino/*",
    "indexing": "photos-lookalike/gallery/gallery.sqlite",
    "indexed": "photos-lookalike/files.jsonl",
}


@pytest.mark.parametrize(
    "stages",
    [("training", "indexing"), pytest.param(tuple(KILLED), marks=pytest.mark.slow)],
    ids=["two stages", "every stage"],
)
def test_killed_at_a_stage_the_next_run_goes_on(stages: tuple[str, ...], mixed: Path) -> None:
    for stage in stages:
        kill_when(KILLED[stage], ["photos"], cwd=mixed, log=mixed / f"{stage}.txt")

    done = up("photos", cwd=mixed)

    assert done.returncode == 0, done.stderr
    trained, *_, indexed = stages_of(done.stderr)
    assert trained.startswith("trained: ")  # before the last kill, and kept
    assert re.match(r"indexed:? 20 photos", indexed)
    assert {path.name for path in (mixed / "photos-lookalike").iterdir()} == {
        *("files.jsonl", "gallery", "lock", "model", "state.json")
    }


@pytest.mark.slow
def test_an_interrupted_training_begins_again_when_the_photos_have_changed(mixed: Path) -> None:
    kill_when(KILLED["training"], ["photos"], cwd=mixed, log=mixed / "log.txt")
    write_few(mixed / "more", ("glove",), each=9)
    (mixed / "more" / "glove").rename(mixed / "photos" / "glove")

    done = up("photos", cwd=mixed)

    assert done.returncode == 0, done.stderr
    assert "29 photos in 3 classes" in done.stderr


@pytest.mark.slow
def test_training_again_keeps_what_was_there_before(mixed: Path) -> None:
    assert up("photos", cwd=mixed).returncode == 0
    kept = mixed / "photos-lookalike"
    before = (kept / "model" / "manifest.json").read_text()
    write_few(mixed / "more", ("glove",), each=9)
    (mixed / "more" / "glove").rename(mixed / "photos" / "glove")

    kill_when("photos-lookalike/next/model", ["photos", "--retrain"], cwd=mixed, log=mixed / "log")
    done = up("photos", cwd=mixed)  # goes on with it, without being asked again

    assert done.returncode == 0, done.stderr
    assert json.loads((kept / "model" / "manifest.json").read_text())["labels"] == [
        *("coat", "glove", "hat")
    ]
    assert (kept / "before" / "model" / "manifest.json").read_text() == before
    assert (kept / "before" / "gallery").is_dir()
    assert not (kept / "next").exists()
    assert stages_of(done.stderr)[-1].startswith("indexed: 29 photos, nothing new")


@pytest.mark.slow
@pytest.mark.parametrize("megabytes", [1, 8])
def test_a_full_disk_is_told_and_the_next_run_goes_on(megabytes: int, mixed: Path) -> None:
    with small_filesystem(mixed / "disk", megabytes=megabytes) as disk:
        done = up("photos", "--out", str(disk / "kept"), cwd=mixed)
        assert done.returncode == 1, done.stderr
        assert sentence_of(done)
        subprocess.run(["mount", "-o", "remount,size=500m", str(disk)], check=True)
        again = up("photos", "--out", str(disk / "kept"), cwd=mixed)
        assert again.returncode == 0, again.stderr


def test_a_place_that_cannot_be_written_is_told(mixed: Path) -> None:
    with small_filesystem(mixed / "disk", megabytes=50) as disk:
        shutil.copytree(mixed / "photos", disk / "photos")
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        done = up(str(disk / "photos"), cwd=mixed)

    assert done.returncode == 1
    assert "nothing can be written to disk/photos-lookalike" in sentence_of(done)
    assert "--out photos-lookalike" in sentence_of(done)
