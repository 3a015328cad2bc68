"""Searches while a gallery changes under their hands, in an order that the test decides."""

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from index.errors import GalleryFolderError, StorageError
from index.gallery import Gallery
from index.items.filter import parse_filter
from index.items.item import Item
from index.query.searcher import ATTEMPTS, READ_ONLY_ATTEMPTS
from index.snapshot.segments.generations import Generations
from index.store.store import Store
from tests.support.fakes import new_item, unit_vectors
from tests.support.galleries.segments import SMALL, rebuilt, small_structures

KEPT = parse_filter({"must": [{"key": "label", "match": "kept"}]})
QUERY = unit_vectors(1, 8, seed=5)


@pytest.fixture
def gallery(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Gallery]:
    """20 items that stay, and 100 that come and go."""
    small_structures(monkeypatch)
    with Gallery.create(
        tmp_path / "g", model_name="fake", fingerprint="a1" * 32, width=8, policy=SMALL
    ) as gallery:
        gallery.put([new_item(f"kept{n}", seed=n, label="kept") for n in range(20)])
        gallery.put([new_item(f"gone{n}", seed=100 + n) for n in range(100)])
        yield gallery


def whenever_items_are_read(patch: pytest.MonkeyPatch, act: Callable[[], None]) -> None:
    """Have ``act`` done between taking a snapshot and reading the items it names."""
    read = Store.items_by_key

    def reading(self: Store, keys: NDArray[np.int64]) -> dict[int, Item]:
        act()
        return read(self, keys)

    patch.setattr(Store, "items_by_key", reading)


def page(gallery: Gallery) -> set[str]:
    return {item.id for item in gallery.page(limit=50, filter=KEPT).items}


def search(gallery: Gallery) -> set[str]:
    return {hit.id for hit in gallery.search(QUERY, k=50, filter=KEPT).hits[0]}


EVERYTHING = {f"kept{n}" for n in range(20)}


def replace_one(gallery: Gallery, number: int) -> None:
    gallery.put([new_item(f"kept{number % 20}", seed=1_000 + number, label="kept")])


@pytest.mark.parametrize("ask", [page, search])
def test_a_generation_taken_over_while_writers_wait_is_no_damage(
    gallery: Gallery, monkeypatch: pytest.MonkeyPatch, ask: Callable[[Gallery], set[str]]
) -> None:
    acts: list[str] = []

    def act() -> None:
        if len(acts) <= ATTEMPTS:  # until writers are made to wait
            acts.append("write")
            replace_one(gallery, len(acts))
        elif "take over" not in acts:
            acts.append("take over")
            assert gallery.adopt_newest_generation()

    rebuilt(gallery.folder)
    whenever_items_are_read(monkeypatch, act)

    assert ask(gallery) == EVERYTHING
    assert acts == ["write"] * (ATTEMPTS + 1) + ["take over"]


@pytest.mark.parametrize("ask", [page, search])
@pytest.mark.parametrize("writes", [1, READ_ONLY_ATTEMPTS // 2])
def test_without_the_right_to_write_others_writes_are_no_damage(
    gallery: Gallery,
    monkeypatch: pytest.MonkeyPatch,
    ask: Callable[[Gallery], set[str]],
    writes: int,
) -> None:
    left = writes
    with Gallery.open(gallery.folder, fingerprint=None, policy=SMALL) as other:

        def act() -> None:
            nonlocal left
            if left:
                left -= 1
                replace_one(other, left)

        monkeypatch.setattr(gallery._store._database, "read_only_reason", "the disk failed")
        whenever_items_are_read(monkeypatch, act)

        assert ask(gallery) == EVERYTHING


@pytest.mark.parametrize("ask", [page, search])
def test_when_others_never_stop_that_is_said(
    gallery: Gallery, monkeypatch: pytest.MonkeyPatch, ask: Callable[[Gallery], set[str]]
) -> None:
    with Gallery.open(gallery.folder, fingerprint=None, policy=SMALL) as other:
        numbers = iter(range(10_000))
        monkeypatch.setattr(gallery._store._database, "read_only_reason", "the disk failed")
        whenever_items_are_read(monkeypatch, lambda: replace_one(other, next(numbers)))

        with pytest.raises(StorageError, match="kept changing while it was searched; try again"):
            ask(gallery)


@pytest.mark.parametrize("read_only", [False, True])
def test_an_item_that_went_without_a_word_in_the_log_is_damage(
    gallery: Gallery, monkeypatch: pytest.MonkeyPatch, read_only: bool
) -> None:
    with gallery._store.writing() as writer:
        writer.execute("DELETE FROM items WHERE id = 'kept3'")
    if read_only:
        monkeypatch.setattr(gallery._store._database, "read_only_reason", "the disk failed")

    with pytest.raises(GalleryFolderError, match="its log and its items disagree"):
        gallery.search(QUERY, k=200)


def test_a_generation_made_while_the_gallery_is_verified_is_no_fault(
    gallery: Gallery, monkeypatch: pytest.MonkeyPatch
) -> None:
    rebuilt(gallery.folder)
    generations = Generations.of(gallery._store)

    def looking() -> list[int]:
        replace_one(gallery, 3)
        rebuilt(gallery.folder)
        return Generations.numbers(generations)

    monkeypatch.setattr(generations, "numbers", looking)

    assert generations.problems(last_seq=gallery._store.last_seq) == []
    assert Generations.numbers(generations) == [2, 1]


def test_filtered_pages_are_whole_while_items_are_replaced_and_generations_taken_over(
    gallery: Gallery,
) -> None:
    end = time.monotonic() + 4
    raised: list[BaseException] = []
    counts = {"pages": 0, "writes": 0, "generations": 0}

    def in_a_loop(work: Callable[[], Any], name: str) -> Callable[[], None]:
        def run() -> None:
            try:
                while (time.monotonic() < end or not counts[name]) and not raised:
                    work()
                    counts[name] += 1
            except BaseException as error:
                raised.append(error)

        return run

    def replace() -> None:
        replace_one(gallery, counts["writes"])

    def look() -> None:
        assert page(gallery) == EVERYTHING
        assert search(gallery) == EVERYTHING

    def rebuild() -> None:
        rebuilt(gallery.folder)
        assert gallery.adopt_newest_generation()

    works = [in_a_loop(*one) for one in ((replace, "writes"), (look, "pages"), (look, "pages"))]
    works.append(in_a_loop(rebuild, "generations"))
    threads = [threading.Thread(target=work) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert raised == []
    assert all(counts.values()), counts
    assert gallery.verify() == []
