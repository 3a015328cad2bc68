"""What `lookalike up` remembers: the files of a source, and a folder whose parts are exchanged."""

import os
import shutil
from pathlib import Path

import pytest

from cli.up.inventory import Inventory, Row
from cli.up.workspace import STATE_NAME, State, Workspace
from dataset.errors import DatasetError
from dataset.folders.folder import list_folder
from dataset.listing import Listing
from tests.support.commands.up_runs import write_few


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return write_few(tmp_path / "photos", each=2)


def inventory_of(listing: Listing) -> Inventory:
    """Return the inventory as of files that changed long ago, as far as they can be made to."""
    rows = {
        file.key: Row(
            os.stat(file.path).st_size, os.stat(file.path).st_mtime_ns, 0, str(file.label)
        )
        for file in listing.files
    }
    return Inventory(rows)


def test_files_that_are_as_they_were_are_not_read_again(photos: Path, tmp_path: Path) -> None:
    before = inventory_of(list_folder(photos))
    before.write(tmp_path / "files.jsonl")
    listing = list_folder(photos)

    remembered = Inventory.read(tmp_path / "files.jsonl")
    assert remembered == before
    assert remembered.changed(inventory_of(listing), listing, "1") == []


def test_what_was_changed_added_or_got_another_label_is_read_again(photos: Path) -> None:
    before = inventory_of(list_folder(photos))
    (photos / "coat" / "0.jpg").write_bytes(b"other")
    shutil.copy(photos / "coat" / "1.jpg", photos / "coat" / "new.jpg")
    (photos / "hat" / "1.jpg").unlink()
    listing = list_folder(photos)

    changed = before.changed(inventory_of(listing), listing, "1")
    assert [file.key for file in changed] == ["coat/0.jpg", "coat/new.jpg"]


def test_a_file_that_has_just_changed_is_not_taken_for_known(photos: Path) -> None:
    """It may change again within the same tick of the file system's clock."""
    now = Inventory.of(list_folder(photos))

    assert len(now.rows) == 4
    assert now.settled.rows == {}


def test_broken_files_are_read_again_by_another_version_and_unreadable_ones_always(
    photos: Path,
) -> None:
    listing = list_folder(photos)
    now = inventory_of(listing)
    broken, closed = "coat/0.jpg", "coat/1.jpg"
    after = Inventory({}).after(
        now, now.rows.keys(), refused={broken, closed}, unread={closed}, program="1.0"
    )

    assert after.refused == 1
    assert [file.key for file in after.changed(now, listing, "1.0")] == [closed]
    assert [file.key for file in after.changed(now, listing, "1.1")] == [broken, closed]
    later = after.after(now, {closed}, refused=set(), unread=set(), program="1.0")
    assert later.changed(now, listing, "1.0") == []
    assert later.refused == 1


def test_a_file_that_still_waits_is_not_taken_for_read(photos: Path) -> None:
    listing = list_folder(photos)
    now = inventory_of(listing)
    after = Inventory({}).after(now, {"hat/0.jpg"}, refused=set(), unread=set(), program="1")

    assert set(after.rows) == {"hat/0.jpg"}


def test_a_damaged_list_is_as_none(tmp_path: Path) -> None:
    (tmp_path / "files.jsonl").write_text('["a.jpg", 1, 2')

    assert Inventory.read(tmp_path / "files.jsonl") == Inventory({})


def test_a_damaged_state_is_told(tmp_path: Path) -> None:
    (tmp_path / STATE_NAME).write_text("{")

    with pytest.raises(DatasetError, match="is damaged"):
        Workspace(tmp_path, "/photos").read_state()


def fill(folder: Path, words: str) -> None:
    for name in ("model", "gallery"):
        (folder / name).mkdir(parents=True)
        (folder / name / "words").write_text(words)
    (folder / "files.jsonl").write_text(words)
    Workspace(folder, "/photos").write_state(State(source="/photos", exported=words))


@pytest.mark.parametrize("done", range(9))
def test_an_exchange_that_is_interrupted_is_finished_by_the_next(
    done: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tmp_path, "old")
    fill(tmp_path / "next", "new")
    workspace = Workspace(tmp_path, "/photos")
    workspace.swap()
    assert workspace.read_state().exported == "old"  # nothing was ready
    workspace.next.mark_ready()
    replace, left = Path.replace, [done]

    def replace_or_die(path: Path, target: Path) -> Path:
        if not left[0]:
            raise KeyboardInterrupt
        left[0] -= 1
        return replace(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", replace_or_die)
        try:
            workspace.swap()
        except KeyboardInterrupt:
            assert done < 8  # so many files and folders move
    workspace.swap()

    assert workspace.read_state().exported == "new"
    for name in ("model", "gallery"):
        assert (tmp_path / name / "words").read_text() == "new"
        assert (tmp_path / "before" / name / "words").read_text() == "old"
    assert not (tmp_path / "next").exists()
