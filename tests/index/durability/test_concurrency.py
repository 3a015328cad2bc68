"""Threads and processes that write and search one gallery at once: none miss or invent an item."""

import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from index.gallery import Gallery
from index.items.filter import parse_filter
from index.open_gallery import open_or_create
from tests.support.fakes import new_item, unit_vectors
from tests.support.galleries.segments import SMALL, rebuilt, small_structures
from tests.support.paths import ROOT

WIDTH = 8
RUN_S = 2.0
LEAST_REBUILDS, MOST_REBUILDS, LEAST_SEARCHES = 6, 100, 10  # however long they take


def make(folder: Path) -> Gallery:
    return Gallery.create(
        folder, model_name="fake", fingerprint="a1" * 32, width=WIDTH, policy=SMALL
    )


def in_threads(*works: Callable[[], None]) -> list[Exception]:
    """Run each of ``works`` on a thread of its own and return what they raised."""
    raised: list[Exception] = []

    def run(work: Callable[[], None]) -> None:
        try:
            work()
        except Exception as error:
            raised.append(error)

    threads = [threading.Thread(target=run, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return raised


def test_threads_that_add_delete_replace_and_search_find_nothing_deleted_and_miss_nothing(
    tmp_path: Path,
) -> None:
    gallery = make(tmp_path / "g")
    gallery.put([new_item(f"base{n}", seed=n, label="base") for n in range(50)])
    end = time.monotonic() + RUN_S
    wanted = parse_filter({"must": [{"key": "label", "match": "base"}]})
    searches = 0

    def write(name: str, seed: int) -> None:
        while time.monotonic() < end:
            seed += 1
            item = new_item(f"{name}{seed}", seed=seed)
            gallery.put([item])
            query = item.vector_D[np.newaxis]
            assert gallery.search(query, k=1).hits[0][0].id == item.id, "acknowledged, not found"
            assert gallery.delete([item.id]) == [True]
            assert gallery.search(query, k=1).hits[0][0].id != item.id, "a deleted item was found"

    def replace() -> None:
        seed = 5_000_000
        while time.monotonic() < end:
            seed += 1
            gallery.put([new_item(f"base{seed % 10}", seed=seed, label="base")])

    def search() -> None:
        nonlocal searches
        queries = unit_vectors(2, WIDTH, seed=1)
        while time.monotonic() < end or searches <= LEAST_SEARCHES:
            for restriction in (None, wanted):
                for hits in gallery.search(queries, k=50, filter=restriction).hits:
                    assert len(hits) == 50, "fewer than k although k exist"
                    assert len({hit.id for hit in hits}) == 50, "one id twice"
            searches += 1

    raised = in_threads(
        lambda: write("a", 1_000_000), lambda: write("b", 2_000_000), replace, search, search
    )

    assert raised == []
    assert searches > LEAST_SEARCHES
    assert gallery.count == 50
    assert gallery.verify() == []
    gallery.close()


def keep_rebuilding(
    *galleries: Gallery, over: threading.Event, enough: Callable[[], bool] = lambda: True
) -> None:
    """Rebuild the one folder of all these for a while, a few times at least, until it is enough."""
    end, done = time.monotonic() + 2 * RUN_S, 0
    try:
        while (
            time.monotonic() < end
            or done < LEAST_REBUILDS
            or (not enough() and done < MOST_REBUILDS)
        ):
            rebuilt(galleries[0].folder)
            done += 1
            for gallery in galleries:
                gallery.adopt_newest_generation()
    finally:
        over.set()


def test_nothing_is_missed_and_nothing_deleted_is_found_while_structures_are_rebuilt_and_taken_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_structures(monkeypatch)
    gallery = make(tmp_path / "g")
    theirs = Gallery.open(tmp_path / "g", fingerprint=None, policy=SMALL)
    base = [new_item(f"base{n}", seed=n, label=f"l{n % 4}") for n in range(240)]
    gallery.put(base)
    wanted = parse_filter({"must": [{"key": "label", "match": "l1"}]})
    over = threading.Event()
    searches = Counter[str]()

    def write(name: str, seed: int, at: Gallery) -> None:
        while not over.is_set():
            seed += 1
            items = [new_item(f"{name}{seed}.{n}", seed=5 * seed + n, label="l1") for n in range(5)]
            queries = np.stack([item.vector_D for item in items])
            at.put(items)
            for restriction in (None, wanted):
                # Exact: a structure may miss an old row, but what came since is always scanned.
                found = at.search(queries, k=1, filter=restriction, exact=True).hits
                assert [hits[0].id for hits in found] == [item.id for item in items], "missed"
            gone = [item.id for item in items]
            assert at.delete(gone) == [True] * 5
            for restriction in (None, wanted):
                for hits in at.search(queries, k=20, filter=restriction).hits:
                    assert not {hit.id for hit in hits} & set(gone), "a deleted item was found"

    def replace() -> None:
        number = 0
        while not over.is_set():
            number += 1
            seed = number % 240
            theirs.put(
                [new_item(f"base{seed}", seed=seed, label=f"l{seed % 4}", metadata={"n": number})]
            )

    def search(at: Gallery) -> None:
        rng = np.random.default_rng(id(at) % 1000)
        while not over.is_set():
            queries = unit_vectors(2, WIDTH, seed=int(rng.integers(1000)))
            k = int(rng.choice([1, 10, 50, 60]))
            for restriction in (None, wanted):
                for hits in at.search(queries, k=k, filter=restriction).hits:
                    assert len(hits) == k, "fewer than k although k exist"
                    assert len({hit.id for hit in hits}) == k, "one id twice"
                    assert restriction is None or {hit.label for hit in hits} == {"l1"}
            base = at._follower.snapshot.immutable
            searches["exact" if base is None else base.segment.spec.kind] += 1

    def structured() -> int:
        return searches["graph"] + searches["quantized"]

    raised = in_threads(
        lambda: write("a", 1_000_000, gallery),
        lambda: write("b", 2_000_000, theirs),
        replace,
        lambda: search(gallery),
        lambda: search(theirs),
        lambda: keep_rebuilding(gallery, theirs, over=over, enough=lambda: structured() > 5),
    )

    assert raised == []
    assert structured() > 5
    for at in (gallery, theirs):
        assert at.verify() == []
        assert at.count == 240
        hits = at.search(np.stack([item.vector_D for item in base]), k=1).hits
        assert np.mean([one[0].id == item.id for one, item in zip(hits, base, strict=True)]) > 0.9
        at.close()


def test_an_item_that_is_replaced_while_a_filter_looks_and_a_base_is_taken_over_is_found(
    tmp_path: Path,
) -> None:
    make(tmp_path / "g").close()
    ours, theirs = (Gallery.open(tmp_path / "g", fingerprint=None, policy=SMALL) for _ in range(2))
    ours.put([new_item("a", seed=1, label="x"), new_item("b", seed=2)])
    wanted = parse_filter({"must": [{"key": "label", "match": "x"}]})
    filters = ours._searcher._filters
    evaluate = filters._evaluate

    def evaluate_late(*arguments: Any, **options: Any) -> Any:
        filters._evaluate = evaluate
        theirs.put([new_item("a", seed=3, label="x")])
        rebuilt(tmp_path / "g")
        assert ours.adopt_newest_generation()
        return evaluate(*arguments, **options)

    filters._evaluate = evaluate_late
    (hits,) = ours.search(unit_vectors(1, WIDTH, 0), k=5, filter=wanted).hits

    assert [hit.id for hit in hits] == ["a"]
    ours.close()
    theirs.close()


def test_an_item_that_is_replaced_while_a_filtered_page_is_read_is_on_the_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gallery = make(tmp_path / "g")
    gallery.put([new_item(f"i{n}", seed=n, label="x") for n in range(3)])
    wanted = parse_filter({"must": [{"key": "label", "match": "x"}]})
    read = gallery._store.items_by_key

    def read_late(keys: Any) -> Any:
        monkeypatch.undo()
        gallery.put([new_item("i1", seed=9, label="x")])
        return read(keys)

    monkeypatch.setattr(gallery._store, "items_by_key", read_late)
    page = gallery.page(limit=10, filter=wanted)

    assert [item.id for item in page.items] == ["i0", "i2", "i1"]
    gallery.close()


def test_two_galleries_on_one_folder_follow_each_other(tmp_path: Path) -> None:
    ours = make(tmp_path / "g")
    theirs = Gallery.open(tmp_path / "g", fingerprint=None, policy=SMALL)
    item = new_item("a", seed=1)

    (result,) = theirs.put([item, new_item("b", seed=2)])[:1]
    assert ours.search(item.vector_D[np.newaxis], k=1).hits[0][0].id == "a"
    assert ours.seq == theirs.seq > result.seq

    theirs.put([new_item("a", seed=3)])
    theirs.delete(["b"])
    hits = ours.search(item.vector_D[np.newaxis], k=5).hits[0]
    assert [hit.id for hit in hits] == ["a"]
    assert hits[0].score < 0.999
    assert ours.verify() == theirs.verify() == []

    ours.close()
    theirs.close()


def test_many_changes_of_another_gallery_are_followed_in_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "index.snapshot.follower.FOLLOW_ROWS", 3
    )  # parts end between the lines of a change
    ours = make(tmp_path / "g")
    theirs = Gallery.open(tmp_path / "g", fingerprint=None, policy=SMALL)
    for seed in range(3):
        theirs.put([new_item(f"i{n}", seed=seed * 100 + n) for n in range(40)])
    theirs.delete([f"i{n}" for n in range(0, 40, 3)])

    assert ours.catch_up() == theirs.seq
    assert ours.count == theirs.count == 26
    assert ours.verify() == []
    ours.close()
    theirs.close()


@pytest.mark.parametrize("empty_folder", [False, True])
def test_many_may_make_the_same_gallery_at_once_and_all_get_the_one(
    tmp_path: Path, empty_folder: bool
) -> None:
    folder = tmp_path / "place" / "g"
    if empty_folder:
        folder.mkdir(parents=True)
    start = threading.Barrier(6)

    def make_and_put(name: str) -> None:
        start.wait()
        with open_or_create(
            folder, model_name="fake", fingerprint="a1" * 32, width=WIDTH
        ) as gallery:
            gallery.put([new_item(name)])

    raised = in_threads(*[partial(make_and_put, f"i{n}") for n in range(6)])

    assert raised == []
    with Gallery.open(folder, fingerprint=None, policy=SMALL) as gallery:
        assert gallery.count == 6
        assert gallery.verify() == []
    assert [path.name for path in folder.parent.iterdir()] == ["g"]
    assert [path.name for path in folder.iterdir()] == ["gallery.sqlite"]


ANOTHER_PROCESS = """
import sys
from pathlib import Path
from index.open_gallery import open_or_create
from index.gallery import Gallery
from tests.support.fakes import new_item
with Gallery.open(Path(sys.argv[1]), fingerprint=None) as gallery:
    for n in range(15):
        gallery.put([new_item(f"theirs{n}", seed=1000 + n)])
    gallery.delete(["theirs0"])
"""


def test_a_second_process_may_write_while_this_one_writes_and_searches(tmp_path: Path) -> None:
    with make(tmp_path / "g") as gallery:
        other = subprocess.Popen(
            [sys.executable, "-c", ANOTHER_PROCESS, str(tmp_path / "g")], cwd=ROOT
        )
        written = 0
        while other.poll() is None or written < 15:
            gallery.put([new_item(f"ours{written}", seed=100_000 + written)])
            written += 1
        assert other.returncode == 0

        assert gallery.catch_up() == written + 16
        assert gallery.count == written + 14
        query = new_item("q", seed=1014).vector_D[np.newaxis]
        assert gallery.search(query, k=1).hits[0][0].id == "theirs14"
        assert gallery.verify() == []
