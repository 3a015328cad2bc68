"""Failing system calls while generations are written and read: the one before serves."""

import os
import shutil
from pathlib import Path

import pytest

from index.errors import VectorIndexError
from index.gallery import Gallery
from index.maintenance.compaction import compact
from index.snapshot.segments.generations import Generations
from index.store.store import Store
from tests.support.crashes.crash_harness import create, rebuild, wrong_answers
from tests.support.crashes.crash_worker_main import WIDTH, item_of
from tests.support.faults.failing_io import FaultyFiles, Kind, faulty_files
from tests.support.faults.loop_filesystems import small_filesystem

LEAST_STEPS = 30  # that writing a generation takes


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A gallery of 60 items, too few for a structure, with two generations."""
    folder = tmp_path / "g"
    with Gallery.create(folder, model_name="fake", fingerprint="a1" * 32, width=WIDTH) as gallery:
        gallery.put([item_of(f"i{n}", n) for n in range(60)])
    rebuild(folder)
    rebuild(folder)
    return folder


def compact_with(folder: Path, faults: FaultyFiles) -> Exception | None:
    """Compact while calls fail, and return what it raised."""
    store = Store.open(folder)
    try:
        with faulty_files(faults):
            compact(store, Generations.of(store), on_stage=lambda _: None)
    except (OSError, VectorIndexError) as error:
        return error
    finally:
        store.close()
    return None


def newest_whole(folder: Path) -> int:
    """Open the gallery, search it, store something, and return the generation it is searched on."""
    with Gallery.open(folder, fingerprint=None) as gallery:
        assert wrong_answers(gallery) == []
        generation = gallery.info().generation
        gallery.put([item_of("i5", 1_000 + generation)])
        return generation


def next_attempt(folder: Path) -> int:
    """Rebuild, which must succeed now, and return the generation that it made."""
    rebuild(folder)
    names = sorted(path.name for path in (folder / "snapshots").iterdir())
    assert names[0] == ".lock"
    assert [name[:4] for name in names[1:]] in (["gen-"], ["gen-", "gen-"]), names
    with Gallery.open(folder, fingerprint=None) as gallery:
        assert gallery.verify() == []
        assert gallery.info().generation == int(names[-1][4:])
        return gallery.info().generation


def walk(folder: Path, kind: Kind, *, first: bool) -> list[str]:
    """Fail every step of writing a generation in turn, and return the steps that failed."""
    failed: list[str] = []
    newest = newest_whole(folder)
    while True:
        before = newest
        if first:
            shutil.rmtree(folder / "snapshots")
            before = 0
        faults = FaultyFiles(folder, fail_at=len(failed) + 1, kind=kind)
        raised = compact_with(folder, faults)
        if faults.failed is None:
            assert raised is None
            return failed
        failed.append(faults.failed)
        after = newest_whole(folder)
        if raised is None:  # what failed was not needed: all is there
            assert after == newest + 1
        else:
            assert after in (before, newest + 1), f"{faults.failed}: {raised}"
            assert str(raised)
        newest = next_attempt(folder)


@pytest.mark.parametrize(
    ("kind", "first"), [("once", False), ("from then on", True), ("half", False)]
)
def test_whatever_step_of_writing_a_generation_fails_the_one_before_serves_and_the_next_succeeds(
    small: Path, kind: Kind, first: bool
) -> None:
    failed = walk(small, kind, first=first)

    assert len(failed) > LEAST_STEPS
    assert {"mkdir", "open", "read", "write", "fsync", "rename", "list"} <= set(failed)


@pytest.mark.durability
@pytest.mark.parametrize(
    ("kind", "first"), [("once", True), ("from then on", False), ("half", True)]
)
def test_the_same_of_a_first_generation_and_of_a_third(
    small: Path, kind: Kind, first: bool
) -> None:
    assert len(walk(small, kind, first=first)) > LEAST_STEPS


@pytest.mark.durability
@pytest.mark.parametrize("kind", ["once", "from then on", "half"])
def test_the_same_with_a_graph_to_write(tmp_path: Path, kind: Kind) -> None:
    create(tmp_path / "g")

    assert len(walk(tmp_path / "g", kind, first=False)) > 2 * LEAST_STEPS


@pytest.mark.parametrize("kind", ["once", "from then on", "half"])
def test_whatever_step_of_reading_the_generations_fails_the_gallery_opens_and_answers_rightly(
    tmp_path: Path, kind: Kind
) -> None:
    folder = tmp_path / "g"
    create(folder)
    rebuild(folder)
    used: list[int] = []
    while True:
        faults = FaultyFiles(folder, fail_at=len(used) + 1, kind=kind)
        with faulty_files(faults):
            gallery = Gallery.open(folder, fingerprint=None)
        with gallery:
            if faults.failed is None:
                break
            used.append(gallery.info().generation)
            assert wrong_answers(gallery) == [], faults.failed
    assert 0 in used, "no step brought the gallery down to its database"
    assert 1 in used or kind == "from then on", "no step made it use the older generation"


def test_a_disk_that_fills_up_while_a_generation_is_written_leaves_the_one_before(
    tmp_path: Path,
) -> None:
    with small_filesystem(tmp_path / "small", megabytes=4) as place:
        folder = place / "g"
        create(folder)
        refused = 0
        for spare in range(0, 400_000, 23_000):
            with Gallery.open(folder, fingerprint=None) as gallery:  # it serves meanwhile
                before = gallery.info().generation
                gallery.put([item_of("i5", 10_000 + spare)])
                fill_up(place / "ballast", spare)
                raised = compact_with(folder, FaultyFiles(folder))
                gallery.adopt_newest_generation()
                assert wrong_answers(gallery) == []
                assert gallery.info().generation == before + (raised is None)
                (place / "ballast").unlink()
            assert raised is None or "o space left" in str(raised) or "no room" in str(raised)
            refused += raised is not None
            next_attempt(folder)
        assert 5 < refused < 18


def fill_up(path: Path, spare: int) -> None:
    """Leave about so many bytes free."""
    left = os.statvfs(path.parent)
    path.write_bytes(bytes(max(0, left.f_bavail * left.f_bsize - spare)))
