import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from index.errors import DiskFullError, GalleryFolderError, VectorIndexError
from index.gallery import Gallery
from index.store import Store, read_binding
from index.verify import store_problems
from tests.fakes import new_item
from tests.filesystems import small_filesystem

ROOT = Path(__file__).parents[1]
WIDTH = 8
NOT_A_NUMBER = "0000c07f" * WIDTH  # a vector of NaN, float32, little-endian

WRITER = """
import sys
from pathlib import Path
from index.gallery import Gallery
from tests.fakes import new_item
gallery = Gallery.open(Path(sys.argv[1]), fingerprint=None)
start, ack_first = int(sys.argv[2]), sys.argv[3] == "ack-first"
for n in range(start, start + 100_000):
    if ack_first:
        print(f"+{n}", flush=True)
    gallery.put([new_item(f"i{n}", seed=n, metadata={"n": n})])
    if not ack_first:
        print(f"+{n}", flush=True)
    if n % 5 == 4:
        gallery.delete([f"i{n - 2}"])
        print(f"-{n - 2}", flush=True)
"""


def make(folder: Path) -> Gallery:
    return Gallery.create(folder, model_name="fake", fingerprint="a1" * 32, width=WIDTH)


def kill_writer(folder: Path, *, start: int, after_s: float, mode: str) -> tuple[set[int], int]:
    """Kill -9 a writing process; return what it acknowledged as there, and the last number."""
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(folder), str(start), mode],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert writer.stdout is not None
    lines = [writer.stdout.readline()]  # it runs
    time.sleep(after_s)
    writer.send_signal(signal.SIGKILL)
    lines += writer.stdout.readlines()
    assert writer.wait() == -signal.SIGKILL
    writer.stdout.close()
    added = {int(line[1:]) for line in lines if line[0] == "+" and line[-1] == "\n"}
    deleted = {int(line[1:]) for line in lines if line[0] == "-" and line[-1] == "\n"}
    return added - deleted, max(added)


def test_no_acknowledged_item_is_lost_when_the_writer_is_killed(tmp_path: Path) -> None:
    folder = tmp_path / "g"
    make(folder).close()
    rng = random.Random(0)
    acknowledged: set[int] = set()
    last = 0

    for _ in range(3):
        added, last = kill_writer(
            folder, start=last + 10, after_s=rng.uniform(0.02, 0.3), mode="ack-after"
        )
        acknowledged |= added
        with Gallery.open(folder, fingerprint=None) as gallery:
            stored = {item.metadata["n"] for item in gallery.page(limit=100_000).items}
            # Allowed beside the acknowledged: one put, or one delete, that nobody heard of.
            assert len(acknowledged - stored) <= 1
            assert acknowledged - stored <= {last - 2}
            assert stored - acknowledged <= {last + 1}, "an item that nobody put"
            acknowledged = stored
            for n in sorted(stored)[-20:]:
                query = new_item("q", seed=n).vector_D[np.newaxis]
                assert gallery.search(query, k=1).hits[0][0].id == f"i{n}"
            assert gallery.verify() == []

    assert len(acknowledged) > 20


THREADED_WRITER = """
import sys, threading
from pathlib import Path
from index.store import Store
from tests.fakes import new_item
store = Store.open(Path(sys.argv[1]))
lock = threading.Lock()
def work(thread):
    for n in range(100_000):
        name = f"{sys.argv[2]}-{thread}-{n}"
        store.put([new_item(name, seed=n, metadata={"n": n})], upsert=True, created="")
        with lock:
            print(name, flush=True)
for thread in range(8):
    threading.Thread(target=work, args=(thread,)).start()
"""


def test_no_item_that_shared_a_transaction_is_lost_when_the_writer_is_killed(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "g"
    make(folder).close()
    acknowledged: set[str] = set()
    for attempt in range(3):
        writer = subprocess.Popen(
            [sys.executable, "-c", THREADED_WRITER, str(folder), str(attempt)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert writer.stdout is not None
        lines = [writer.stdout.readline()]
        time.sleep(0.1 * (attempt + 1))
        writer.send_signal(signal.SIGKILL)
        lines += writer.stdout.readlines()
        writer.wait()
        writer.stdout.close()
        acknowledged |= {line.strip() for line in lines if line[-1:] == "\n"}

        store = Store.open(folder)
        assert len(store.items(sorted(acknowledged))) == len(acknowledged)
        unheard = store.count() - len(acknowledged)
        assert 0 <= unheard <= 8 * (attempt + 1), "more than one put of each thread"
        assert store_problems(store) == []
        store.close()

    assert len(acknowledged) > 100


def test_the_kill_test_would_see_a_writer_that_acknowledges_too_early(tmp_path: Path) -> None:
    folder = tmp_path / "g"
    make(folder).close()
    lost = 0
    for attempt in range(5):
        added, _ = kill_writer(folder, start=attempt * 1000, after_s=0, mode="ack-first")
        with Gallery.open(folder, fingerprint=None) as gallery:
            lost += len(added) - len(gallery.existing([f"i{n}" for n in added]))
        if lost:
            return
    pytest.fail("five writers that lied were killed, and no loss was seen")


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
        (pragma("PRAGMA user_version = 9"), "version 9; this program reads up to 2: use a newer"),
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
        view = gallery._follower.snapshot.recent
        view.vectors_ND[4] = view.vectors_ND[5]
        view.keys_N[-1] = 999

        problems = gallery.verify()

    assert problems == [
        "item 'i4': the index holds another vector",
        "item 'i299': stored, but the index does not know it",
        "key 999: in the index, but not stored",
    ]
