"""`lookalike up --group`: what photos of one thing share is said once, and holds from then on."""

import json
from pathlib import Path

import pytest

from cli.up.folder_watch import Watcher
from cli.up.gallery_sync import GallerySync
from cli.up.inventory import row_of
from cli.up.workspace import State, Workspace
from dataset.errors import DatasetError
from dataset.listing import ListedFile
from index.gallery import Gallery
from tests.cli.up.test_up import Made, photo
from tests.support.commands.up_runs import sentence_of, stages_of, up


@pytest.fixture
def made(model: Path, tmp_path: Path) -> Made:
    """Photos in folders of their things, and the model that `up --group folder` made of them."""
    made = Made(tmp_path, model)
    for path in sorted(made.photos.rglob("*.jpg")):
        thing = path.parent / f"thing {int(path.stem) // 2}"
        thing.mkdir(exist_ok=True)
        path.rename(thing / path.name)
    workspace = Workspace(made.kept, str(made.photos))
    workspace.write_state(State(source=workspace.source, group="folder"))
    return made


def groups_of(made: Made) -> set[object]:
    with Gallery.open(made.kept / "gallery", fingerprint=None) as gallery:
        return {item.metadata.get("group") for item in gallery.page(limit=100).items}


def test_groups_are_kept_with_the_photos_by_the_next_runs_and_by_a_watched_folder(
    made: Made,
) -> None:
    things = {f"{label}/thing {number}" for label in ("coat", "hat") for number in range(5)}
    made.up("--group", "folder")
    assert groups_of(made) == things
    assert made.up()[3] == "indexed: 20 photos, nothing new"  # as the last time

    (made.photos / "hat" / "thing 9").mkdir()
    (made.photos / "hat" / "thing 9" / "1.jpg").write_bytes(photo(901))
    workspace = Workspace(made.kept, str(made.photos))
    gallery_sync = GallerySync(workspace, workspace.read_state(), device="cpu")
    watcher = Watcher(workspace, gallery_sync, prune=False)
    watcher.scan()
    watcher.scan()
    gallery_sync.close()
    assert groups_of(made) == {*things, "hat/thing 9"}


def test_other_groups_than_those_that_it_has_learnt_from_are_refused(made: Made) -> None:
    before = (made.kept / "state.json").read_bytes()
    done = up("photos", "--group", "([0-9]).*", cwd=made.folder)

    assert done.returncode == 1
    sentence = sentence_of(done)
    assert "photos-lookalike was made with --group 'folder', and --group '([0-9]).*'" in sentence
    assert "--retrain" in sentence
    assert "--out" in sentence
    assert (made.kept / "state.json").read_bytes() == before


def test_what_is_asked_for_with_a_new_training_holds_also_after_an_interruption(
    made: Made,
) -> None:
    workspace = Workspace(made.kept, str(made.photos))
    assert workspace.resolve_group("([0-9]).*", again=True) == "([0-9]).*"

    new = workspace.next
    new.folder.mkdir()
    new.write_state(State(source=workspace.source, group="([0-9]).*"))
    assert workspace.resolve_group(None, again=False) == "([0-9]).*"
    assert workspace.resolve_group("folder", again=False) == "folder"  # nothing was learnt yet

    (new.folder / "model").mkdir()
    with pytest.raises(DatasetError, match="--retrain"):
        workspace.resolve_group("folder", again=False)


def test_a_pattern_that_fits_nothing_is_told_before_anything_is_made(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "1.jpg").write_bytes(photo(1))
    for group, said in {"(x)": "does not fit", "(": "not a regular expression"}.items():
        done = up("photos", "--group", group, cwd=tmp_path)
        assert done.returncode == 1
        assert said in sentence_of(done)
    assert [path.name for path in tmp_path.iterdir()] == ["photos"]

    done = up("fashion-mnist", "--group", "folder", "--plan", cwd=tmp_path)
    assert "does not say which photos show one thing" in sentence_of(done)


def test_the_plan_counts_things_that_several_photos_show(made: Made) -> None:
    done = up("photos", "--group", "folder", "--plan", "--json", cwd=made.folder)

    assert done.stderr.splitlines()[0] == (
        "photos: 20 photos in 2 classes of 10 each; 10 things shown by several"
    )
    assert json.loads(done.stdout)["things"] == 10


def test_a_photo_of_another_thing_than_before_is_read_again(tmp_path: Path) -> None:
    """As where a table's column of groups was edited."""
    (tmp_path / "1.jpg").write_bytes(photo(1))
    one, other, none = (
        row_of(ListedFile(place=str(tmp_path / "1.jpg"), key="1.jpg", group=group))
        for group in ("shoe 1", "shoe 2", None)
    )
    assert one is not None
    assert not one.is_as_in(other, "1")
    assert not one.is_as_in(none, "1")


@pytest.mark.slow
def test_a_first_run_learns_and_measures_by_groups(made: Made, tmp_path: Path) -> None:
    done = up("photos", "--group", "folder", "--out", "kept", cwd=made.folder)

    assert done.returncode == 0, done.stderr
    assert stages_of(done.stderr)[3].startswith("indexed 20 photos")
    report = json.loads((tmp_path / "kept" / "model" / "report.json").read_text())
    assert report["same_item"]["setup"] == "groups"
    assert json.loads((tmp_path / "kept" / "state.json").read_text())["group"] == "folder"
