"""`lookalike up`: the next runs, what comes and goes between them, and what it refuses.

A small model with random weights stands in for one that was trained, so that nothing here trains;
tests/cli/up/test_up_first.py does.
"""

import json
import os
import shutil
import subprocess
from pathlib import Path

import httpx
import pytest

from cli.up.workspace import State, Workspace
from tests.support.commands.up_runs import kill_when, page_of, sentence_of, stages_of, up, write_few
from tests.support.faults.loop_filesystems import small_filesystem
from tests.support.images.pngs import encoded, picture
from tests.vision.export.test_export_model import export

MADE = 20
NAMES = (  # in every script, and in none
    *("größe 42.jpg", "帽子.jpg", "шляпа \N{PARTY POPPER}.jpg"),
    *("two  spaces, [bold] and 'quotes'.jpg", "line\nbreak.jpg"),
)


def photo(number: int) -> bytes:
    return encoded(picture(number, (200, 150)), "JPEG")


class Made:
    """A folder with photos and, beside it, the model that `up` would have made of them."""

    def __init__(self, folder: Path, model: Path) -> None:
        self.folder = folder
        self.photos = write_few(folder / "photos")
        self.kept = folder / "photos-lookalike"
        self.kept.mkdir()
        shutil.copytree(model, self.kept / "model")
        export(self.kept / "model", precision="fp32")
        (self.kept / "model" / "report.html").write_text("measured")
        workspace = Workspace(self.kept, str(self.photos))
        workspace.write_state(State(source=workspace.source))

    def up(self, *arguments: str) -> list[str]:
        """Run `up` and return the lines of its stages."""
        done = up("photos", *arguments, cwd=self.folder)
        assert done.returncode == 0, done.stderr
        return stages_of(done.stderr)


@pytest.fixture(scope="module")
def made(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Made:
    made = Made(tmp_path_factory.mktemp("up"), model)
    assert made.up()[3].startswith(f"indexed {MADE} photos in ")
    return made


def test_the_next_time_it_only_says_what_there_is(made: Made) -> None:
    before = (made.kept / "state.json").read_bytes()
    done = up("photos", cwd=made.folder)

    assert done.stderr.splitlines() == [
        "1/5 trained: 10.0% right of 0 photos kept apart",
        "2/5 exported for openvino",
        "3/5 measured: photos-lookalike/model/report.html",
        f"4/5 indexed: {MADE} photos, nothing new",
        "Ready: lookalike serve --model photos-lookalike/model --gallery photos-lookalike/gallery",
    ]
    assert done.stdout == ""
    assert (made.kept / "state.json").read_bytes() == before
    assert {path.name for path in made.folder.iterdir()} == {"photos", "photos-lookalike"}


def test_it_is_the_same_from_within_the_folder(made: Made) -> None:
    done = up(".", "--json", cwd=made.photos)

    assert f"indexed: {MADE} photos, nothing new" in done.stderr
    assert json.loads(done.stdout)["added"] == 0


def test_what_was_added_changed_and_taken_away_since_is_found(made: Made) -> None:
    (made.photos / "hat" / "new.jpg").write_bytes(photo(501))
    assert made.up()[3] == f"indexed: {MADE + 1} photos, 1 photo added (hat/new.jpg)"

    (made.photos / "hat" / "new.jpg").write_bytes(photo(502))
    assert made.up()[3] == f"indexed: {MADE + 1} photos, 1 changed"

    (made.photos / "hat" / "new.jpg").unlink()
    said = f"indexed: {MADE} photos, nothing new; 1 gone, still found without --prune"
    assert made.up()[3] == said
    assert made.up()[3] == said  # as long as it is so
    assert made.up("--prune")[3] == f"indexed: {MADE} photos, 1 taken out"
    assert made.up()[3] == f"indexed: {MADE} photos, nothing new"


def test_new_classes_suggest_to_train_again(made: Made) -> None:
    (made.photos / "trousers").mkdir()
    (made.photos / "trousers" / "1.jpg").write_bytes(photo(503))
    done = up("photos", cwd=made.folder)
    shutil.rmtree(made.photos / "trousers")
    made.up("--prune")

    assert "the model does not know trousers: --retrain trains again" in done.stderr
    assert stages_of(done.stderr)[0].startswith("trained: ")  # never by itself


def test_a_page_answers_when_it_is_said_to_and_takes_in_what_comes(made: Made) -> None:
    log = made.folder / "log.txt"
    with page_of("photos", "--watch", "--prune", cwd=made.folder, log=log) as page:
        assert "Lookalike" in httpx.get(page.url).text
        headers = {"Content-Type": "image/jpeg"}
        image = (made.photos / "coat" / "0.jpg").read_bytes()
        hits = httpx.post(f"{page.url}/v1/search", content=image, headers=headers).json()["hits"]
        assert hits[0]["id"] == "coat:0.jpg"
        ids = page.ids()

        whole = photo(601)
        with (made.photos / "hat" / "slow.jpg").open("wb") as file:  # as it is being copied
            for start in range(0, len(whole), len(whole) // 4 + 1):
                file.write(whole[start : start + len(whole) // 4 + 1])
                file.flush()
                httpx.get(f"{page.url}/livez")
        page.wait_until(lambda now: now == ids | {"hat:slow.jpg"})

        (made.photos / "hat").rename(made.photos / "caps")
        moved = {one.replace("hat:", "caps:") for one in ids | {"hat:slow.jpg"}}
        page.wait_until(lambda now: now == moved)
        (made.photos / "caps").rename(made.photos / "hat")
        (made.photos / "hat" / "slow.jpg").unlink()
        page.wait_until(lambda now: now == ids)

        away = made.folder / "away"
        made.photos.rename(away)  # as where a disk is unmounted: nothing is taken out
        page.wait_until_said("cannot take in what is new, and will try again")
        away.rename(made.photos)
        (made.photos / "coat" / "back.jpg").write_bytes(photo(602))
        page.wait_until(lambda now: now == ids | {"coat:back.jpg"})
        (made.photos / "coat" / "back.jpg").unlink()
        page.wait_until(lambda now: now == ids)

        second = up("photos", cwd=made.folder)
        assert "another `lookalike up` is at work on photos-lookalike" in sentence_of(second)
    lines = [line for line in log.read_text().splitlines() if not line.startswith("{")]
    assert [line[:4] for line in lines[:5]] == [f"{number}/5 " for number in range(1, 6)]
    assert "Traceback" not in log.read_text()
    log.unlink()


REFUSED = {
    "empty": "there are no images in",
    "nowhere": "is not there",
    "photos --out text.txt": "text.txt cannot be made: a file is in the way",
    "photos --out photos/kept": "photos/kept lies inside",
    "few --out photos-lookalike": "photos-lookalike holds what was made of",
    "few/coat/0.jpg": "is not a folder",
}


def test_what_cannot_be_is_said_and_nothing_is_made(made: Made) -> None:
    write_few(made.folder / "few", each=1)
    (made.folder / "empty").mkdir(exist_ok=True)
    (made.folder / "text.txt").write_text("hello")
    before = sorted(made.folder.rglob("*"))

    for line, said in REFUSED.items():
        done = up(*line.split(), cwd=made.folder)
        assert done.returncode == 1, line
        assert said in sentence_of(done)
        assert sorted(made.folder.rglob("*")) == before, line
    shutil.rmtree(made.folder / "few")
    (made.folder / "empty").rmdir()
    (made.folder / "text.txt").unlink()


def test_a_budget_that_is_none_is_told(tmp_path: Path) -> None:
    done = up("photos", "--budget", "soon", cwd=tmp_path)

    assert done.returncode == 2
    assert "'soon'" in done.stderr


def test_names_in_every_script_half_of_them_broken_and_some_without_a_class(
    model: Path, tmp_path: Path
) -> None:
    made = Made(tmp_path, model)
    for number, name in enumerate(NAMES):
        (made.photos / "hat" / name).write_bytes(photo(700 + number))
    (made.photos / "without a class.jpg").write_bytes(photo(800))
    latin_1 = os.fsencode(made.photos / "hat") + b"/gr\xf6\xdfe.jpg"  # no UTF-8
    Path(os.fsdecode(latin_1)).write_bytes(photo(801))
    whole = MADE + len(NAMES) + 2
    for number in range(whole):
        path = made.photos / ("coat", "hat")[number % 2] / f"broken{number}.jpg"
        path.write_bytes(photo(900 + number)[:400])

    said = made.up()[3]
    assert said.startswith(f"indexed {2 * whole} photos in ")
    assert said.endswith(f"; {whole} cannot be read")
    again = f"indexed: {2 * whole} photos, nothing new; {whole} cannot be read"
    assert made.up()[3] == again

    (made.photos / "coat" / "broken0.jpg").write_bytes(photo(900))  # mended
    assert "1 photo added (coat/broken0.jpg)" in made.up()[3]


def test_killed_while_it_indexes_the_next_run_goes_on(model: Path, tmp_path: Path) -> None:
    made = Made(tmp_path, model)
    kill_when("photos-lookalike/gallery/gallery.sqlite", ["photos"], cwd=tmp_path)

    assert made.up()[3].startswith(f"indexed {MADE} photos in ")
    assert made.up()[3] == f"indexed: {MADE} photos, nothing new"


def test_a_full_disk_is_told_and_the_next_run_goes_on(model: Path, tmp_path: Path) -> None:
    made = Made(tmp_path, model)
    size = sum(path.stat().st_size for path in made.kept.rglob("*") if path.is_file()) // 2**20
    with small_filesystem(tmp_path / "disk", megabytes=size + 1) as disk:
        shutil.copytree(made.kept, disk / "kept")
        (disk / "filler").write_bytes(b"x" * (shutil.disk_usage(disk).free - 40_000))
        arguments = ("photos", "--out", "disk/kept")
        done = up(*arguments, cwd=tmp_path)
        assert done.returncode == 1, done.stderr
        assert sentence_of(done)
        (disk / "filler").unlink()
        subprocess.run(["mount", "-o", "remount,size=99m", str(disk)], check=True)

        again = up(*arguments, cwd=tmp_path)
    assert f"indexed {MADE} photos in " in again.stderr


def test_a_place_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    with small_filesystem(tmp_path / "disk", megabytes=20) as disk:
        write_few(disk / "photos")
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        done = up("disk/photos", cwd=tmp_path)

    assert done.returncode == 1
    assert "nothing can be written to disk/photos-lookalike" in sentence_of(done)
    assert "--out photos-lookalike" in sentence_of(done)
