"""What may not grow without end: the log, the write-ahead log, and the work of one transaction."""

import logging
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import apsw
import numpy as np
import pytest
from numpy.typing import NDArray

from index.errors import InvalidMetadataError, StorageError
from index.gallery import Gallery
from index.items.filter import parse_filter
from index.items.item import MAX_METADATA_VALUES, MAX_NAME_CHARS, NewItem, encode_metadata
from index.snapshot.snapshot import Snapshot
from index.store.group_commit import MAX_ITEMS
from index.store.sqlite.write_ahead_log import truncate_wal
from index.transfer.backup import back_up
from index.transfer.export import export_parquet
from tests.support.fakes import new_item, unit_vectors
from tests.support.galleries.segments import rebuilt, small_structures
from vision.image.thumbnail import Thumbnail

WIDTH = 8
MIB = 2**20


@pytest.fixture
def gallery(tmp_path: Path) -> Iterator[Gallery]:
    with Gallery.create(
        tmp_path / "g", model_name="fake", fingerprint="a1" * 32, width=WIDTH
    ) as gallery:
        yield gallery


def quiet(_: object) -> None:
    return


# The log of operations


def log_rows(gallery: Gallery) -> int:
    with gallery._store.reading() as reader:
        return int(reader.execute("SELECT count(*) FROM operations").get)


def test_the_log_of_a_small_gallery_is_cut_as_it_grows(
    gallery: Gallery, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("index.store.oplog.KEPT_ROWS", 200)
    monkeypatch.setattr("index.store.oplog.CUT_ROWS", 50)
    most = 0
    with Gallery.open(gallery.folder, fingerprint=None) as other:  # which sleeps meanwhile
        for turn in range(60):
            gallery.put([new_item(f"i{n}", seed=turn * 10 + n) for n in range(10)])
            most = max(most, log_rows(gallery))
        assert gallery.seq == 1_190
        assert 200 <= most <= 250 + 20
        assert gallery.verify() == []

        query = new_item("", seed=593).vector_D[np.newaxis]
        assert other.search(query, k=1).hits[0][0].id == "i3"
        assert other.seq == gallery.seq
        assert other.verify() == []


def test_a_log_that_grew_long_is_cut_in_parts_and_faster_than_it_grows(
    gallery: Gallery, monkeypatch: pytest.MonkeyPatch
) -> None:
    gallery.put([new_item(f"i{n}", seed=n) for n in range(1_000)])
    monkeypatch.setattr("index.store.oplog.KEPT_ROWS", 100)
    monkeypatch.setattr("index.store.oplog.CUT_ROWS", 50)

    gallery.put([new_item("more")])
    assert log_rows(gallery) == 1_001 - 50, "one writer does not pay for all of it"
    gallery.put([new_item(f"i{n}", seed=5_000 + n) for n in range(200)])
    assert log_rows(gallery) == 951 + 400 - 800
    assert gallery.verify() == []


# The write-ahead log


def log_bytes(gallery: Gallery) -> int:
    return (gallery.folder / "gallery.sqlite-wal").stat().st_size


def pictured(number: int, bytes_: int = 200_000) -> NewItem:
    item = new_item(f"i{number}", seed=number)
    picture = Thumbnail("image/png", np.random.default_rng(number).bytes(bytes_))
    return NewItem(
        id=item.id,
        vector_D=item.vector_D,
        label=None,
        metadata={},
        thumbnail=picture,
        content_sha256=item.content_sha256,
    )


@contextmanager
def foreign_reader(gallery: Gallery) -> Iterator[None]:
    """Another program reads one state of the database, and stays."""
    with closing(apsw.Connection(str(gallery.folder / "gallery.sqlite"))) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM items").fetchall()
        yield


@pytest.fixture
def small_logs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let 2 MiB be a long log, and 8 MiB one that ends readers, at once."""
    monkeypatch.setattr("index.store.sqlite.write_ahead_log.LONG_BYTES", 2 * MIB)
    monkeypatch.setattr("index.store.sqlite.database.LONG_BYTES", 2 * MIB)
    monkeypatch.setattr("index.store.sqlite.write_ahead_log.WAIT_AGAIN_BYTES", 2 * MIB)
    monkeypatch.setattr("index.store.sqlite.write_ahead_log.WAIT_MS", 20)
    monkeypatch.setattr("index.store.sqlite.write_ahead_log.MAX_BYTES", 8 * MIB)
    monkeypatch.setattr("index.store.sqlite.write_ahead_log.MAX_SHARE", 0)
    monkeypatch.setattr("index.store.sqlite.write_ahead_log.GRACE_S", 0.3)
    monkeypatch.setattr("index.store.sqlite.write_ahead_log.LOOK_STEPS", 100)


@pytest.mark.usefixtures("small_logs")
def test_after_a_slow_reader_the_write_ahead_log_is_short_again_and_that_was_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "lookalike.index")
    with Gallery.create(
        tmp_path / "g", model_name="fake", fingerprint="a1" * 32, width=WIDTH
    ) as gallery:
        with foreign_reader(gallery):
            for n in range(50):
                gallery.put([pictured(n)])
            assert log_bytes(gallery) > 9 * MIB
        told = caplog.text.count("cannot be emptied")
        assert 2 <= told <= 6, "once for every 2 MiB, not for every write"

        for n in range(50, 70):
            gallery.put([pictured(n)])

        assert log_bytes(gallery) <= 2 * MIB + 2 * 200_000
        assert caplog.text.count("cannot be emptied") == told
        assert gallery.verify() == []


@pytest.mark.usefixtures("small_logs")
def test_readers_that_always_overlap_do_not_keep_the_log_growing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("index.store.sqlite.write_ahead_log.WAIT_MS", 2_000)
    with Gallery.create(
        tmp_path / "g", model_name="fake", fingerprint="a1" * 32, width=WIDTH
    ) as gallery:
        end = threading.Event()

        def read(first_pause_s: float) -> None:
            end.wait(first_pause_s)
            while not end.is_set():
                with gallery._store.reading() as reader:
                    reader.execute("SELECT count(*) FROM items").fetchall()
                    end.wait(0.02)

        threads = [threading.Thread(target=read, args=(pause,)) for pause in (0.0, 0.01)]
        for thread in threads:
            thread.start()
        most = 0
        for n in range(120):
            gallery.put([pictured(n)])
            most = max(most, log_bytes(gallery))
        end.set()
        for thread in threads:
            thread.join()

        assert most < 5 * MIB, "24 MB were written, and emptied from 4 MB on"


def test_the_log_begins_anew_though_readers_that_overlap_have_taken_over_an_old_mark(
    tmp_path: Path,
) -> None:
    path = tmp_path / "x.sqlite"

    def write(connection: apsw.Connection) -> None:
        connection.execute("INSERT INTO t VALUES (randomblob(200000))")

    def renew(reader: apsw.Connection) -> None:
        if reader.in_transaction:
            reader.execute("COMMIT")
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM t").fetchall()

    with (
        closing(apsw.Connection(str(path))) as writer,
        closing(apsw.Connection(str(path))) as first,
        closing(apsw.Connection(str(path))) as second,
        ThreadPoolExecutor(1) as pool,
    ):
        writer.pragma("journal_mode", "wal")
        writer.execute("CREATE TABLE t(x)")
        write(writer)
        renew(first)  # takes the first of SQLite's marks, and moves it on in its next turn
        write(writer)
        renew(second)
        write(writer)
        emptied = pool.submit(truncate_wal, writer, wait_ms=2_000)
        while not emptied.done():  # one of them always reads
            time.sleep(0.03)
            renew(first)
            time.sleep(0.03)
            renew(second)

        assert emptied.result()
        assert path.with_name("x.sqlite-wal").stat().st_size == 0


@pytest.mark.usefixtures("small_logs")
@pytest.mark.parametrize("work", ["export", "backup"])
def test_whoever_reads_for_too_long_is_ended_before_the_log_fills_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, work: str
) -> None:
    monkeypatch.setattr("index.transfer.export.GROUP_ROWS", 10)
    monkeypatch.setattr("index.transfer.backup.STEP_PAGES", 1)
    numbers = iter(range(1_000, 100_000))
    with Gallery.create(
        tmp_path / "g", model_name="fake", fingerprint="a1" * 32, width=WIDTH
    ) as gallery:
        gallery.put([pictured(n, bytes_=2_000) for n in range(600)])

        def write(_: object) -> None:
            gallery.put([pictured(next(numbers)), pictured(next(numbers))])

        def read() -> None:
            if work == "export":
                export_parquet(gallery, tmp_path / "x.parquet", thumbnails=True, on_progress=write)
            else:
                back_up(gallery, tmp_path / "x", on_progress=write)

        with pytest.raises(StorageError, match="would fill the disk; try again when less"):
            read()

        assert log_bytes(gallery) < 32 * MIB, "as long as its steps lasted, it would be hundreds"
        assert sorted(path.name for path in tmp_path.iterdir()) == ["g"], "nothing of it is left"
        for _ in range(10):
            write(None)
        assert log_bytes(gallery) < 4 * MIB
        assert gallery.verify() == []


def test_a_slow_reader_of_a_quiet_gallery_is_left_alone(
    gallery: Gallery, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("index.store.sqlite.write_ahead_log.GRACE_S", 0)
    gallery.put([pictured(n, bytes_=2_000) for n in range(100)])

    export_parquet(gallery, tmp_path / "x.parquet", thumbnails=True, on_progress=quiet)
    back_up(gallery, tmp_path / "x", on_progress=quiet)


# The work of one transaction


def test_metadata_has_so_many_values_and_not_more() -> None:
    assert encode_metadata({"a": list(range(MAX_METADATA_VALUES))})
    assert encode_metadata({"a": [1] * 5_000}), "equal ones are one row of the index"
    many: list[dict[str, Any]] = [
        {"a": list(range(MAX_METADATA_VALUES + 1))},
        {"a": list(range(MAX_METADATA_VALUES)), "b": None},
        {f"k{n}": n for n in range(MAX_METADATA_VALUES + 1)},
        {"a": {f"k{n}": {} for n in range(MAX_METADATA_VALUES)}},
    ]
    for metadata in many:
        with pytest.raises(InvalidMetadataError, match=r"has 513 values that filters can look for"):
            encode_metadata(metadata)


def test_names_of_nested_metadata_are_not_multiplied_without_end() -> None:
    long = {"x" * 7_000: {f"k{n}": n for n in range(400)}}
    with pytest.raises(InvalidMetadataError, match=rf"at most {MAX_NAME_CHARS} are allowed"):
        encode_metadata(long)


def test_what_shares_a_transaction_has_a_bounded_number_of_terms(
    gallery: Gallery, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches: list[int] = []
    writing = gallery._store._database.writing

    @contextmanager
    def counting() -> Iterator[apsw.Connection]:
        with writing() as writer:
            count = "SELECT count(*) FROM terms"
            before = writer.execute(count).get
            yield writer
            batches.append(writer.execute(count).get - before)

    monkeypatch.setattr(gallery._store._database, "writing", counting)

    def write(thread: int) -> None:
        for turn in range(4):
            tags = [f"{thread} {turn} {n}" for n in range(MAX_METADATA_VALUES)]
            gallery.put(
                [new_item(f"{thread}-{turn}-{n}", metadata={"tags": tags}) for n in range(16)]
            )

    with ThreadPoolExecutor(24) as threads:
        list(threads.map(write, range(24)))

    assert sum(batches) == 24 * 4 * 16 * MAX_METADATA_VALUES
    assert max(batches) <= MAX_ITEMS * 64
    assert len(batches) < 24 * 4, "small ones still share"


# The keys of filters that only exclude


def test_a_write_costs_a_filter_that_only_excludes_what_was_written(
    gallery: Gallery, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_structures(monkeypatch)
    gallery.put([new_item(f"i{n}", seed=n, label="a" if n % 2 else "b") for n in range(150)])
    rebuilt(gallery.folder)
    assert gallery.adopt_newest_generation()
    listed: list[int] = []
    keys_above = Snapshot.keys_above

    def counting(self: Snapshot, after: int) -> NDArray[np.int64]:
        keys = keys_above(self, after)
        listed.append(len(keys))
        return keys

    monkeypatch.setattr(Snapshot, "keys_above", counting)
    wanted = parse_filter({"must_not": [{"key": "label", "match": "b"}]})
    query = unit_vectors(1, WIDTH, seed=9)

    for n in range(150, 160):
        found = gallery.search(query, k=200, filter=wanted, exact=True).hits[0]
        assert {hit.label for hit in found} == {"a"}
        assert len(found) == 75 + n - 150
        gallery.put([new_item(f"i{n}", seed=n, label="a")])

    assert listed == [150] + [1] * 9
