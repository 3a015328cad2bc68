"""Backups of galleries that are written to, and what is restored of them."""

import shutil
import sqlite3
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from index.errors import DiskFullError, GalleryFolderError
from index.gallery import Gallery
from index.store.store import read_binding
from index.transfer import backup as backups
from index.transfer.backup import back_up, restore
from tests.support.fakes import new_item
from tests.support.faults.loop_filesystems import small_filesystem

WIDTH = 8


def make(folder: Path, *, items: int = 40) -> Gallery:
    gallery = Gallery.create(folder, model_name="fake", fingerprint="a1" * 32, width=WIDTH)
    gallery.put([new_item(f"i{n}", seed=n, label="l", metadata={"n": n}) for n in range(items)])
    return gallery


@pytest.fixture
def gallery(tmp_path: Path) -> Iterator[Gallery]:
    with make(tmp_path / "g") as gallery:
        yield gallery


def quiet(_: float) -> None:
    return


def opened(folder: Path) -> Gallery:
    return Gallery.open(folder, fingerprint="a1" * 32)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def content(gallery: Gallery) -> list[tuple[object, ...]]:
    """Return all that is stored, without the seqs."""
    return [
        (
            *(item.id, item.label, item.metadata, item.content_sha256, item.created),
            gallery.vector(item.id).tobytes(),
            gallery.thumbnail(item.id),
        )
        for item in gallery.page(limit=100_000).items
    ]


def test_a_backup_and_what_is_restored_of_it_hold_the_same_items(
    gallery: Gallery, tmp_path: Path
) -> None:
    progress: list[float] = []

    back_up(gallery, tmp_path / "backups" / "b", on_progress=progress.append)
    restore(tmp_path / "backups" / "b", tmp_path / "r", on_progress=quiet)

    assert names(tmp_path / "backups") == ["b"]
    assert names(tmp_path / "backups" / "b") == ["gallery.sqlite"]
    assert progress == sorted(progress)
    assert (progress[0], progress[-1]) == (0, 1)
    for folder in (tmp_path / "backups" / "b", tmp_path / "r"):
        with opened(folder) as copy:
            assert content(copy) == content(gallery)
            assert copy.seq == gallery.seq
            assert copy.verify() == []
            query = new_item("q", seed=7).vector_D[np.newaxis]
            assert copy.search(query, k=1).hits[0][0].id == "i7"
            copy.put([new_item("more", seed=99)])
            assert copy.count == gallery.count + 1


def test_every_copy_has_a_database_id_of_its_own(gallery: Gallery, tmp_path: Path) -> None:
    back_up(gallery, tmp_path / "b", on_progress=quiet)
    restore(tmp_path / "b", tmp_path / "r1", on_progress=quiet)
    restore(tmp_path / "b", tmp_path / "r2", on_progress=quiet)

    ids = {read_binding(tmp_path / name).database_id for name in ("g", "b", "r1", "r2")}
    assert len(ids) == 4


def test_writers_go_on_while_a_backup_is_taken_and_it_holds_one_moment(
    gallery: Gallery, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pairs are put and deleted in one transaction: half a pair would be half a transaction."""
    monkeypatch.setattr(backups, "STEP_PAGES", 1)  # many steps, so that writes come between them
    ended, written = threading.Event(), [0]
    waited_until = time.monotonic() + 60

    def look(_: float) -> None:
        while written[0] == before and time.monotonic() < waited_until:
            time.sleep(0.001)  # one write at least shall come while the backup is taken
        during.append(written[0])

    def write() -> None:
        while not ended.is_set():
            n = written[0]
            gallery.put([new_item(f"{side}{n}", seed=1000 + n) for side in "ab"])
            if n % 3 == 2:
                gallery.delete([f"{side}{n - 1}" for side in "ab"])
            written[0] += 1

    during: list[int] = []
    writer = threading.Thread(target=write)
    writer.start()
    try:
        for copy in range(3):
            before = written[0]
            back_up(gallery, tmp_path / f"b{copy}", on_progress=look)
            assert max(during) > before, "nobody wrote meanwhile: the test would say nothing"
            during.clear()
    finally:
        ended.set()
        writer.join()

    for copy in range(3):
        with opened(tmp_path / f"b{copy}") as one:
            ids = {item.id for item in one.page(limit=100_000).items}
            assert one.verify() == []
        assert {name[1:] for name in ids if name[0] == "a"} == {
            name[1:] for name in ids if name[0] == "b"
        }
        assert {f"i{n}" for n in range(40)} <= ids


def stop_at(share: float) -> Callable[[float], None]:
    def stop(done: float) -> None:
        if done >= share:
            raise KeyboardInterrupt

    return stop


@pytest.mark.parametrize("share", [0.0, 0.5, 0.9, 1.0])
def test_an_interrupted_copy_leaves_nothing_and_can_be_made_again(
    gallery: Gallery, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, share: float
) -> None:
    monkeypatch.setattr(backups, "STEP_PAGES", 1)

    with pytest.raises(KeyboardInterrupt):
        back_up(gallery, tmp_path / "b", on_progress=stop_at(share))
    assert names(tmp_path) == ["g"]
    back_up(gallery, tmp_path / "b", on_progress=quiet)
    with pytest.raises(KeyboardInterrupt):
        restore(tmp_path / "b", tmp_path / "r", on_progress=stop_at(share))

    assert names(tmp_path) == ["b", "g"]


def test_what_is_in_the_way_is_left_as_it_is(gallery: Gallery, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes").write_text("mine")
    (tmp_path / "file").write_text("mine")
    (tmp_path / "empty").mkdir()

    with pytest.raises(GalleryFolderError, match="the folder is not empty"):
        back_up(gallery, tmp_path / "full", on_progress=quiet)
    with pytest.raises(GalleryFolderError, match="a file is in the way"):
        back_up(gallery, tmp_path / "file", on_progress=quiet)
    back_up(gallery, tmp_path / "empty", on_progress=quiet)
    with pytest.raises(GalleryFolderError, match="the folder is not empty"):
        restore(tmp_path / "empty", tmp_path / "g", on_progress=quiet)

    assert names(tmp_path / "full") == ["notes"]
    assert names(tmp_path / "empty") == ["gallery.sqlite"]


def test_what_is_no_backup_or_a_damaged_one_is_refused(gallery: Gallery, tmp_path: Path) -> None:
    back_up(gallery, tmp_path / "b", on_progress=quiet)
    file = tmp_path / "b" / "gallery.sqlite"
    sound = file.read_bytes()

    with pytest.raises(GalleryFolderError, match="is not a backup"):
        restore(tmp_path, tmp_path / "r", on_progress=quiet)
    for damaged in (b"no database", sound[: len(sound) // 2], sound[:5000]):
        file.write_bytes(damaged)
        with pytest.raises(GalleryFolderError, match=rf"^{tmp_path}/b.* is damaged"):
            restore(tmp_path / "b", tmp_path / "r", on_progress=quiet)
    file.write_bytes(sound)
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute("UPDATE vectors SET crc32 = 1 WHERE key = 3")
    with pytest.raises(GalleryFolderError, match="'i2': its vector was changed"):
        restore(tmp_path / "b", tmp_path / "r", on_progress=quiet)

    assert names(tmp_path) == ["b", "g"]


def test_a_disk_that_fills_up_meanwhile_leaves_nothing(
    gallery: Gallery, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "index.transfer.backup.check_room", lambda *_: None
    )  # there was room before
    gallery.put([new_item(f"l{n}", seed=n, metadata={"long": "x" * 8000}) for n in range(200)])

    with small_filesystem(tmp_path / "small", megabytes=1) as small:
        with pytest.raises(DiskFullError, match=r"no room left to copy .* nothing of the copy"):
            back_up(gallery, small / "b", on_progress=quiet)
        assert names(small) == []

    assert gallery.verify() == []


def test_a_backup_is_read_from_a_disk_that_cannot_be_written_to(
    gallery: Gallery, tmp_path: Path
) -> None:
    with small_filesystem(tmp_path / "small", megabytes=8) as small:
        back_up(gallery, small / "b", on_progress=quiet)
        subprocess.run(["mount", "-o", "remount,ro", str(small)], check=True)
        restore(small / "b", tmp_path / "r", on_progress=quiet)

    with opened(tmp_path / "r") as restored:
        assert content(restored) == content(gallery)


def test_old_snapshots_beside_a_restored_database_are_refused(tmp_path: Path) -> None:
    with make(tmp_path / "g", items=1_200) as gallery:
        gallery.rebuild()
        assert gallery.info().generation == 1
        back_up(gallery, tmp_path / "b", on_progress=quiet)
        gallery.put([new_item("later", seed=9999)])
    assert names(tmp_path / "b") == ["gallery.sqlite"]
    restore(tmp_path / "b", tmp_path / "r", on_progress=quiet)
    shutil.copytree(tmp_path / "g" / "snapshots", tmp_path / "r" / "snapshots")

    with opened(tmp_path / "r") as restored:
        assert restored.info().generation == 0
        assert restored.count == 1_200
        (problem,) = restored.verify()
        assert "it belongs to another gallery or model" in problem
        restored.rebuild()
        assert restored.info().generation == 2
        query = new_item("q", seed=7).vector_D[np.newaxis]
        assert restored.search(query, k=1).hits[0][0].id == "i7"
