"""Full disks, changed bytes and what `verify` says of them."""

import os
import random
import sqlite3
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from index.errors import DiskFullError, GalleryFolderError, VectorIndexError
from index.gallery import Gallery
from index.maintenance.verify import store_problems
from index.store.store import Store, read_binding
from tests.support.fakes import new_item
from tests.support.faults.loop_filesystems import small_filesystem

WIDTH = 8
NOT_A_NUMBER = "0000c07f" * WIDTH  # a vector of NaN, float32, little-endian


def make(folder: Path) -> Gallery:
    return Gallery.create(folder, model_name="fake", fingerprint="a1" * 32, width=WIDTH)


def fill(gallery: Gallery) -> list[str]:
    """Put items until there is no room; return the ids that were acknowledged."""
    acknowledged: list[str] = []

    def put_for_ever() -> None:
        for n in range(100_000):
            gallery.put([new_item(f"i{n}", seed=n, metadata={"long": "x" * 8000})])
            acknowledged.append(f"i{n}")

    with pytest.raises(DiskFullError, match=r"no room left to write .*; nothing was changed"):
        put_for_ever()
    return acknowledged


def check_after_full(gallery: Gallery, acknowledged: list[str]) -> None:
    assert len(acknowledged) > 5
    assert gallery.count == len(acknowledged)
    assert sorted(gallery.existing(acknowledged)) == sorted(acknowledged)
    query = new_item("q", seed=3).vector_D[np.newaxis]
    assert gallery.search(query, k=1).hits[0][0].id == "i3"
    assert gallery.verify() == []


def test_a_full_disk_refuses_the_write_and_keeps_everything_else(tmp_path: Path) -> None:
    with small_filesystem(tmp_path / "small", megabytes=2) as place:
        gallery = make(place / "g")
        ballast = place / "ballast"
        ballast.write_bytes(b"x" * 400_000)

        acknowledged = fill(gallery)

        check_after_full(gallery, acknowledged)
        ballast.unlink()
        gallery.put([new_item("after", seed=7)])
        gallery.close()
        with Gallery.open(place / "g", fingerprint=None) as again:
            assert again.count == len(acknowledged) + 1


def test_a_database_at_its_page_limit_refuses_the_write_and_keeps_the_rest(tmp_path: Path) -> None:
    gallery = make(tmp_path / "g")
    with gallery._store.writing() as writer:
        writer.pragma("max_page_count", 60)

    acknowledged = fill(gallery)

    check_after_full(gallery, acknowledged)
    gallery.close()


def test_creating_on_a_full_disk_leaves_nothing_behind(tmp_path: Path) -> None:
    with small_filesystem(tmp_path / "small", megabytes=1) as place:
        with pytest.raises(OSError, match="No space left"):
            (place / "ballast").write_bytes(b"x" * 2_000_000)

        with pytest.raises(VectorIndexError, match=r"no room left|cannot create"):
            make(place / "g")

        assert [path.name for path in place.iterdir()] == ["ballast"]


@pytest.fixture
def database(tmp_path: Path) -> Path:
    """The file of a closed gallery of 300 items."""
    with make(tmp_path / "g") as gallery:
        gallery.put(
            [new_item(f"i{n}", seed=n, label=f"l{n % 3}", metadata={"n": n}) for n in range(300)]
        )
    return tmp_path / "g" / "gallery.sqlite"


def overwrite(data: bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(data)


def cut(share: float) -> Callable[[Path], object]:
    return lambda path: os.truncate(path, int(path.stat().st_size * share))


def pragma(sql: str) -> Callable[[Path], object]:
    def change(path: Path) -> None:
        connection = sqlite3.connect(path)
        connection.execute("PRAGMA journal_mode=DELETE")
        connection.execute(sql)
        connection.commit()
        connection.close()

    return change


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (overwrite(b"hello, I am a text file\n" * 100), "is damaged, or not a gallery"),
        (overwrite(b""), "is damaged, or not a gallery"),
        (overwrite(os.urandom(50_000)), "is damaged, or not a gallery"),
        (cut(0.5), "is damaged"),
        (cut(0.01), "is damaged"),
        (pragma("PRAGMA application_id = 1"), "is damaged, or not a gallery"),
        (pragma("PRAGMA user_version = 9"), "version 9; this program reads up to 3: use a newer"),
        (pragma("PRAGMA user_version = 0"), "unknown format version 0"),
        (pragma("DELETE FROM meta WHERE name = 'width'"), "does not say its model"),
        (pragma("DROP TABLE vectors"), "is damaged"),
        (pragma("DELETE FROM vectors WHERE key = 7"), "a vector is missing"),
        (pragma("UPDATE vectors SET data = x'00' WHERE key = 7"), "does not have 8 numbers"),
    ],
)
def test_a_damaged_gallery_is_refused_with_a_sentence(
    database: Path, damage: Callable[[Path], object], sentence: str
) -> None:
    damage(database)

    with pytest.raises(GalleryFolderError, match=sentence):
        Gallery.open(database.parent, fingerprint=None)


def test_whatever_byte_is_changed_nothing_but_our_errors_comes_out(database: Path) -> None:
    original = database.read_bytes()
    rng = random.Random(0)
    noticed = 0
    for _ in range(40):
        data = bytearray(original)
        for _ in range(4):
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        database.write_bytes(data)
        try:
            read_binding(database.parent)
            with Gallery.open(database.parent, fingerprint=None) as gallery:
                gallery.page(limit=1000)
                gallery.search(new_item("q").vector_D[np.newaxis], k=300)
                noticed += bool(gallery.verify())
        except VectorIndexError:
            noticed += 1
        for name in ("gallery.sqlite-wal", "gallery.sqlite-shm"):
            (database.parent / name).unlink(missing_ok=True)
    assert noticed > 10  # the others hit unused bytes, or labels and metadata that stay readable


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        ("UPDATE vectors SET data = zeroblob(32) WHERE key = 5", "'i4': its vector is damaged"),
        (f"UPDATE vectors SET data = x'{NOT_A_NUMBER}' WHERE key = 5", "finite numbers"),
        ("UPDATE vectors SET data = zeroblob(8) WHERE key = 5", "has 8 bytes, not 32"),
        ("UPDATE vectors SET crc32 = 1 WHERE key = 5", "'i4': its vector was changed"),
        ("DELETE FROM vectors WHERE key = 5", "'i4': has no vector"),
        ("DELETE FROM thumbnails WHERE key = 5", "'i4': has no thumbnail"),
        ("UPDATE thumbnails SET data = x'00' WHERE key = 5", "'i4': its thumbnail was changed"),
        ("UPDATE items SET metadata = '{' WHERE key = 5", "'i4': its metadata is not JSON"),
        ("UPDATE items SET metadata = '[]' WHERE key = 5", "is not a JSON object"),
        ("DELETE FROM operations WHERE key = 5", "'i4': stored, but logged nowhere"),
        ("INSERT INTO operations (kind, key) VALUES ('delete', 5)", "'i4': stored, but logged as"),
        ("INSERT INTO operations (kind, key) VALUES ('put', 900)", "key 900: logged as stored"),
        ("INSERT INTO thumbnails VALUES (900, 'image/png', x'', 0)", "belongs to no item"),
        ("DROP INDEX items_by_label", None),
    ],
)
def test_verify_names_planted_damage(database: Path, damage: str, sentence: str | None) -> None:
    pragma(damage)(database)

    store = Store.open(database.parent)
    problems = store_problems(store)
    store.close()

    assert bool(problems) == bool(sentence)
    assert sentence is None or any(sentence in problem for problem in problems)


def test_verify_compares_the_index_in_memory_with_the_database(database: Path) -> None:
    with Gallery.open(database.parent, fingerprint=None) as gallery:
        view = gallery._follower.snapshot.delta
        view.vectors_ND[4] = view.vectors_ND[5]
        view.keys_N[-1] = 999

        problems = gallery.verify()

    assert problems == [
        "item 'i4': the index holds another vector",
        "item 'i299': stored, but the index does not know it",
        "key 999: in the index, but not stored",
    ]
