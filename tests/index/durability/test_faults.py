"""One I/O call after the other is made to fail, from opening a gallery to closing it."""

import shutil
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import apsw
import numpy as np
import pytest

from index.errors import DiskFullError, ReadOnlyError, StorageError, VectorIndexError
from index.items.item import NewItem, PutResult
from index.maintenance.verify import store_problems
from index.store.schema import Binding
from index.store.store import Store
from tests.support.fakes import new_item
from tests.support.faults.failing_vfs import CODES, Faults, FaultyFile, faulty_files

WIDTH = 8
GROUP = 4  # callers who share transactions
CREATED = "2026-01-01T00:00:00.000+00:00"


def item(item_id: str, seed: int) -> NewItem:
    return new_item(item_id, seed=seed, label="l", metadata={"seed": seed, "tags": ["a", "b"]})


def put(store: Store, *items: NewItem) -> list[PutResult]:
    return store.put(items, upsert=True, created=CREATED)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A gallery of the items i0 to i4, with seeds 0 to 4."""
    store = Store.create(
        tmp_path / "g", Binding(model_name="m", fingerprint="a1" * 32, width=WIDTH)
    )
    put(store, *[item(f"i{n}", n) for n in range(5)])
    store.close()
    return tmp_path / "g"


class Oracle:
    """What may be stored, per id: the seeds it may have, ``None`` for not at all."""

    def __init__(self) -> None:
        self.allowed: dict[str, set[int | None]] = {f"i{n}": {n} for n in range(5)}
        self.lock = threading.Lock()
        self.refusals: list[VectorIndexError] = []

    def expect(self, store: Store, wanted: dict[str, int | None], act: Callable[[], Any]) -> None:
        """Run ``act``, which is to bring about ``wanted``, and remember how it ended."""
        was_read_only = store.read_only_reason is not None
        try:
            act()
        except StorageError as error:
            with self.lock:
                self.refusals.append(error)
                failed_while_writing = type(error) is StorageError and "perhaps" not in str(error)
                if not was_read_only and failed_while_writing and store.read_only_reason:
                    # The disk failed on the way: all or nothing is there, whole.
                    for item_id, seed in wanted.items():
                        self.allowed.setdefault(item_id, {None}).add(seed)
            return
        with self.lock:
            self.allowed |= {item_id: {seed} for item_id, seed in wanted.items()}

    def faults(self, folder: Path) -> list[str]:
        """Return what is wrong with the gallery that the healthy file layer finds."""
        store = Store.open(folder)
        problems = store_problems(store)
        there = store.items(list(self.allowed))
        for item_id, allowed in self.allowed.items():
            found = there.get(item_id)
            seed = None if found is None else found.metadata["seed"]
            if seed not in allowed:
                problems.append(f"{item_id} is {seed}, not one of {allowed}")
            elif seed is not None and (store.vector(item_id)[1] != item("", seed).vector_D).any():
                problems.append(f"{item_id} has another vector")
        stored = store.count()
        if stored != len(there):
            problems.append(f"{stored - len(there)} items that nobody put")
        store.close()
        return problems


def together(store: Store, oracle: Oracle) -> None:
    """Put items from several threads that share transactions."""

    def work(n: int) -> None:
        oracle.expect(store, {f"g{n}": n}, lambda: put(store, item(f"g{n}", n)))

    threads = [threading.Thread(target=work, args=(n,)) for n in range(GROUP)]
    with store._database._write_lock:  # the first waits here for the disk, the others for it
        for arrived, thread in enumerate(threads):
            thread.start()
            while len(store._writer._queue) < arrived:
                time.sleep(0.0001)
    for thread in threads:
        thread.join()


def checkpoint(store: Store) -> None:
    try:
        store._database._writer.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
    except apsw.Error as error:
        raise StorageError(f"perhaps: {error}") from error


def use(folder: Path, oracle: Oracle, aside: Path) -> None:
    """Open, change and close a gallery; ``aside`` gets the files as they are before the close."""
    try:
        store = Store.open(folder)
    except VectorIndexError as error:
        oracle.refusals.append(error)
        return
    oracle.expect(store, {"i0": 100, "new": 7}, lambda: put(store, item("i0", 100), item("new", 7)))
    oracle.expect(store, {"i1": None}, lambda: store.delete(["i1"]))
    together(store, oracle)
    oracle.expect(store, {}, lambda: checkpoint(store))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "index.store.sqlite.write_ahead_log.CHECKPOINT_PAGES", 1
        )  # every commit empties the log
        oracle.expect(store, {"late": 8}, lambda: put(store, item("late", 8)))
        oracle.expect(store, {"i2": None}, lambda: store.delete(["i2"]))
        oracle.expect(store, {}, lambda: store.cut_log(3))
    shutil.copytree(folder, aside, ignore=shutil.ignore_patterns("*-shm"))  # as kill -9 leaves it
    close(store, oracle)


def open_only(folder: Path, oracle: Oracle, aside: Path) -> None:
    """Open a gallery, as ``use`` does."""
    try:
        store = Store.open(folder)
    except VectorIndexError as error:
        oracle.refusals.append(error)
        return
    shutil.copytree(folder, aside, ignore=shutil.ignore_patterns("*-shm"))
    close(store, oracle)


def close(store: Store, oracle: Oracle) -> None:
    try:
        store.close()
    except StorageError as error:
        oracle.refusals.append(error)


def walk(
    folder: Path,
    faults: Faults,
    kind: str,
    use: Callable[[Path, Oracle, Path], None] = use,
) -> Iterator[tuple[str, Oracle, list[str]]]:
    """Yield, for every I/O call that can fail in this way, its name and what was found after."""
    work, aside = folder.parent / "work", folder.parent / "aside"
    at = 0
    while True:
        at += 1
        shutil.copytree(folder, work)
        oracle = Oracle()
        faults.arm(kind, at=at)
        use(work, oracle, aside)
        calls = list(faults.calls)
        faults.arm(kind, at=0)
        if at <= len(calls) and calls[at - 1] in CODES[kind]:
            found = oracle.faults(work)
            if aside.exists():
                found += [f"killed: {fault}" for fault in oracle.faults(aside)]
            yield f"{kind} at call {at}, {calls[at - 1]}", oracle, found
        shutil.rmtree(work)
        shutil.rmtree(aside, ignore_errors=True)
        if at > len(calls):
            return


@pytest.mark.parametrize("kind", CODES)
def test_whichever_io_call_fails_what_was_acknowledged_is_kept_and_what_was_refused_is_not(
    folder: Path, kind: str
) -> None:
    tried = refused = 0
    with faulty_files() as faults:
        for where, oracle, found in walk(folder, faults, kind):
            assert found == [], where
            tried += 1
            refused += bool(oracle.refusals)

    # Some faults are survived without a word: an empty log cannot be shortened, say.
    assert tried >= {"EIO": 200, "ENOSPC": 80, "EMFILE": 5}[kind]
    assert refused >= tried / 4


@pytest.mark.parametrize("kind", CODES)
def test_whichever_io_call_fails_a_migration_is_made_whole_or_not_at_all(
    folder: Path, kind: str
) -> None:
    store = Store.open(folder)
    with store.writing() as writer:  # back to format version 1
        writer.execute("DROP TABLE terms")
        writer.execute("DELETE FROM meta WHERE name IN ('database_id', 'log_start')")
        writer.pragma("user_version", 1)
    store.close()
    refused = 0
    with faulty_files() as faults:
        for where, oracle, found in walk(folder, faults, kind, use=open_only):
            assert found == [], where
            refused += bool(oracle.refusals)

    assert refused >= {"EIO": 50, "ENOSPC": 10, "EMFILE": 10}[kind]


@pytest.mark.parametrize(
    "lie",
    ["acknowledges what failed", "stores what it refuses", "half a change"],
)
def test_the_walk_would_see_a_loss(folder: Path, monkeypatch: pytest.MonkeyPatch, lie: str) -> None:
    honest = Store.put

    def dishonest(
        store: Store, items: Sequence[NewItem], *, upsert: bool, created: str
    ) -> list[PutResult]:
        try:
            return honest(store, items, upsert=upsert, created=created)
        except DiskFullError:
            if lie == "acknowledges what failed":
                return []
            honest(store, items if lie == "stores what it refuses" else items[:1], **options)
            raise

    options = {"upsert": True, "created": CREATED}
    monkeypatch.setattr(Store, "put", dishonest)
    with faulty_files() as faults:
        assert any(found for _, _, found in walk(folder, faults, "ENOSPC"))


def fail_next(faults: Faults, kind: str, call: str, act: Callable[[], Any]) -> None:
    """Run ``act`` with its first ``call`` failing, after having seen where that comes."""
    before = Faults.fails

    def fails(self: Faults, name: str) -> bool:
        if name == call and call not in self.calls:
            self.at = len(self.calls) + 1
        return before(self, name)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Faults, "fails", fails)
        faults.arm(kind, at=0)
        try:
            act()
        finally:
            patch.undo()
            faults.arm(kind, at=0)


@pytest.mark.parametrize("call", ["xWrite", "xSync"])
def test_after_an_io_error_nothing_is_written_and_reading_goes_on(folder: Path, call: str) -> None:
    with faulty_files() as faults:
        store = Store.open(folder)
        assert store.read_only_reason is None

        with pytest.raises(
            StorageError, match=r"met an I/O error; whether .* after a restart"
        ) as e:
            fail_next(faults, "EIO", call, lambda: put(store, item("new", 7)))

        assert not isinstance(e.value, ReadOnlyError)
        reason = store.read_only_reason
        assert reason is not None
        faults.arm("EIO", at=0)
        for write in (
            lambda: put(store, item("new", 7)),
            lambda: store.delete(["i1"]),
            lambda: store.cut_log(2),
            lambda: store.set_setting("name", "value"),
            lambda: store.writing().__enter__(),
        ):
            with pytest.raises(ReadOnlyError, match=r"read-only since 20.* check the disk, then"):
                write()
        assert "xWrite" not in faults.calls
        assert store.read_only_reason == reason
        assert sorted(store.items(["i1", "new"])) == ["i1"]
        np.testing.assert_array_equal(store.load()[1], [1, 2, 3, 4, 5])
        faults.arm("EIO", at=0)
        store.close()
        assert not {"xWrite", "xSync", "xDelete"} & set(faults.calls), "the disk is left alone"

    again = Store.open(folder)
    assert again.read_only_reason is None
    assert set(again.items(["i1", "new"])) >= {"i1"}
    assert put(again, item("new", 7))[0].outcome in ("created", "unchanged")
    assert store_problems(again) == []
    again.close()


def test_after_a_full_disk_writing_may_be_tried_again(folder: Path) -> None:
    with faulty_files() as faults:
        store = Store.open(folder)

        with pytest.raises(DiskFullError, match="no room left"):
            fail_next(faults, "ENOSPC", "xWrite", lambda: put(store, item("new", 7)))

        assert store.read_only_reason is None
        assert put(store, item("new", 7))[0].outcome == "created"
        store.close()


@pytest.mark.parametrize("kind", ["EIO", "ENOSPC"])
def test_a_write_whose_commit_is_on_the_disk_succeeds_though_emptying_the_log_fails(
    folder: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with faulty_files() as faults:
        store = Store.open(folder)
        put(store, item("new", 7))
        monkeypatch.setattr("index.store.sqlite.write_ahead_log.CHECKPOINT_PAGES", 1)
        faults.arm(kind, at=0)
        honest = FaultyFile.xWrite

        def fails(file: FaultyFile, data: bytes, offset: int) -> None:
            if file.is_database:
                raise faults.error("xWrite")
            honest(file, data, offset)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(FaultyFile, "xWrite", fails)
            assert put(store, item("late", 9))[0].outcome == "created"
            assert faults.errno, "nothing failed"
        faults.arm(kind, at=0)

        assert sorted(store.items(["new", "late"])) == ["late", "new"]
        if kind == "EIO":
            with pytest.raises(ReadOnlyError, match="read-only since"):
                put(store, item("later", 10))
        else:
            assert put(store, item("later", 10))[0].outcome == "created"
        store.close()

    again = Store.open(folder)
    assert sorted(again.items(["new", "late"])) == ["late", "new"]
    assert store_problems(again) == []
    again.close()


def test_a_fault_fails_all_who_share_the_transaction_and_each_has_an_error_of_its_own(
    folder: Path,
) -> None:
    with faulty_files() as faults:
        store = Store.open(folder)
        oracle = Oracle()
        # The first caller goes alone, and the second transaction is the others'.
        faults.arm("ENOSPC", at=0)
        together(store, oracle)
        assert oracle.refusals == []
        commits = [n for n, call in enumerate(faults.calls, 1) if call == "xSync"]
        store.delete([f"g{n}" for n in range(GROUP)])

        faults.arm("ENOSPC", at=0)
        fresh = [new_item(f"h{n}", seed=n) for n in range(GROUP)]
        errors: list[Exception] = []
        before = Faults.fails

        def fails(self: Faults, name: str) -> bool:
            if name == "xWrite" and self.calls.count("xSync") == 1:
                self.at = len(self.calls) + 1
            return before(self, name)

        def work(n: int) -> None:
            try:
                put(store, fresh[n])
            except DiskFullError as error:
                errors.append(error)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Faults, "fails", fails)
            threads = [threading.Thread(target=work, args=(n,)) for n in range(GROUP)]
            with store._database._write_lock:
                for arrived, thread in enumerate(threads):
                    thread.start()
                    while len(store._writer._queue) < arrived:
                        time.sleep(0.0001)
            for thread in threads:
                thread.join()

        assert len(commits) >= 2
        assert len(errors) == len({id(error) for error in errors}) == GROUP - 1
        assert len(store.items([f"h{n}" for n in range(GROUP)])) == 1
        assert store_problems(store) == []
        store.close()
