"""A gallery whose files are moved, deleted or replaced under a program that has it open."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import apsw
import numpy as np
import pytest

from index.errors import GalleryFolderError, ReadOnlyError, StorageError
from index.gallery import Gallery
from index.search.policy import SearchPolicy
from index.transfer.backup import back_up
from tests.support.crashes.crash_worker_main import WIDTH, item_of
from tests.support.faults.loop_filesystems import small_filesystem
from tests.support.paths import ROOT

ITEMS = 20


def make(folder: Path, *, first: int = 0) -> Path:
    with Gallery.create(folder, model_name="fake", fingerprint="a1" * 32, width=WIDTH) as gallery:
        gallery.put([item_of(f"i{n}", first + n) for n in range(ITEMS)])
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make(tmp_path / "g")


def moved(folder: Path) -> None:
    folder.rename(folder.with_name("elsewhere"))


def deleted(folder: Path) -> None:
    shutil.rmtree(folder)


def replaced(folder: Path) -> None:
    make(folder.with_name("other"), first=500)
    moved(folder)
    folder.with_name("other").rename(folder)


def database_replaced(folder: Path) -> None:
    make(folder.with_name("other"), first=500)
    os.replace(folder.with_name("other") / "gallery.sqlite", folder / "gallery.sqlite")


def database_moved(folder: Path) -> None:
    (folder / "gallery.sqlite").rename(folder / "old.sqlite")


def log_deleted(folder: Path) -> None:
    (folder / "gallery.sqlite-wal").unlink()


def locks_deleted(folder: Path) -> None:
    (folder / "gallery.sqlite-shm").unlink()


EVENTS = [
    *(moved, deleted, replaced, database_replaced, database_moved),
    *(log_deleted, locks_deleted),
]


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: event.__name__)
def test_no_write_is_acknowledged_that_nobody_would_find_and_reading_goes_on(
    folder: Path, event: Callable[[Path], None]
) -> None:
    with Gallery.open(folder, fingerprint=None) as gallery:
        gallery.put([item_of("before", 100)])
        gallery.get("before")

        event(folder)

        for change in (
            lambda: gallery.put([item_of("after", 101)]),
            lambda: gallery.delete(["i1"]),
            gallery.rebuild,
        ):
            with pytest.raises(ReadOnlyError, match=r"nothing is stored in .* any more, since"):
                change()
        info = gallery.info()
        assert (info.state, info.count) == ("read-only", ITEMS + 1)
        assert info.reason is not None
        assert "put it back, or restart" in info.reason
        query = item_of("before", 100).vector_D[np.newaxis]
        assert gallery.search(query, k=1).hits[0][0].id == "before"
        assert gallery.get("before").id == "before"


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: event.__name__)
def test_what_was_acknowledged_before_is_where_the_files_went(
    folder: Path, event: Callable[[Path], None]
) -> None:
    program = f"""
import os, sys
sys.path.insert(0, {str(ROOT)!r})
from pathlib import Path
from index.gallery import Gallery
from tests.support.crashes.crash_worker_main import item_of
from tests.index.store.sqlite import test_file_identity
gallery = Gallery.open(Path({str(folder)!r}), fingerprint=None)
gallery.put([item_of("before", 100)])
test_file_identity.{event.__name__}(gallery.folder)
try:
    gallery.put([item_of("after", 101)])
except Exception as error:
    print(type(error).__name__)
sys.stdout.flush()
os.kill(os.getpid(), 9)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.stdout == "ReadOnlyError\n", done.stderr

    if event in (moved, replaced):
        place = folder.with_name("elsewhere")
    elif event is database_moved:
        (folder / "old.sqlite").rename(folder / "gallery.sqlite")
        place = folder
    elif event in (log_deleted, locks_deleted):
        place = folder
    else:
        place = None  # somebody deleted it
    if place is not None:
        with Gallery.open(place, fingerprint=None) as gallery:
            assert gallery.get("before").id == "before"
            assert gallery.count == ITEMS + 1
            assert gallery.verify() == []
    if event in (replaced, database_replaced):  # the other one is whole, and only itself
        with Gallery.open(folder, fingerprint=None) as gallery:
            assert gallery.count == ITEMS
            assert gallery.verify() == []
            query = item_of("i3", 503).vector_D[np.newaxis]
            assert gallery.search(query, k=1).hits[0][0].id == "i3"


@pytest.mark.parametrize("event", [moved, replaced], ids=lambda event: event.__name__)
def test_when_the_very_same_gallery_is_back_writing_goes_on(
    folder: Path, event: Callable[[Path], None]
) -> None:
    with Gallery.open(folder, fingerprint=None) as gallery:
        event(folder)
        with pytest.raises(ReadOnlyError):
            gallery.put([item_of("lost", 100)])
        if event is replaced:
            folder.rename(folder.with_name("other"))
        folder.with_name("elsewhere").rename(folder)

        assert gallery.put([item_of("back", 101)])[0].outcome == "created"
        assert gallery.info().state == "writable"

    with Gallery.open(folder, fingerprint=None) as gallery:
        assert sorted(gallery.existing(["lost", "back"])) == ["back"]
        assert gallery.verify() == []


def test_a_gallery_put_in_its_place_is_neither_read_nor_changed_nor_copied(
    folder: Path, tmp_path: Path
) -> None:
    gallery = Gallery.open(folder, fingerprint=None)
    gallery.put([item_of("before", 100)])
    replaced(folder)
    with closing(
        apsw.Connection(str(folder / "gallery.sqlite"))
    ) as other:  # it has a log of its own
        other.execute("UPDATE items SET label = 'x' WHERE id = 'i1'")
        with pytest.raises(GalleryFolderError, match="another gallery now"):
            back_up(gallery, tmp_path / "copy", on_progress=lambda _: None)
        gallery._store._database.borrow()  # the one that is idle; the next would be a new one
        with pytest.raises(StorageError, match="is another file now"):
            gallery._store._database.borrow()

        gallery.close()

        assert (folder / "gallery.sqlite-wal").stat().st_size > 0, "its log is not ours to delete"
    assert not (tmp_path / "copy").exists()
    with Gallery.open(folder, fingerprint=None) as other_gallery:
        assert other_gallery.get("i1").label == "x"
        assert other_gallery.count == ITEMS


def test_a_disk_that_is_unmounted_under_a_gallery_is_seen(tmp_path: Path) -> None:
    with small_filesystem(tmp_path / "disk", megabytes=8) as disk:
        make(disk / "g")
        gallery = Gallery.open(disk / "g", fingerprint=None)
        subprocess.run(["umount", "--lazy", str(disk)], check=True)
        try:
            with pytest.raises(ReadOnlyError, match="a disk that was unmounted"):
                gallery.put([item_of("after", 101)])
        finally:
            gallery.close()
            subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(disk)], check=True)


def test_files_that_are_taken_away_amid_a_write_are_seen_before_it_is_acknowledged(
    folder: Path,
) -> None:
    with Gallery.open(folder, fingerprint=None) as gallery:
        with (
            pytest.raises(StorageError, match="Whether the change was made shows there"),
            gallery._store.writing(),
        ):
            moved(folder)
        with pytest.raises(ReadOnlyError):
            gallery.put([item_of("after", 101)])


def test_a_server_that_stands_by_notices_without_any_write(folder: Path) -> None:
    from tests.index.maintenance.test_maintenance import wait_until  # noqa: PLC0415

    policy = SearchPolicy(check_period_s=0.05)
    with Gallery.open(folder, fingerprint=None, policy=policy) as gallery:
        gallery.start_maintenance()
        moved(folder)
        wait_until(lambda: gallery.read_only_reason is not None)
        folder.with_name("elsewhere").rename(folder)
        wait_until(lambda: gallery.read_only_reason is None)
