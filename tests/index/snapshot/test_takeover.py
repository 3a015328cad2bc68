"""A new generation is taken over once, and a damaged one is not read again and again."""

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from index.errors import RebuildBusyError, RebuildError
from index.gallery import Gallery
from index.search.policy import SearchPolicy
from index.snapshot.segments.generations import Generations
from index.snapshot.segments.immutable_segment import ImmutableSegment
from tests.support.fakes import new_item
from tests.support.galleries.segments import rebuilt, small_structures


@pytest.fixture
def gallery(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Gallery]:
    small_structures(monkeypatch)
    policy = SearchPolicy(min_indexed_rows=100, check_period_s=0.01, failure_retry_s=0.02)
    with Gallery.create(
        tmp_path / "g", model_name="fake", fingerprint="a1" * 32, width=8, policy=policy
    ) as gallery:
        gallery.put([new_item(f"i{n}", seed=n) for n in range(120)])
        yield gallery


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> Counter[int]:
    """How often each generation was read from the disk."""
    counted: Counter[int] = Counter()
    load = Generations.load

    def counting(self: Generations, number: int, *, last_seq: int) -> ImmutableSegment:
        counted[number] += 1
        return load(self, number, last_seq=last_seq)

    monkeypatch.setattr(Generations, "load", counting)
    return counted


def damage(gallery: Gallery, number: int) -> None:
    path = gallery.folder / "snapshots" / f"gen-{number:08}" / "vectors.f32"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def wait_until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not true():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.01)


def test_the_newest_generation_is_taken_over_once(gallery: Gallery, loads: Counter[int]) -> None:
    assert not gallery.adopt_newest_generation(), "there is none"
    rebuilt(gallery.folder)
    rebuilt(gallery.folder)

    assert gallery.adopt_newest_generation()
    assert not gallery.adopt_newest_generation()

    assert loads == {2: 1}
    assert gallery.info().generation == 2


def test_a_damaged_generation_is_read_once_and_not_every_second(
    gallery: Gallery, loads: Counter[int], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "lookalike.index")
    rebuilt(gallery.folder)
    rebuilt(gallery.folder)
    damage(gallery, 2)

    assert gallery.adopt_newest_generation()
    for _ in range(5):
        assert not gallery.adopt_newest_generation()

    assert gallery.info().generation == 1
    assert loads == {1: 1, 2: 1}
    assert caplog.text.count("vectors.f32 is not what was written") == 1


def test_a_generation_made_in_place_of_a_damaged_one_is_taken_over(gallery: Gallery) -> None:
    rebuilt(gallery.folder)
    damage(gallery, 1)
    assert not gallery.adopt_newest_generation()
    damaged = gallery.folder / "snapshots" / "gen-00000001"
    damaged.rename(gallery.folder.parent / "removed by hand")
    assert not gallery.adopt_newest_generation()

    rebuilt(gallery.folder)

    assert gallery.adopt_newest_generation()
    assert gallery.info().generation == 2  # numbers only grow


@pytest.mark.parametrize(
    "fault",
    [OSError("no more processes"), RebuildError("it failed"), RebuildBusyError("somebody else")],
    ids=lambda fault: type(fault).__name__,
)
def test_the_background_goes_on_after_a_rebuild_that_could_not_be_made(
    gallery: Gallery, monkeypatch: pytest.MonkeyPatch, fault: Exception
) -> None:
    tried = threading.Event()

    def rebuild(**_: Any) -> Any:
        if not tried.is_set():
            tried.set()
            raise fault
        made = rebuilt(gallery.folder)
        gallery.adopt_newest_generation()
        return made

    monkeypatch.setattr(gallery._maintenance, "rebuild", rebuild)
    gallery.start_maintenance()

    wait_until(lambda: gallery._follower.snapshot.immutable is not None)

    assert tried.is_set()
    assert gallery.info().structure == "graph"
    assert gallery.verify() == []
