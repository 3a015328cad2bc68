"""Room on the disk: what work needs is checked and said before, and looked for where it is used."""

from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from cli.commands import app
from index.errors import DiskFullError, RebuildError
from index.gallery import Gallery
from index.items.item import NewItem
from index.store.vacuum import check_room, check_room_to_vacuum, free_bytes, vacuum
from index.transfer.backup import back_up, restore
from tests.support.fakes import new_item
from tests.support.faults.loop_filesystems import small_filesystem
from vision.image.thumbnail import Thumbnail

MEGABYTE = 2**20
ITEMS = 300
WIDTH = 64


def fill(folder: Path) -> None:
    """Make a gallery of about 10 MB, of which two thirds are deleted."""
    with Gallery.create(folder, model_name="fake", fingerprint="a1" * 32, width=WIDTH) as gallery:
        rng = np.random.default_rng(1)
        vectors_ND = rng.standard_normal((ITEMS, WIDTH)).astype(np.float32)
        gallery.put(
            [
                NewItem(
                    id=f"i{n}",
                    vector_D=vector_D / np.linalg.norm(vector_D),
                    label=None,
                    metadata={},
                    thumbnail=Thumbnail("image/png", rng.bytes(32_000)),
                    content_sha256=f"{n:064x}",
                )
                for n, vector_D in enumerate(vectors_ND)
            ]
        )
        gallery.delete([f"i{n}" for n in range(ITEMS) if n % 3])


def leave_free(disk: Path, size: int) -> None:
    with (disk / "ballast").open("wb") as file:
        file.write(bytes(max(0, free_bytes(disk) - size)))


def test_room_is_looked_for_beside_the_database_however_small_other_places_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tmp_path / "g")
    with small_filesystem(tmp_path / "temporary", megabytes=1) as full:
        (full / "ballast").write_bytes(bytes(MEGABYTE))
        monkeypatch.setenv("SQLITE_TMPDIR", str(full))
        monkeypatch.setenv("TMPDIR", str(full))

        assert vacuum(tmp_path / "g") > 5 * MEGABYTE

    assert sorted(path.name for path in (tmp_path / "g").iterdir()) == ["gallery.sqlite"]
    with Gallery.open(tmp_path / "g", fingerprint=None) as gallery:
        assert gallery.verify() == []
        assert gallery.count == ITEMS // 3
    assert check_room_to_vacuum(tmp_path / "g") == 0
    assert vacuum(tmp_path / "g") == 0


def test_without_room_in_the_gallerys_folder_nothing_is_begun(tmp_path: Path) -> None:
    with small_filesystem(tmp_path / "disk", megabytes=32) as disk:
        fill(disk / "g")
        leave_free(disk, 3 * MEGABYTE)

        done = CliRunner().invoke(app, ["index", "compact", str(disk / "g")])

        assert isinstance(done.exception, DiskFullError), done.output
        sentence = str(done.exception)
        assert "dropping what was deleted needs 6." in sentence
        assert f"MiB in {disk / 'g'}, " in sentence
        assert "are free; nothing was changed" in sentence
        with Gallery.open(disk / "g", fingerprint=None) as gallery:
            assert gallery.info().generation == 0
            assert gallery.verify() == []


def test_with_just_the_room_that_was_named_room_is_given_back(tmp_path: Path) -> None:
    with small_filesystem(tmp_path / "disk", megabytes=32) as disk:
        fill(disk / "g")
        needed = check_room_to_vacuum(disk / "g")
        leave_free(disk, needed + MEGABYTE // 4)

        assert vacuum(disk / "g") > 5 * MEGABYTE


def test_a_copy_and_a_structure_without_room_are_refused_before_they_begin(tmp_path: Path) -> None:
    fill(tmp_path / "g")
    told: list[float] = []
    with small_filesystem(tmp_path / "disk", megabytes=2) as disk:
        with (
            Gallery.open(tmp_path / "g", fingerprint=None) as gallery,
            pytest.raises(DiskFullError, match=r"a copy of .*/g needs .* MiB in .*/disk/b"),
        ):
            back_up(gallery, disk / "b", on_progress=told.append)
        with pytest.raises(DiskFullError, match=r"a copy of .*/g needs .* MiB in .*/disk/r/s"):
            restore(tmp_path / "g", disk / "r" / "s", on_progress=told.append)
        assert list(disk.iterdir()) == []
    assert told == []
    with small_filesystem(tmp_path / "other", megabytes=32) as disk:
        fill(disk / "g")
        leave_free(disk, 48 * 2**10)  # 32 of which opening takes
        with Gallery.open(disk / "g", fingerprint=None) as gallery:
            with pytest.raises(RebuildError, match=r"a new structure, at least, needs 25\.8 KiB"):
                gallery.rebuild()
            assert gallery.info().generation == 0


def test_free_room_is_that_of_the_first_folder_that_exists(tmp_path: Path) -> None:
    assert free_bytes(tmp_path / "a" / "b") > 0
    check_room(tmp_path / "a", 1, "it")
    with pytest.raises(DiskFullError, match="it needs"):
        check_room(tmp_path / "a", 2**62, "it")


def test_on_a_disk_without_any_room_opening_says_so(tmp_path: Path) -> None:
    with small_filesystem(tmp_path / "disk", megabytes=4) as disk:
        with Gallery.create(disk / "g", model_name="m", fingerprint="a1" * 32, width=8) as gallery:
            gallery.put([new_item(f"i{n}", seed=n) for n in range(20)])
        with (disk / "ballast").open("wb", buffering=0) as ballast, suppress(OSError):
            while True:
                ballast.write(bytes(4096))

        with pytest.raises(DiskFullError, match="no room left to"):
            Gallery.open(disk / "g", fingerprint=None)

        (disk / "ballast").unlink()
        with Gallery.open(disk / "g", fingerprint=None) as gallery:
            assert gallery.count == 20
