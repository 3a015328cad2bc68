"""What is left when a rebuild is stopped or killed, or the generations are deleted: nothing."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from index.errors import RebuildError
from index.gallery import Gallery
from index.maintenance.compaction import SETTING, TARGET, compact
from index.maintenance.rebuild_process import RebuildProcess
from index.search.policy import SearchPolicy
from index.snapshot.segments.generations import Generations
from index.store.store import Store
from tests.index.maintenance.test_maintenance import FakeProgram, wait_until
from tests.support.crashes.crash_harness import lay_out, wrong_answers
from tests.support.crashes.crash_worker_main import item_of
from tests.support.paths import ROOT

STAGES = ("reading", "measuring", "writing")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A gallery with a graph, generation 1."""
    lay_out(tmp_path / "g")
    return tmp_path / "g"


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "snapshots").iterdir())


def settings(folder: Path) -> tuple[str | None, str | None]:
    store = Store.open(folder)
    try:
        return store.setting(TARGET), store.setting(SETTING)
    finally:
        store.close()


@pytest.mark.parametrize("tune", [False, True], ids=["rebuild", "tune"])
@pytest.mark.parametrize("stage", STAGES)
def test_a_rebuild_that_is_stopped_changes_nothing_that_is_remembered(
    folder: Path, stage: str, tune: bool
) -> None:
    before = settings(folder)
    rebuild = RebuildProcess(folder, 0.5, tune)

    def stop(begun: str) -> None:
        if begun == stage:
            rebuild.stop()

    with pytest.raises(RebuildError):
        rebuild.run(stop)

    assert settings(folder) == before
    with Gallery.open(folder, fingerprint=None) as gallery:
        assert gallery.info().generation == 1
        made = gallery.rebuild()
        assert made.generation == 2
        assert made.spec.recall_target != 0.5


LATE = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print('{"stage": "writing"}', flush=True)
time.sleep(0.2)
print('{"made": {"generation": 7, "seq": 2, "count": 3, "plan": {"kind": "exact"}, "trials": []}}')
"""


def test_who_stops_a_rebuild_too_late_hears_that_it_was_made(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    FakeProgram(monkeypatch, LATE)

    def refuse(_: str) -> None:
        raise RuntimeError("the job was cancelled")

    assert RebuildProcess(folder).run(refuse).generation == 7


def test_a_rebuild_that_ended_is_remembered_with_its_target(folder: Path) -> None:
    with Gallery.open(folder, fingerprint=None) as gallery:
        gallery.rebuild(target=0.75)
        assert gallery.rebuild().spec.recall_target == 0.75

    assert settings(folder)[0] == "0.75"


def test_a_rebuild_that_fails_to_tell_the_database_leaves_no_generation(folder: Path) -> None:
    def fail() -> None:
        raise OSError(5, "the disk failed")

    before = settings(folder)
    store = Store.open(folder)
    with pytest.raises(OSError, match="the disk failed"):
        compact(
            store,
            Generations.of(store),
            target=0.5,
            on_stage=lambda _: None,
            before_commit=fail,
        )
    store.close()

    assert settings(folder) == before
    assert names(folder) == [".lock", "gen-00000001"]


KILLED = """
import os, sys
from pathlib import Path
from index.maintenance.compaction import compact
from index.snapshot.segments.generations import Generations
from index.store.store import Store
import index.snapshot.segments.generations as module
step, left = sys.argv[2], int(sys.argv[3])
def end(*_, **__):
    os.kill(os.getpid(), 9)
def counted(real):
    def call(*arguments, **named):
        global left
        if left == 0:
            end()
        left -= 1
        return real(*arguments, **named)
    return call
if step == "write":
    module.write_bytes = counted(module.write_bytes)
elif step == "sync":
    module.sync_folder = counted(module.sync_folder)
store = Store.open(Path(sys.argv[1]))
compact(store, Generations.of(store), target=0.5, on_stage=lambda _: None,
        before_commit=end if step == "commit" else lambda: None)
"""


@pytest.mark.parametrize(
    ("step", "at"), [("write", 0), ("write", 1), ("write", 2), ("sync", 0), ("commit", 0)]
)
def test_what_a_killed_rebuild_left_is_gone_when_a_server_starts_or_another_begins(
    folder: Path, step: str, at: int
) -> None:
    before = settings(folder)
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(folder), step, str(at)],
        cwd=ROOT,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL
    assert len(names(folder)) == 3, "the kill left nothing: the test tries nothing"
    assert settings(folder) == before

    with Gallery.open(folder, fingerprint=None) as gallery:
        assert gallery.info().generation == 1
        gallery.start_maintenance()
        assert names(folder) == [".lock", "gen-00000001"]
        assert gallery.rebuild().generation == 2
        assert wrong_answers(gallery) == []


def test_a_rebuild_that_runs_is_not_swept_away(folder: Path) -> None:
    unfinished = folder / "snapshots" / ".gen-00000002.0123abcd"
    store = Store.open(folder)
    generations = Generations.of(store)
    with generations.writing():
        unfinished.mkdir()

        Generations.of(store).sweep(store)

        assert unfinished.exists()
    generations.sweep(store)
    store.close()
    assert not unfinished.exists()


def test_deleted_generations_are_built_anew_once_and_used(
    folder: Path,
) -> None:
    policy = SearchPolicy(check_period_s=0.05)
    with Gallery.open(folder, fingerprint=None, policy=policy) as gallery:
        gallery.rebuild()
        assert gallery.info().generation == 2
        gallery.start_maintenance()

        shutil.rmtree(folder / "snapshots")

        wait_until(lambda: gallery.info().generation == 3)
        time.sleep(1)
        assert names(folder) == [".lock", "gen-00000003"]
        assert gallery.info().generation == 3
        assert wrong_answers(gallery) == []


def test_a_generation_of_elsewhere_with_a_higher_number_is_in_nobodys_way(folder: Path) -> None:
    lay_out(folder.with_name("other"))
    other = folder.with_name("other") / "snapshots" / "gen-00000001"
    shutil.copytree(other, folder / "snapshots" / "gen-00000099")
    (folder / "snapshots" / "gen-999999999999999999").mkdir()

    with Gallery.open(folder, fingerprint=None) as gallery:
        assert gallery.info().generation == 1
        assert gallery.rebuild().generation == 2
        assert gallery.info().generation == 2
        assert wrong_answers(gallery) == []
    assert names(folder) == [".lock", "gen-00000001", "gen-00000002"]


def test_numbers_grow_although_neither_files_nor_a_whole_record_are_left(folder: Path) -> None:
    with Gallery.open(folder, fingerprint=None) as gallery:
        gallery.rebuild()
        shutil.rmtree(folder / "snapshots")
        gallery.put([item_of("new", 9_000)])

        assert gallery.rebuild().generation == 3
        query = item_of("new", 9_000).vector_D[np.newaxis]
        assert gallery.search(query, k=1).hits[0][0].id == "new"
        record = json.loads(gallery._store.setting("generations") or "")
    assert [number for number, _ in record] == [3]
    assert os.listdir(folder / "snapshots")
