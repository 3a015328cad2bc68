"""Rebuilds in processes of their own: begun, taken over, stopped, killed, refused."""

import gc
import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from files import child_process
from index.errors import RebuildBusyError, RebuildError
from index.gallery import Gallery
from index.maintenance.maintenance import is_rebuild_due
from index.maintenance.rebuild_process import RebuildProcess
from index.search.index_spec import EXACT
from index.search.policy import DEFAULT_POLICY, SearchPolicy
from index.snapshot.segments.generations import Generations
from index.snapshot.snapshot import Snapshot
from tests.support.crashes import crash_harness
from tests.support.crashes.crash_harness import lay_out, wrong_answers
from tests.support.crashes.crash_worker_main import WIDTH, item_of
from tests.support.crashes.crash_workers import ROOT

ITEMS = 60


HURRIED = SearchPolicy(
    check_period_s=0.01,
    busy_retry_s=0.01,
    failure_retry_s=0.01,
    pending_rows=10,
    min_indexed_rows=10,
)


def filled(folder: Path, policy: SearchPolicy = DEFAULT_POLICY) -> Gallery:
    """Return a gallery of 60 items, without generations."""
    gallery = Gallery.create(
        folder, model_name="fake", fingerprint="a1" * 32, width=WIDTH, policy=policy
    )
    gallery.put([item_of(f"i{n}", n) for n in range(ITEMS)])
    return gallery


@pytest.fixture
def gallery(tmp_path: Path) -> Iterator[Gallery]:
    with filled(tmp_path / "g") as gallery:
        yield gallery


@pytest.fixture
def hurried(tmp_path: Path) -> Iterator[Gallery]:
    """A gallery that looks after its index every moment, and rebuilds it for little."""
    with filled(tmp_path / "hurried", HURRIED) as gallery:
        yield gallery


def wait_until(condition: Callable[[], bool], *, timeout_s: float = 20) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.01)


class Segment(list[None]):
    """As much of a segment as decides whether a rebuild is due."""

    spec = EXACT


def snapshot(*, rows: int | None, tombstones: int = 0, recent: int = 0) -> Snapshot:
    """Return as much of a snapshot as decides whether a rebuild is due."""
    segment = Segment([None] * (rows or 0))
    immutable = None if rows is None else SimpleNamespace(segment=segment, tombstones=tombstones)
    count = recent + (0 if rows is None else rows - tombstones)
    return cast(
        "Snapshot",
        SimpleNamespace(immutable=immutable, delta=SimpleNamespace(live_count=recent), count=count),
    )


@pytest.mark.parametrize(
    ("rows", "tombstones", "recent", "due"),
    [
        (None, 0, 19_999, False),
        (None, 0, 20_000, True),
        (20_000, 0, 4_096, False),
        (20_000, 0, 4_097, True),
        (20_000, 4_096, 0, False),
        (20_000, 4_097, 0, True),
        (200_000, 0, 10_000, False),
        (200_000, 0, 10_001, True),
        (200_000, 20_000, 0, False),
        (200_000, 20_001, 0, True),
        (0, 0, 4_097, True),
    ],
)
def test_a_rebuild_is_due_when_many_rows_are_scanned_or_dead(
    rows: int | None, tombstones: int, recent: int, due: bool
) -> None:
    found = snapshot(rows=rows, tombstones=tombstones, recent=recent)
    assert is_rebuild_due(found, DEFAULT_POLICY) == due


def test_a_rebuild_tells_its_stages_and_what_it_made_and_is_searched_on(gallery: Gallery) -> None:
    stages: list[str] = []

    made = gallery.rebuild(on_stage=stages.append)

    assert stages == ["reading", "measuring", "writing"]
    assert (made.generation, made.seq, made.count, made.spec.kind) == (1, ITEMS, ITEMS, "exact")
    assert gallery.info().generation == 1
    assert wrong_answers(gallery) == []


def test_a_structure_is_built_in_its_own_process_and_taken_over(tmp_path: Path) -> None:
    lay_out(tmp_path / "g")
    with Gallery.open(tmp_path / "g", fingerprint=None) as gallery:
        gallery.put([item_of(f"new{n}", 10_000 + n) for n in range(30)])

        made = gallery.rebuild(target=0.95)

        assert (made.generation, made.spec.kind) == (2, "graph")
        assert made.spec.recall is not None
        assert made.spec.recall >= 0.95
        assert gallery.info().structure == "graph"
        assert wrong_answers(gallery) == []
        assert gallery.verify() == []


def test_a_rebuild_is_refused_while_another_process_is_at_it(gallery: Gallery) -> None:
    with (
        Generations.of(gallery._store).writing(),
        pytest.raises(RebuildBusyError, match="another process is rebuilding"),
    ):
        gallery.rebuild()

    assert gallery.rebuild().generation == 1


def test_a_rebuild_that_fails_leaves_what_there_was(gallery: Gallery) -> None:
    gallery.rebuild()
    gallery._store.set_setting("plan", "no plan")

    with pytest.raises(RebuildError, match="could not be rebuilt, it is as it was: "):
        gallery.rebuild()

    assert gallery.info().generation == 1
    assert wrong_answers(gallery) == []


def test_only_newer_sound_generations_are_taken_over(gallery: Gallery) -> None:
    assert not gallery.adopt_newest_generation()
    crash_harness.rebuild(gallery.folder)
    assert gallery.adopt_newest_generation()
    assert not gallery.adopt_newest_generation()
    crash_harness.rebuild(gallery.folder)
    crash_harness.rebuild(gallery.folder)
    (gallery.folder / "snapshots" / "gen-00000003" / "keys.i64").write_bytes(b"")

    assert gallery.adopt_newest_generation()
    assert gallery.info().generation == 2
    assert not gallery.adopt_newest_generation()


def test_a_generation_that_was_refused_is_not_read_again(
    gallery: Gallery, caplog: pytest.LogCaptureFixture
) -> None:
    crash_harness.rebuild(gallery.folder)
    (gallery.folder / "snapshots" / "gen-00000001" / "keys.i64").write_bytes(b"")

    with caplog.at_level(logging.WARNING):
        for _ in range(5):
            assert not gallery.adopt_newest_generation()

    assert len(caplog.records) == 1
    crash_harness.rebuild(gallery.folder)
    assert gallery.adopt_newest_generation()


def test_taking_over_tells_searches_that_are_under_way_that_items_may_have_gone(
    gallery: Gallery,
) -> None:
    gallery.put([item_of("i5", 1_000)])
    before = gallery._follower.snapshot
    crash_harness.rebuild(gallery.folder)
    gallery.put([item_of("i6", 1_001)])  # nobody followed it yet when the base is taken over

    gallery.adopt_newest_generation()

    assert gallery._follower.snapshot.removals != before.removals


class FakeProgram:
    """Stands in place of ``python -m index.maintenance.rebuild_process``."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, program: str) -> None:
        self.started: list[subprocess.Popen[str]] = []
        real = subprocess.Popen

        def start(_: object, **options: Any) -> "subprocess.Popen[str]":
            process = real([sys.executable, "-c", program], **options)
            self.started.append(process)
            return process

        monkeypatch.setattr(child_process.subprocess, "Popen", start)


SLEEPS = 'import time; print(\'{"stage": "measuring"}\', flush=True); time.sleep(60)'


def test_closing_a_gallery_ends_every_rebuild_it_began(
    gallery: Gallery, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = FakeProgram(monkeypatch, SLEEPS)
    stages: list[str] = []
    raised: list[Exception] = []

    def run() -> None:
        try:
            gallery.rebuild(on_stage=stages.append)
        except RebuildError as error:
            raised.append(error)

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    wait_until(lambda: len(stages) == 2)

    gallery._maintenance.close()

    for thread in threads:
        thread.join(timeout=10)
    assert [process.returncode for process in program.started] == [-signal.SIGTERM] * 2
    assert [f"{error}"[-28:] for error in raised] == ["process ended with status -15"[-28:]] * 2


def test_a_rebuild_that_was_stopped_before_it_began_ends_at_once(
    gallery: Gallery, monkeypatch: pytest.MonkeyPatch
) -> None:
    FakeProgram(monkeypatch, SLEEPS)
    stopped = RebuildProcess(gallery.folder)
    stopped.stop()

    with pytest.raises(RebuildError, match="ended with status -15"):
        stopped.run(lambda _: None)


@pytest.mark.parametrize(
    "program",
    [
        "print('a library greets its users')",
        "print('{\"stage\": \"read', end='', flush=True); import os; os.kill(os.getpid(), 9)",
        "print('[1, 2]'); raise SystemExit(3)",
        "print('null')",
        "import os; os.write(1, bytes([255, 254, 10]))",
    ],
)
def test_whatever_the_process_says_a_rebuild_ends_in_our_error(
    gallery: Gallery, monkeypatch: pytest.MonkeyPatch, program: str
) -> None:
    FakeProgram(monkeypatch, program)

    with pytest.raises(RebuildError, match="it is as it was: the process ended with status"):
        gallery.rebuild()


def test_what_libraries_print_after_the_result_does_not_matter(
    gallery: Gallery, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = {"generation": 1, "seq": 2, "count": 3, "plan": {"kind": "exact"}, "trials": []}
    FakeProgram(monkeypatch, f"print('{json.dumps({'made': made})}'); print('goodbye')")

    assert gallery.rebuild().count == 3


def test_a_process_that_cannot_be_started_is_our_error(
    gallery: Gallery, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(child_process.subprocess, "Popen", refuse)

    with pytest.raises(RebuildError, match=r"it is as it was: .*Too many open files"):
        gallery.rebuild()


def test_a_killed_rebuild_leaves_nothing_that_stays(tmp_path: Path) -> None:
    lay_out(tmp_path / "g")
    with Gallery.open(tmp_path / "g", fingerprint=None) as gallery:

        def kill(stage: str) -> None:
            if stage == "writing":
                (running,) = gallery._maintenance._running
                assert running._process is not None
                running._process.kill()

        with pytest.raises(RebuildError, match="ended with status -9"):
            gallery.rebuild(on_stage=kill)
        assert gallery.info().generation == 1

        assert gallery.rebuild().generation == 2
        names = sorted(path.name for path in (tmp_path / "g" / "snapshots").iterdir())
        assert names == [".lock", "gen-00000001", "gen-00000002"]


PARENT = """
import os, sys
from pathlib import Path
from index.gallery import Gallery
gallery = Gallery.open(Path(sys.argv[1]), fingerprint=None)
gallery.rebuild(on_stage=lambda stage: os.kill(os.getpid(), 9))
"""


def test_a_rebuild_whose_server_was_killed_ends_and_keeps_nobody_from_rebuilding(
    tmp_path: Path,
) -> None:
    lay_out(tmp_path / "g")
    parent = subprocess.run(
        [sys.executable, "-c", PARENT, str(tmp_path / "g")],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        check=False,
    )  # returns when the orphan has closed its standard error, too
    assert parent.returncode == -signal.SIGKILL
    assert b"Traceback" not in parent.stderr

    crash_harness.rebuild(tmp_path / "g")

    with Gallery.open(tmp_path / "g", fingerprint=None) as gallery:
        assert gallery.verify() == []
        assert wrong_answers(gallery) == []
    names = sorted(path.name for path in (tmp_path / "g" / "snapshots").iterdir())
    assert len(names) == 3
    assert not any(name.startswith(".gen-") for name in names)


def test_a_follower_that_slept_through_a_cut_of_the_log_wakes_on_the_newest_generation(
    gallery: Gallery,
) -> None:
    gallery.rebuild()
    with Gallery.open(gallery.folder, fingerprint=None) as sleeper:
        for round_ in range(3):
            gallery.put([item_of(f"i{n}", 1_000 * (round_ + 1) + n) for n in range(20)])
            gallery.delete([f"i{30 + round_}"])
            crash_harness.rebuild(gallery.folder)
        assert gallery._store.log_start() > sleeper.seq

        sleeper.catch_up()

        assert sleeper.seq == gallery.seq
        assert sleeper.info().generation == 4
        assert wrong_answers(sleeper) == []
        assert sleeper.verify() == []
        query = item_of("i7", 3_007).vector_D[np.newaxis]
        assert sleeper.search(query, k=1).hits[0][0].id == "i7"


def test_in_the_background_a_gallery_that_grew_is_rebuilt(hurried: Gallery) -> None:
    hurried.start_maintenance()

    wait_until(lambda: hurried.info().generation == 1)
    hurried.put([item_of(f"new{n}", 1_000 + n) for n in range(11)])
    wait_until(lambda: hurried.info().generation == 2)

    assert wrong_answers(hurried) == []


def test_upkeep_goes_on_whatever_a_rebuild_meets(
    hurried: Gallery, monkeypatch: pytest.MonkeyPatch
) -> None:
    faults = iter([RebuildBusyError("busy"), RebuildError("failed"), OSError("disk")])
    real = RebuildProcess.run

    def run(self: RebuildProcess, on_stage: Callable[[str], None]) -> Any:
        for fault in faults:
            raise fault
        return real(self, on_stage)

    monkeypatch.setattr(RebuildProcess, "run", run)
    hurried.start_maintenance()

    wait_until(lambda: hurried.info().generation == 1)


def test_a_gallery_that_can_only_be_read_is_not_rebuilt_in_the_background(
    hurried: Gallery,
) -> None:
    hurried._store._database.read_only_reason = "the disk failed"
    hurried.start_maintenance()
    time.sleep(0.2)

    assert not (hurried.folder / "snapshots").exists()
    assert os.listdir(hurried.folder)


def test_a_gallery_that_was_closed_and_forgotten_holds_no_file(tmp_path: Path) -> None:
    lay_out(tmp_path / "g")
    gc.disable()
    try:
        gallery = Gallery.open(tmp_path / "g", fingerprint=None)
        assert str(tmp_path / "g" / "snapshots") in Path("/proc/self/maps").read_text()

        gallery.close()
        del gallery

        assert str(tmp_path / "g") not in Path("/proc/self/maps").read_text()
    finally:
        gc.enable()
