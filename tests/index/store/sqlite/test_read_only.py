"""Galleries that can only be read: a disk mounted read-only, or files of another user."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import apsw
import httpx
import numpy as np
import pytest
from typer.testing import CliRunner

from cli.commands import app
from index.errors import ReadOnlyError, StorageError
from index.gallery import Gallery
from index.items.filter import Filter, IsNull, Key
from index.operations.duplicates import find_duplicates
from index.store.schema import DATABASE_NAME
from index.store.sqlite.file_access import Access, access_to
from index.transfer.backup import back_up, restore
from index.transfer.export import export_folder
from tests.support.crashes.crash_harness import lay_out
from tests.support.crashes.crash_worker_main import IDS, item_of
from tests.support.faults.loop_filesystems import mount_read_only, small_filesystem
from tests.support.galleries.small_galleries import STORED, write_gallery
from tests.support.images.pngs import png
from tests.support.paths import ROOT
from tests.support.server.servers import running_server

CRASH = """
import os, sys
from pathlib import Path
from index.gallery import Gallery
from tests.support.crashes.crash_worker_main import item_of
gallery = Gallery.open(Path(sys.argv[1]), fingerprint=None)
gallery.put([item_of("acknowledged", 5_000)])
gallery.delete(["i1"])
os.kill(os.getpid(), 9)
"""
USE = """
import os, sys
from pathlib import Path
import scipy.sparse.csgraph  # what is imported later may lie where nobody else may read
from tests.index.store.sqlite.test_read_only import use
os.setgroups([])
os.setgid(65_534)
os.setuid(65_534)
use(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
"""


def leave(folder: Path, state: str) -> None:
    """Make a gallery with a graph, as it is after a stop or a crash."""
    lay_out(folder)
    if state != "stopped":
        command = [sys.executable, "-c", CRASH, str(folder)]
        assert subprocess.run(command, cwd=ROOT, check=False).returncode == -signal.SIGKILL
        assert (folder / "gallery.sqlite-wal").stat().st_size
    if state == "copied after a crash":
        (folder / "gallery.sqlite-shm").unlink()
    if state == "stopped, with an empty log":
        (folder / "gallery.sqlite-wal").write_bytes(b"")


STATES = ["stopped", "crashed", "copied after a crash"]


def use(folder: Path, elsewhere: Path, state: str) -> None:
    """Do everything that needs no writing, and see that nothing else is done."""
    before = contents(folder)
    with Gallery.open(folder, fingerprint=None) as gallery:
        is_whole = state == "stopped"
        assert ("acknowledged" in gallery.existing(["acknowledged"])) != is_whole
        assert ("i1" in gallery.existing(["i1"])) == is_whole
        if not is_whole:
            query = item_of("acknowledged", 5_000).vector_D[np.newaxis]
            assert gallery.search(query, k=1).hits[0][0].id == "acknowledged"
        assert gallery.verify() == []
        info = gallery.info()
        assert (info.state, info.structure) == ("read-only", "graph")
        assert info.reason is not None
        assert "can only be read" in info.reason
        find_duplicates(gallery, min_score=0.99, on_progress=lambda _: None)
        export_folder(gallery, elsewhere / "export", table="csv", on_progress=lambda _: None)
        back_up(gallery, elsewhere / "backup", on_progress=lambda _: None)
        for change in (
            lambda: gallery.put([item_of("new", 1)]),
            lambda: gallery.delete(["i2"]),
            gallery.rebuild,
        ):
            with pytest.raises(ReadOnlyError, match="can only be read"):
                change()
        gallery.start_maintenance()
        count = gallery.count
    restore(folder, elsewhere / "restored", on_progress=lambda _: None)
    for copy in ("backup", "restored"):
        with Gallery.open(elsewhere / copy, fingerprint=None) as gallery:
            assert gallery.count == count
    assert contents(folder) == before


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and not path.name.endswith("-shm")
    }


@pytest.mark.parametrize("state", STATES)
def test_all_that_was_acknowledged_is_read_from_a_disk_mounted_read_only(
    tmp_path: Path, state: str
) -> None:
    with small_filesystem(tmp_path / "disk", megabytes=16) as disk:
        leave(disk / "g", state)
        mount_read_only(disk)
        (tmp_path / "elsewhere").mkdir()

        use(disk / "g", tmp_path / "elsewhere", state)


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("locked", ["folder", "everything"])
def test_all_that_was_acknowledged_is_read_by_a_user_who_may_not_write(
    state: str, locked: str
) -> None:
    if os.geteuid() != 0:
        pytest.skip("becoming another user needs root: other users' files were NOT tried")
    with TemporaryDirectory() as name:  # unlike pytest's, it can be walked by all
        place = Path(name)
        place.chmod(0o755)
        leave(place / "g", state)
        (place / "elsewhere").mkdir()
        (place / "elsewhere").chmod(0o777)
        for path in (place / "g", *(place / "g").rglob("*")):
            path.chmod(0o755 if path.is_dir() else 0o644)
        if locked == "everything":
            for path in (place / "g", *(place / "g").rglob("*")):
                path.chmod(0o555 if path.is_dir() else 0o444)

        as_another_user(place / "g", place / "elsewhere", state)


def as_another_user(folder: Path, elsewhere: Path, state: str) -> None:
    """Use the gallery as nobody, in an interpreter of its own: a fork would have no threads."""
    command = [sys.executable, "-c", USE, str(folder), str(elsewhere), state]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr


def test_a_gallery_that_others_write_to_is_followed_where_it_can_only_be_read(
    tmp_path: Path,
) -> None:
    with small_filesystem(tmp_path / "disk", megabytes=16) as disk, read_only_view(disk) as view:
        lay_out(disk / "g")
        with Gallery.open(disk / "g", fingerprint=None) as writer:
            writer.put([item_of("first", 5_000)])
            with Gallery.open(view / "g", fingerprint=None) as reader:
                writer.put([item_of("second", 5_001)])
                assert sorted(reader.existing(["first", "second"])) == ["first", "second"]
                reader.catch_up()
                query = item_of("second", 5_001).vector_D[np.newaxis]
                assert reader.search(query, k=1).hits[0][0].id == "second"
                with pytest.raises(ReadOnlyError):
                    reader.put([item_of("third", 5_002)])


def test_a_writer_who_comes_later_is_noticed_where_no_lock_tells_of_it(tmp_path: Path) -> None:
    with small_filesystem(tmp_path / "disk", megabytes=16) as disk, read_only_view(disk) as view:
        lay_out(disk / "g")
        with Gallery.open(view / "g", fingerprint=None) as reader:
            assert reader.get("i1").id == "i1"
            with Gallery.open(disk / "g", fingerprint=None) as writer:
                writer.put([item_of("new", 5_000)])

            with pytest.raises(StorageError, match="was written to while it was read"):
                reader.get("i1")


@contextmanager
def read_only_view(disk: Path) -> Iterator[Path]:
    """Give the block the same file system, mounted read-only at another place."""
    view = disk.with_name("view")
    view.mkdir()
    subprocess.run(["mount", "--bind", str(disk), str(view)], check=True)
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", str(view)], check=True)
        yield view
    finally:
        subprocess.run(["umount", "--lazy", str(view)], check=True)


def test_commands_read_it_and_changes_end_in_a_sentence(tmp_path: Path) -> None:
    with small_filesystem(tmp_path / "disk", megabytes=16) as disk:
        lay_out(disk / "g")
        mount_read_only(disk)
        folder = str(disk / "g")
        runner = CliRunner()

        shown = runner.invoke(app, ["index", "info", folder])
        assert shown.exit_code == 0, shown.output
        assert "read-only" in shown.output
        for command in (["verify", folder], ["duplicates", folder]):
            assert runner.invoke(app, ["index", *command]).exit_code == 0
        for command in (
            ["remove", folder, "i1"],
            ["rebuild", folder],
            ["compact", folder],
            ["tune", folder],
        ):
            done = runner.invoke(app, ["index", *command])
            assert isinstance(done.exception, ReadOnlyError), done.output
            assert "mounted read-only" in str(done.exception)


@pytest.mark.parametrize("state", STATES)
def test_an_older_gallery_is_read_whole_where_it_cannot_be_brought_to_the_present_format(
    tmp_path: Path, state: str
) -> None:
    with small_filesystem(tmp_path / "disk", megabytes=16) as disk:
        leave(disk / "g", state)
        with closing(apsw.Connection(str(disk / "g" / DATABASE_NAME))) as connection:
            connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
            connection.execute("DELETE FROM terms")  # version 2 knew fewer of them
            connection.pragma("user_version", 2)
        if state == "copied after a crash":
            (disk / "g" / "gallery.sqlite-shm").unlink()
        mount_read_only(disk)
        (tmp_path / "elsewhere").mkdir()

        use(disk / "g", tmp_path / "elsewhere", state)
        with Gallery.open(disk / "g", fingerprint=None) as gallery:
            has_metadata = Filter(must=(IsNull(Key("version", column=False), wanted=False),))
            found = gallery.page(limit=2 * IDS, filter=has_metadata).items
            assert len(found) == gallery.count


def test_a_server_serves_a_gallery_from_a_disk_mounted_read_only(
    model: Path, tmp_path: Path
) -> None:
    with small_filesystem(tmp_path / "disk", megabytes=16) as disk:
        write_gallery(disk / "g", model)
        shutil.copytree(model, disk / "model")
        mount_read_only(disk)
        log = tmp_path / "log"
        with running_server(disk / "model", disk / "g", log) as server, server.client() as client:
            shown = client.get("/v1/gallery").json()
            assert (shown["state"], shown["count"]) == ("read-only", STORED)
            assert "mounted read-only" in shown["reason"]
            ready = httpx.get(f"{server.url}/readyz", timeout=30)
            assert (ready.status_code, ready.json()["gallery"]) == (200, "read-only")
            headers = {"Content-Type": "image/png"}
            found = client.post("/v1/search?k=1", content=png(1), headers=headers)
            assert found.json()["hits"][0]["id"] == "item-01"
            put = client.put("/v1/items/new", content=png(1), headers=headers)
            assert (put.status_code, put.json()["code"]) == (503, "read_only")
            job = client.post("/v1/jobs", json={"kind": "rebuild"})
            assert (job.status_code, job.json()["code"]) == (503, "read_only")
            assert client.get("/v1/jobs").json()["jobs"] == []
            time.sleep(1.5)  # the background looks
            assert client.get("/v1/gallery").status_code == 200


@pytest.mark.parametrize("name", ["gallery.sqlite-wal", "gallery.sqlite-shm"])
def test_a_gallery_that_another_closes_at_this_moment_can_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    database = tmp_path / DATABASE_NAME
    database.touch()
    (tmp_path / name).touch()
    asked = os.access

    def closed_meanwhile(path: Path, *arguments: int, **options: bool) -> bool:
        (tmp_path / name).unlink(missing_ok=True)
        return asked(path, *arguments, **options)

    monkeypatch.setattr("os.access", closed_meanwhile)
    assert access_to(database) is Access.WRITABLE


@pytest.mark.parametrize("name", ["gallery.sqlite-wal", "gallery.sqlite-shm"])
def test_a_gallery_that_others_open_and_close_at_this_moment_can_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    database, file = tmp_path / DATABASE_NAME, tmp_path / name
    database.touch()
    file.touch()
    asked, turns = os.access, iter(range(3))

    def come_and_go(path: Path, *arguments: int, **options: bool) -> bool:
        if path != file or next(turns, None) is None:
            return asked(path, *arguments, **options)
        file.unlink()
        may = asked(path, *arguments, **options)
        file.touch()
        return may

    monkeypatch.setattr("os.access", come_and_go)
    assert access_to(database) is Access.WRITABLE
    assert next(turns, None) is None, "they came and went"
