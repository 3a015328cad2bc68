"""Workers that end, or are told to, in containers too: replaced, or the server says why not."""

import asyncio
import json
import os
import shutil
import signal
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from files.filesystem import storage_warning
from files.processes import started_ticks
from service.server.worker_replacement import (
    FIRST_WAIT_S,
    LONGEST_WAIT_S,
    MOST_FAILURES,
    WorkerReplacement,
)
from tests.service.server.test_workers import start_lanes
from tests.support.server.jobs import wait_for
from tests.support.server.load_generator import Reply, run
from tests.support.server.servers import Server, running_bento_server

REPLACED_S = 90.0  # on the busiest machine
AFTERWARDS_S = 1.0


@dataclass
class FakeProcess:
    """A worker as the supervisor sees it."""

    pid: int
    started: float
    stopping: bool = False
    signals: list[int] = field(default_factory=list)

    def send_signal(self, number: int) -> None:
        self.signals.append(number)


class FakeWatcher:
    """Starts workers as circus does: up to as many as there should be."""

    def __init__(self, size: int) -> None:
        self.numprocesses = size
        self.respawn = False
        self.processes: dict[int, FakeProcess] = {}
        self.hooks: dict[str, Any] = {}
        self._last = 100

    def start_missing(self) -> list[int]:
        """Start what is missing, and return the new processes."""
        new = []
        while len(self.processes) < self.numprocesses:
            self._last += 1
            self.processes[self._last] = FakeProcess(self._last, float(self._last))
            new.append(self._last)
            assert self.hooks["after_spawn"](watcher=self, pid=self._last)
        return new


class FakeReadyWorkers:
    """Which workers can answer, as they would say it themselves."""

    def __init__(self) -> None:
        self.able: set[int] = set()
        self.ever: set[int] = set()
        self.sentence: str | None = None

    def pids(self) -> set[int]:
        return set(self.able)

    def was_ready(self, pid: int) -> bool:
        return pid in self.ever

    def failure(self) -> str | None:
        return self.sentence


class Situation:
    """A server of ``size`` workers, and a clock that goes when told to."""

    def __init__(self, size: int) -> None:
        self.now = 0.0
        self.watcher, self.ready = FakeWatcher(size), FakeReadyWorkers()
        self.replacement = WorkerReplacement(
            self.watcher,
            self.ready,  # type: ignore[arg-type]
            clock=lambda: self.now,
        )
        self.watcher.start_missing()

    def begin_to_answer(self, *pids: int) -> None:
        self.ready.able |= {*pids}
        self.ready.ever |= {*pids}

    def end(self, *pids: int) -> None:
        for pid in pids:
            del self.watcher.processes[pid]
            self.ready.able.discard(pid)

    def look(self) -> list[int]:
        """Look as the supervisor does each second; return the workers that were started."""
        return self.watcher.start_missing() if self.replacement.look() else []

    def told_to_end(self) -> set[int]:
        return {one.pid for one in self.watcher.processes.values() if one.signals}


def test_a_worker_that_could_answer_is_replaced_at_once() -> None:
    here = Situation(2)
    assert here.watcher.respawn, "BentoML lets dead workers lie in a container"
    here.begin_to_answer(101, 102)
    assert here.look() == []
    here.end(101)
    assert here.look() == [103]
    assert here.replacement.reason_to_end() is None


def test_starts_that_fail_are_tried_again_after_longer_and_longer_waits() -> None:
    here = Situation(2)
    here.begin_to_answer(101, 102)
    here.look()
    here.end(101)
    (new,) = here.look()
    waits = []
    for _ in range(8):
        here.end(new)
        began = here.now
        while not (started := here.look()):
            here.now += 0.5
        (new,) = started
        waits.append(here.now - began)

    assert waits == [FIRST_WAIT_S, 2, 4, 8, 16, LONGEST_WAIT_S, LONGEST_WAIT_S, LONGEST_WAIT_S]
    assert here.replacement.reason_to_end() is None, "the other one answers"
    here.begin_to_answer(new)
    here.look()
    here.end(new)
    assert here.look(), "a worker that could answer is replaced at once again"


def test_a_server_ends_with_the_reason_after_so_many_starts_that_failed() -> None:
    here = Situation(1)
    here.begin_to_answer(101)
    here.look()
    here.end(101)
    for number in range(MOST_FAILURES):
        assert here.replacement.reason_to_end() is None, number
        here.now += LONGEST_WAIT_S
        (new,) = here.look()
        here.end(new)
        here.ready.sentence = "no model folder"
        here.look()
    assert here.replacement.reason_to_end() == (
        "the service ends: its workers could not start 5 times: no model folder"
    )


def test_a_server_that_never_could_answer_ends_at_the_first_reason() -> None:
    here = Situation(2)
    here.end(101)
    here.look()
    assert here.replacement.reason_to_end() is None, "a worker was killed, and may be again"
    here.ready.sentence = "no model folder"
    here.end(102)
    here.look()
    assert here.replacement.reason_to_end() == "the service cannot start: no model folder"


@pytest.mark.parametrize("size", [1, 2, 3])
def test_all_are_replaced_and_never_are_there_fewer_that_can_answer(size: int) -> None:
    here = Situation(size)
    first = {*here.watcher.processes}
    here.begin_to_answer(*first)
    here.look()
    here.replacement.replace_all()
    here.replacement.replace_all()  # asked twice, done once
    for _ in range(4 * size):
        started = here.look()
        assert len(here.watcher.processes) <= size + 1
        assert len(here.ready.able - here.told_to_end()) >= size
        here.begin_to_answer(*started)
        here.end(*(here.told_to_end() if not started else ()))

    assert len(here.watcher.processes) == size == here.watcher.numprocesses
    assert not first & {*here.watcher.processes}
    assert here.look() == []


def test_the_old_ones_stay_where_a_new_one_cannot_start() -> None:
    here = Situation(2)
    here.begin_to_answer(101, 102)
    here.look()
    here.replacement.replace_all()
    (new,) = here.look()
    here.end(new)
    here.look()
    here.now += LONGEST_WAIT_S
    assert here.look() == []
    assert {*here.watcher.processes} == {101, 102}
    assert here.told_to_end() == set()
    assert here.replacement.reason_to_end() is None


@pytest.fixture(scope="module")
def contained(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server of two workers as BentoML starts it in a container, of a model of its own."""
    folder = tmp_path_factory.mktemp("contained")
    shutil.copytree(model, folder / "model")
    with running_bento_server(
        folder / "log",
        BENTOML_CONTAINERIZED="true",
        LOOKALIKE_MODEL=str(folder / "model"),
        LOOKALIKE_GALLERY=str(folder / "gallery"),
        LOOKALIKE_WORKERS="2",
        LOOKALIKE_CREATE="true",
    ) as server:
        yield server


def wait_until_replaced(server: Server, gone: set[int]) -> None:
    """Wait until two workers can answer, none of them one of ``gone``."""
    deadline = time.monotonic() + REPLACED_S
    while True:
        checks = httpx.get(f"{server.url}/readyz").json()["checks"]
        workers = {*server.workers()}
        if checks["workers"] == "ok" and len(workers) == 2 and not workers & gone:
            return
        assert time.monotonic() < deadline, server.log.read_text()
        time.sleep(0.1)


def test_a_killed_worker_is_replaced_in_a_container(contained: Server) -> None:
    victim = contained.workers()[0]
    os.kill(victim, signal.SIGKILL)
    wait_for(lambda: started_ticks(victim) is None)
    told = httpx.get(f"{contained.url}/readyz")
    assert told.status_code == 200
    assert told.json()["checks"]["workers"].startswith("1 of 2 workers can answer")
    wait_until_replaced(contained, {victim})


def test_a_gallery_that_goes_with_its_container_is_told(
    contained: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    gallery = contained.log.parent / "gallery"
    monkeypatch.setenv("BENTOML_CONTAINERIZED", "true")
    expected = storage_warning(gallery)  # none where temporary files have a disk of their own
    assert httpx.get(f"{contained.url}/v1/gallery").json()["storage_note"] == expected
    lines = [json.loads(line) for line in contained.log.read_text().splitlines()]
    told = [one["message"] for one in lines if one["level"] == "warning"]
    assert [one for one in told if str(gallery) in one and "volume" in one] == (
        [] if expected is None else [expected]
    )


def test_on_sighup_all_workers_are_replaced_and_no_request_is_lost(contained: Server) -> None:
    old = {*contained.workers()}
    readiness: list[int] = []

    async def measure() -> list[Reply]:
        replies: list[Reply] = []
        over = asyncio.Event()
        lanes = start_lanes(contained.url, over, replies)
        await asyncio.sleep(AFTERWARDS_S)
        contained.process.send_signal(signal.SIGHUP)
        watch = asyncio.to_thread(wait_until_replaced, contained, old)
        waiting = asyncio.create_task(watch)
        while not waiting.done():
            readiness.append(await asyncio.to_thread(ready_status, contained))
            await asyncio.sleep(0.05)
        await waiting
        await asyncio.sleep(AFTERWARDS_S)
        over.set()
        await asyncio.gather(*lanes)
        return replies

    replies = run(measure())
    assert Counter(one.status for one in replies if one.status != 200) == Counter()
    assert len(replies) > 50
    assert {*readiness} == {200}


def ready_status(server: Server) -> int:
    return httpx.get(f"{server.url}/readyz", timeout=10).status_code


def test_a_server_whose_workers_cannot_start_any_more_ends_with_the_reason(
    contained: Server,
) -> None:
    """The last test of this file: it is the end of the server."""
    model = contained.log.parent / "model"
    model.rename(model.with_name("elsewhere"))
    for pid in contained.workers():
        os.kill(pid, signal.SIGKILL)
    assert contained.process.wait(timeout=REPLACED_S) == 1
    lines = [json.loads(line) for line in contained.log.read_text().splitlines()]
    assert lines[-1]["level"] == "error"
    counts = (MOST_FAILURES, MOST_FAILURES + 1)  # two may fail within the same second
    assert lines[-1]["message"] in [
        f"the service ends: its workers could not start {count} times: "
        f"{model} is not a model folder: no manifest.json"
        for count in counts
    ]
