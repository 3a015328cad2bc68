"""The database: group commits, migrations, the log and its cuts, settings, and what is stored."""

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import apsw
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from index.errors import GalleryFolderError, LogCutError, StorageError
from index.gallery import Gallery
from index.items.filter import IsNull, Key, Match, Range
from index.items.item import NewItem, PutResult
from index.maintenance.verify import store_problems
from index.store import group_commit as writer_module
from index.store.condition_queries import same_content, scan_keys
from index.store.schema import Binding
from index.store.store import Store, read_binding
from index.store.transaction import WriteTransaction
from tests.support.fakes import new_item
from tests.support.paths import ROOT

WIDTH = 8
CREATED = "2026-01-01T00:00:00.000+00:00"
BINDING = Binding(model_name="fake", fingerprint="a1" * 32, width=WIDTH)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store.create(tmp_path / "g", BINDING)
    yield store
    store.close()


def put(store: Store, *items: NewItem, upsert: bool = True) -> list[PutResult]:
    return store.put(items, upsert=upsert, created=CREATED)


def in_threads(count: int, work: Callable[[int], None]) -> list[BaseException]:
    """Run ``work`` on that many threads at once and return what they raised."""
    raised: list[BaseException] = []
    start = threading.Barrier(count)

    def run(number: int) -> None:
        start.wait()
        try:
            work(number)
        except BaseException as error:
            raised.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return raised


# Group commit


def queued(store: Store, works: list[Callable[[], Any]]) -> list[threading.Thread]:
    """Start threads so that the first waits for the disk and the others, in order, for the first.

    The caller holds the database's lock.
    """
    threads = [threading.Thread(target=work) for work in works]
    for arrived, thread in enumerate(threads):
        thread.start()
        # Also the first is in the queue for a moment, before it leads.
        while store._writer._leader is None or len(store._writer._queue) != arrived:
            time.sleep(0.0001)
    return threads


def run_queued(store: Store, works: list[Callable[[], Any]]) -> int:
    """Run ``works`` as ``queued`` has them, and return in how many transactions."""
    commits = 0
    honest = store._database.writing

    def counting() -> Any:
        nonlocal commits
        commits += 1
        return honest()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store._database, "writing", counting)
        with store._database._write_lock:
            threads = queued(store, works)
        for thread in threads:
            thread.join()
    return commits


def test_callers_that_wait_share_one_transaction_and_each_gets_its_own_result(store: Store) -> None:
    results: dict[int, list[PutResult]] = {}

    def work(n: int) -> Callable[[], None]:
        return lambda: results.update({n: put(store, new_item(f"i{n}", seed=n))})

    commits = run_queued(store, [work(n) for n in range(20)])

    assert commits == 2
    assert {n: result[0].id for n, result in results.items()} == {n: f"i{n}" for n in range(20)}
    assert [results[n][0].seq for n in range(20)] == list(range(1, 21)), "in the order they came"
    assert store_problems(store) == []


def test_changes_of_one_id_in_one_transaction_meet_in_the_order_they_came(store: Store) -> None:
    said: list[Any] = []
    works: list[Callable[[], Any]] = [
        lambda: said.append(put(store, new_item("other"))[0].outcome),
        lambda: said.append(put(store, new_item("a", seed=1))[0].outcome),
        lambda: said.append(put(store, new_item("a", seed=2), upsert=False)[0].outcome),
        lambda: said.append(put(store, new_item("a", seed=2))[0].outcome),
        lambda: said.append(store.delete(["a", "a"])),
        lambda: said.append(put(store, new_item("a", seed=3), upsert=False)[0].outcome),
    ]

    assert run_queued(store, works) == 2

    assert sorted(said, key=str) == sorted(
        ["created", "created", "conflict", "replaced", [True, False], "created"], key=str
    )
    np.testing.assert_array_equal(store.vector("a")[1], new_item("a", seed=3).vector_D)
    assert store_problems(store) == []


@pytest.mark.parametrize(
    ("requests", "items", "commits"), [(7, 1, 1 + 2), (5, 4, 1 + 4), (3, 30, 1 + 2)]
)
def test_a_transaction_is_bounded_but_takes_at_least_one_request(
    store: Store, monkeypatch: pytest.MonkeyPatch, requests: int, items: int, commits: int
) -> None:
    monkeypatch.setattr(writer_module, "MAX_REQUESTS", 4)
    monkeypatch.setattr(writer_module, "MAX_ITEMS", 7)

    def work(n: int) -> Callable[[], Any]:
        return lambda: put(store, *[new_item(f"i{n}-{m}", seed=m) for m in range(items)])

    assert run_queued(store, [work(n) for n in range(requests)]) == commits
    assert store.count() == requests * items


def test_a_fault_of_one_change_stores_nothing_of_its_transaction_and_everyone_hears(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = WriteTransaction.delete

    def failing(transaction: WriteTransaction, item_id: str) -> bool:
        if item_id == "bad":
            raise ZeroDivisionError
        return honest(transaction, item_id)

    monkeypatch.setattr(WriteTransaction, "delete", failing)
    raised: dict[str, BaseException] = {}

    def attempt(name: str, act: Callable[[], Any]) -> Callable[[], None]:
        def run() -> None:
            try:
                act()
            except BaseException as error:
                raised[name] = error

        return run

    run_queued(
        store,
        [
            attempt("first", lambda: put(store, new_item("first"))),
            attempt("a", lambda: put(store, new_item("a"))),
            attempt("bad", lambda: store.delete(["bad"])),
            attempt("b", lambda: put(store, new_item("b"))),
        ],
    )

    assert sorted(store.items(["first", "a", "b"])) == ["first"]
    assert sorted(raised) == ["a", "b", "bad"]
    assert isinstance(raised["b"], StorageError)
    assert raised["b"] is not raised["bad"]
    assert put(store, new_item("a"))[0].outcome == "created", "the next transaction goes on"


def test_a_caller_that_is_interrupted_while_it_waits_leaves_nobody_waiting(store: Store) -> None:
    """As Ctrl-C does: a signal's handler raises in the main thread."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGUSR1, interrupt)
    main = threading.main_thread().ident
    assert main is not None
    done: list[str] = []

    def work(name: str) -> Callable[[], Any]:
        return lambda: done.append(put(store, new_item(name))[0].id)

    def meanwhile() -> None:
        while not store._writer._queue:  # the main thread waits
            time.sleep(0.001)
        threads.append(threading.Thread(target=work("c")))
        threads[-1].start()
        while len(store._writer._queue) < 2:
            time.sleep(0.001)
        signal.pthread_kill(main, signal.SIGUSR1)
        while len(store._writer._queue) > 1:
            time.sleep(0.001)
        store._database._write_lock.release()

    try:
        store._database._write_lock.acquire()
        threads = queued(store, [work("a")])
        helper = threading.Thread(target=meanwhile)
        helper.start()
        with pytest.raises(KeyboardInterrupt):
            put(store, new_item("b"))
        for thread in (helper, *threads):
            thread.join(10)
            assert not thread.is_alive()
    finally:
        signal.signal(signal.SIGUSR1, before)

    assert sorted(done) == ["a", "c"]
    assert sorted(store.items(["a", "b", "c"])) == ["a", "c"]


def test_many_threads_put_and_delete_and_everything_acknowledged_is_true(store: Store) -> None:
    def work(number: int) -> None:
        for n in range(30):
            (result,) = put(store, new_item(f"{number}-{n}", seed=n, metadata={"n": n}))
            assert result.outcome == "created"
            if n % 3 == 0:
                assert store.delete([f"{number}-{n}"]) == [True]

    assert in_threads(12, work) == []

    assert store.count() == 12 * 20
    assert store.last_seq() == 12 * 40
    assert store_problems(store) == []


def test_whoever_has_the_exclusive_transaction_keeps_all_others_out(store: Store) -> None:
    with store.writing() as writer:
        thread = threading.Thread(target=lambda: put(store, new_item("a")))
        thread.start()
        thread.join(0.05)
        assert thread.is_alive()
        assert writer.execute("SELECT count(*) FROM items").get == 0
    thread.join()

    assert store.count() == 1


# Format version 2, and the way there

VERSION_1 = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE items (
    key INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, label TEXT,
    metadata TEXT NOT NULL, content_sha256 TEXT NOT NULL, created TEXT NOT NULL,
    seq INTEGER NOT NULL
);
CREATE INDEX items_by_label ON items (label);
CREATE TABLE vectors (
    key INTEGER PRIMARY KEY REFERENCES items ON DELETE CASCADE,
    data BLOB NOT NULL, crc32 INTEGER NOT NULL
);
CREATE TABLE thumbnails (
    key INTEGER PRIMARY KEY REFERENCES items ON DELETE CASCADE,
    media_type TEXT NOT NULL, data BLOB NOT NULL, crc32 INTEGER NOT NULL
);
CREATE TABLE operations (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    kind TEXT NOT NULL CHECK (kind IN ('put', 'delete')), key INTEGER NOT NULL
);
"""
METADATA = {"brand": "b1", "sizes": [1, 2.5, 2], "new": True, "deep": {"a": 1}}


@pytest.fixture
def version_1(tmp_path: Path) -> Path:
    """A gallery as version 0.2 wrote it: items i0 to i4, of which i2 was deleted again."""
    with Gallery.create(
        tmp_path / "g", model_name="fake", fingerprint="a1" * 32, width=WIDTH
    ) as gallery:
        gallery.put([new_item(f"i{n}", seed=n, metadata=METADATA) for n in range(5)])
        gallery.delete(["i2"])
    old = tmp_path / "old"
    old.mkdir()
    connection = apsw.Connection(str(old / "gallery.sqlite"))
    connection.pragma("journal_mode", "wal")
    connection.pragma("application_id", 0x4C4B474C)
    connection.pragma("user_version", 1)
    connection.execute(VERSION_1)
    connection.execute("ATTACH ? AS new", (str(tmp_path / "g" / "gallery.sqlite"),))
    for table in ("items", "vectors", "thumbnails", "operations"):
        connection.execute(f"INSERT INTO {table} SELECT * FROM new.{table}")
    connection.execute(
        "INSERT INTO meta SELECT * FROM new.meta WHERE name NOT IN ('database_id', 'log_start')"
    )
    connection.close()
    return old


def format_version(folder: Path) -> Any:
    connection = apsw.Connection(str(folder / "gallery.sqlite"))
    try:
        return connection.pragma("user_version")
    finally:
        connection.close()


def test_a_gallery_of_version_1_is_migrated_when_it_is_opened(version_1: Path) -> None:
    assert read_binding(version_1).database_id == ""
    assert format_version(version_1) == 1

    store = Store.open(version_1)

    assert len(store.binding.database_id) == 32
    assert store.binding.count == 4
    assert (store.log_start(), store.last_seq()) == (0, 6)
    assert store.condition_keys(Match(Key("sizes", column=False), (2,)), after=0).tolist() == [
        1,
        2,
        4,
        5,
    ]
    assert store_problems(store) == []
    put(store, new_item("later", metadata=METADATA))
    assert store.load()[1].tolist() == [1, 2, 4, 5, 6]
    store.close()
    assert format_version(version_1) == 3
    again = Store.open(version_1)
    assert again.binding.database_id == store.binding.database_id
    assert store_problems(again) == []
    again.close()


def test_the_terms_of_a_gallery_of_version_2_are_completed_when_it_is_opened(
    store: Store,
) -> None:
    put(store, new_item("i0", metadata={"a": {"b": 1}, "n": None, "k": 2}), new_item("i1"))
    terms = "SELECT name, kind, value, key FROM terms ORDER BY name"
    with store.reading() as reader:
        complete = reader.execute(terms).fetchall()
    nested, null = (Match(Key("a.b", column=False), (1,)), IsNull(Key("n", column=False), True))
    with store.writing() as writer:  # as the version before left it
        writer.execute("DELETE FROM terms WHERE name <> 'k'")
        writer.pragma("user_version", 2)
    for condition in (nested, null):
        assert store.condition_keys(condition, after=0).tolist() == [1], "read, not looked up"

    again = Store.open(store.folder)

    assert format_version(store.folder) == 3
    with again.reading() as reader:
        assert reader.execute(terms).fetchall() == complete
    for condition in (nested, null):
        assert again.condition_keys(condition, after=0).tolist() == [1]
    assert store_problems(again) == []
    again.close()


def test_many_may_open_a_gallery_of_version_1_at_once(version_1: Path) -> None:
    identities: set[str] = set()

    def work(_: int) -> None:
        store = Store.open(version_1)
        identities.add(store.binding.database_id)
        store.close()

    assert in_threads(6, work) == []
    assert len(identities) == 1


KILLED = """
import os, signal, sys
from pathlib import Path
from index.store import migration
from index.store.store import Store
def die(writer):
    migration.fill_terms(writer)
    assert writer.execute("SELECT count(*) FROM terms").get > 4 * 5
    writer.cache_flush()
    os.kill(os.getpid(), signal.SIGKILL)
def half(writer):
    writer.execute(migration.TERMS_TABLE)
    die(writer)
migration._from_2_to_3 = half
Store.open(Path(sys.argv[1]))
"""


def test_a_killed_migration_leaves_version_1_whole(version_1: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", KILLED, str(version_1)], cwd=ROOT, check=False, capture_output=True
    )

    assert ended.returncode == -signal.SIGKILL, ended.stderr
    assert (version_1 / "gallery.sqlite-wal").stat().st_size > 0, "it had begun to write"
    assert format_version(version_1) == 1
    connection = apsw.Connection(str(version_1 / "gallery.sqlite"))
    tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_schema")}
    connection.close()
    assert "terms" not in tables
    store = Store.open(version_1)
    assert store_problems(store) == []
    store.close()


def test_a_new_gallery_has_an_identity_of_its_own(tmp_path: Path) -> None:
    stores = [Store.create(tmp_path / name, BINDING) for name in "ab"]

    assert stores[0].binding.database_id != stores[1].binding.database_id
    for store, name in zip(stores, "ab", strict=True):
        store.close()
        assert read_binding(tmp_path / name).database_id == store.binding.database_id


# The log


def seqs(store: Store, *, after: int) -> list[int]:
    return [operation.seq for operation in store.operations(after=after, limit=100)]


def test_a_cut_log_goes_on_from_where_it_was_cut(store: Store) -> None:
    put(store, *[new_item(f"i{n}", seed=n) for n in range(6)])
    store.delete(["i1"])

    assert store.cut_log(4) == 4
    assert store.cut_log(4) == 0
    assert (store.log_start(), store.last_seq()) == (4, 7)
    assert seqs(store, after=4) == [5, 6, 7]
    assert seqs(store, after=5) == [6, 7]
    for after in (0, 3):
        with pytest.raises(LogCutError, match="the log begins after operation 4; asked for those"):
            store.operations(after=after, limit=1)
    assert store_problems(store) == []


def test_a_log_is_never_cut_beyond_its_end_and_never_goes_back(store: Store) -> None:
    assert store.cut_log(10) == 0
    put(store, *[new_item(f"i{n}", seed=n) for n in range(3)])

    assert store.cut_log(1000) == 3
    assert store.cut_log(1) == 0
    assert (store.log_start(), store.last_seq(), seqs(store, after=3)) == (3, 3, [])
    put(store, new_item("i1", seed=9))
    store.delete(["i0"])
    assert seqs(store, after=3) == [4, 5, 6]
    assert store_problems(store) == []
    folder = store.folder
    store.close()
    again = Store.open(folder)
    assert (again.log_start(), again.last_seq()) == (3, 6)
    again.close()


def test_a_long_log_is_cut_in_parts_between_which_others_write(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("index.store.oplog.CUT_ROWS", 7)
    put(store, *[new_item(f"i{n}", seed=n) for n in range(100)])
    slow = store._writer.run
    parts = 0

    def counting(change: Any, *, items: int) -> Any:
        nonlocal parts
        parts += 1
        return slow(change, items=items)

    monkeypatch.setattr(store._writer, "run", counting)

    assert store.cut_log(90) == 90
    assert parts == 13
    assert store_problems(store) == []


@settings(deadline=None, max_examples=25)
@given(
    acts=st.lists(
        st.tuples(st.sampled_from(["put", "delete", "cut"]), st.integers(0, 9)), max_size=20
    )
)
def test_verify_understands_any_log(tmp_path_factory: pytest.TempPathFactory, acts: Any) -> None:
    store = Store.create(tmp_path_factory.mktemp("log") / "g", BINDING)
    for act, n in acts:
        if act == "put":
            put(store, *[new_item(f"i{n % 4}", seed=n, metadata={"n": n})])
        elif act == "delete":
            store.delete([f"i{n % 4}"])
        else:
            store.cut_log(n)
        assert store.log_start() <= store.last_seq()

    assert store_problems(store) == []
    store.close()


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        ("DELETE FROM operations WHERE seq = 5", "does not hold just the operations 4 to 6"),
        ("INSERT INTO operations VALUES (2, 'put', 2)", "does not hold just the operations 4 to 6"),
        ("INSERT INTO operations VALUES (9, 'delete', 1)", "'i0': stored, but logged as deleted"),
        ("UPDATE items SET seq = 5 WHERE key = 1", "'i0': stored, but logged nowhere"),
        ("DELETE FROM terms WHERE key = 2", "'i1': filters do not find it by 'n'"),
        ("UPDATE terms SET value = 'x' WHERE key = 2", "key 2: filters find it by 'n', which"),
        ("INSERT INTO terms VALUES ('n', 1, 5, 77)", "key 77: filters find it by 'n', which"),
    ],
)
def test_verify_names_damage_to_a_cut_log_and_to_the_terms(
    store: Store, damage: str, sentence: str
) -> None:
    put(store, *[new_item(f"i{n}", seed=n, metadata={"n": n}) for n in range(6)])
    store.cut_log(3)
    assert store_problems(store) == []
    with store.writing() as writer:
        writer.execute(damage)

    problems = store_problems(store)

    assert any(sentence in problem for problem in problems), problems


@pytest.mark.parametrize("value", ["x", ""])
def test_a_log_whose_beginning_is_unknown_is_refused(store: Store, value: str) -> None:
    with store.writing() as writer:
        writer.execute("UPDATE meta SET value = ? WHERE name = 'log_start'", (value,))

    with pytest.raises(GalleryFolderError, match="does not say where its log begins"):
        store.operations(after=0, limit=1)


# What else it remembers and tells


def test_a_setting_is_durable_and_others_notice_it(store: Store) -> None:
    other = Store.open(store.folder)
    version = other.data_version()
    assert store.setting("structure") is None

    store.set_setting("structure", "é")
    store.set_setting("structure", "exact")

    assert other.data_version() != version
    assert other.setting("structure") == store.setting("structure") == "exact"
    assert store_problems(store) == []
    other.close()


@pytest.mark.parametrize("name", ["", "fingerprint", "log_start", "database_id", "width"])
def test_a_setting_does_not_overwrite_what_the_gallery_is(store: Store, name: str) -> None:
    with pytest.raises(ValueError, match="is not a name for a setting"):
        store.set_setting(name, "1")
    with pytest.raises(ValueError, match="is not a name for a setting"):
        store.setting(name)


def test_keys_vectors_and_counts_are_those_of_what_is_stored(store: Store) -> None:
    assert (store.count(), store.last_seq(), store.load()[1].tolist()) == (0, 0, [])
    assert [array.shape for array in store.load()[1:]] == [(0,), (0, WIDTH)]

    put(store, *[new_item(f"i{n}", seed=n, label=f"l{9 - n}") for n in range(9)])
    store.delete(["i3"])
    put(store, new_item("i0", seed=50))

    seq, keys_N, vectors_ND = store.load()
    assert seq == store.last_seq() == 12
    assert store.count() == 8
    assert keys_N.tolist() == store.load()[1].tolist() == [2, 3, 5, 6, 7, 8, 9, 10]
    assert vectors_ND.dtype == np.float32
    wanted = [new_item("", seed=seed).vector_D for seed in (1, 2, 4, 5, 6, 7, 8, 50)]
    np.testing.assert_array_equal(vectors_ND, wanted)


def test_ids_of_the_same_content_are_found_oldest_first(store: Store) -> None:
    with store.reading() as reader:
        assert same_content(reader) == []
    seeds = {"z": 1, "y": 2, "x": 3, "b": 2, "a": 1, "c": 2}
    put(store, *[new_item(item_id, seed=seed) for item_id, seed in seeds.items()])
    put(store, new_item("y", seed=2, label="replaced, so newer"))

    with store.reading() as reader:
        assert same_content(reader) == [["z", "a"], ["b", "c", "y"]]


def test_few_new_items_are_read_and_many_are_looked_up(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    scans: list[int] = []

    def counting(reader: apsw.Connection, condition: Any, *, after: int) -> Any:
        scans.append(after)
        return scan_keys(reader, condition, after=after)

    monkeypatch.setattr("index.store.condition_queries.scan_keys", counting)
    monkeypatch.setattr("index.store.condition_queries.SCAN_COST", 5)
    put(store, *[new_item(f"i{n}", seed=n, metadata={"n": n}) for n in range(100)])
    n = Key("n", column=False)
    whole, narrow = Range(n, (("gte", 0),)), Range(n, (("gte", 98),))

    assert len(store.condition_keys(whole, after=0)) == 100
    assert store.condition_keys(narrow, after=90).tolist() == [99, 100]
    assert scans == []
    assert store.condition_keys(whole, after=97).tolist() == [98, 99, 100]
    assert scans == [97]
    assert store.condition_keys(whole, after=100).tolist() == []
