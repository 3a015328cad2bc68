"""Kills crews at work, and holds what is left against everything they said."""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Self

import numpy as np

from index.compaction import SETTING, compact
from index.gallery import Gallery
from index.generations import Generations
from index.plan import Plan
from index.store import Store
from tests.crash_writer import IDS, WIDTH, Changes, Orders, item_of, wrong_hits
from tests.fakes import unit_vectors
from tests.filesystems import loop_disk

ROOT: Final = Path(__file__).parents[1]
GRAPH: Final = Plan(kind="graph", factory="HNSW8_SQ8", construction=40, k_factor=4)
QUERIES: Final = 20
K: Final = 10
LEAST_RECALL: Final = 0.9  # of the hits, over all queries of one look


@dataclass(slots=True)
class Figures:
    """What was seen over all cycles."""

    cycles: int = 0
    acknowledged: int = 0  # calls
    ambiguous: int = 0  # calls that were acknowledged while the power was going
    lost: int = 0  # items that are not as was acknowledged
    phantom: int = 0  # items, or versions of them, that nobody put
    torn: int = 0  # items of two versions, and calls of which a part happened
    in_flight: int = 0  # calls that nobody heard of again
    generations: int = 0  # whole ones, written by crews
    unfinished: int = 0  # what was found of generations that were being written
    wrong: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def __str__(self) -> str:
        return (
            f"{self.cycles} cycles, {self.acknowledged} acknowledged, {self.lost} lost, "
            f"{self.phantom} phantom, {self.torn} torn, {self.ambiguous} ambiguous, "
            f"{self.in_flight} in flight, {self.generations} generations, "
            f"{self.unfinished} unfinished, {len(self.wrong)} wrong, {self.seconds:.0f} s"
        )


class Crew:
    """The processes of one cycle, in a group of their own, and what they say."""

    def __init__(self, pipe: Path) -> None:
        self.events: list[tuple[bool, list[Any]]] = []  # whether it was read after the cut
        self._cut = threading.Event()
        self._pipe = pipe
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def wait_for_acks(self, count: int, *, timeout_s: float = 30) -> None:
        deadline = time.monotonic() + timeout_s
        while sum(event[0] == "ack" for _, event in self.events) < count:
            assert time.monotonic() < deadline, f"the crew does not work: {self.events[-5:]}"
            time.sleep(0.002)

    def kill_rebuilder(self) -> None:
        for pid in self._pids("rebuilder"):
            os.kill(pid, signal.SIGKILL)

    def cut(self, power_off: Callable[[], None]) -> None:
        """Whatever is read from now on may have been said while the power was going."""
        self._cut.set()
        power_off()

    def kill(self) -> None:
        """Kill all of them and read what they had said."""
        for pid in self._pids("crew"):
            os.killpg(pid, signal.SIGKILL)
        with contextlib.suppress(OSError):  # should it never have begun, nobody else ends this wait
            os.close(os.open(self._pipe, os.O_WRONLY | os.O_NONBLOCK))
        self._reader.join()

    def _pids(self, kind: str) -> list[int]:
        return [event[1] for _, event in list(self.events) if event[0] == kind]

    def _read(self) -> None:
        rest = b""
        with self._pipe.open("rb", buffering=0) as pipe:
            while piece := pipe.read(65536):
                late = self._cut.is_set()
                *lines, rest = (rest + piece).split(b"\n")
                self.events += [(late, json.loads(line)) for line in lines]


class Expected:
    """What must be stored: the acknowledged, and of each thread some of what it tried since."""

    def __init__(self, stored: dict[str, int]) -> None:
        self.firm: dict[str, int | None] = dict(stored)
        self.open: dict[int, list[Changes]] = {}  # by thread, in order; not known to have happened
        self._seqs: dict[str, int] = {}
        self._tried: set[tuple[str, int | None]] = set(stored.items())  # ever

    def hear(self, events: list[tuple[bool, list[Any]]], figures: Figures) -> None:
        """Take in what a crew said."""
        for late, (kind, *said) in events:
            if kind == "try":
                self.open.setdefault(said[0], []).append(said[1])
                self._tried |= set(said[1].items())
            elif kind == "ack" and late:
                figures.ambiguous += 1
            elif kind == "ack":
                figures.acknowledged += 1
                self._acknowledged(self.open[said[0]].pop(), said[1])
            elif kind == "wrong":
                figures.wrong.append(said[0])
            elif kind == "failed" and not late:
                figures.wrong.append(f"refused: {said[0]}")
        figures.in_flight += sum(bool(changes) for changes in self.open.values())

    def compare(self, stored: dict[str, int], figures: Figures) -> None:
        """Count how ``stored`` differs, and expect just that from now on."""
        for item_id in {*self.firm, *stored, *(i for c in self._all_open() for i in c)}:
            there, firm = stored.get(item_id), self.firm.get(item_id)
            tried = [changes[item_id] for changes in self._all_open() if item_id in changes]
            if there == firm or there in tried:
                continue
            if there is not None and (item_id, there) not in self._tried:
                figures.phantom += 1
            else:
                figures.lost += 1
        for changes in self.open.values():
            figures.torn += not self._some_prefix(changes, stored)
        self.firm = dict(stored)
        self.open = {}

    def _acknowledged(self, changes: Changes, seqs: list[int]) -> None:
        for place, (item_id, version) in enumerate(changes.items()):
            seq = seqs[place] if seqs else 0
            if seq and seq < self._seqs.get(item_id, 0):
                continue  # another thread wrote this id later, and was heard sooner
            self._seqs[item_id] = seq
            self.firm[item_id] = version

    def _all_open(self) -> list[Changes]:
        return [changes for of_thread in self.open.values() for changes in of_thread]

    def _some_prefix(self, changes: list[Changes], stored: dict[str, int]) -> bool:
        """Whether the first few of these changes, all of each, explain what is stored."""
        ids = [i for one in changes for i in one if not i.startswith("s")]  # shared: by others too
        state = {item_id: self.firm.get(item_id) for item_id in ids}
        for one in [{}, *changes]:
            state |= {item_id: version for item_id, version in one.items() if item_id in state}
            if all(stored.get(item_id) == version for item_id, version in state.items()):
                return True
        return False


def create(folder: Path) -> dict[str, int]:
    """Make a gallery that is large enough for a graph, and return the version of every item."""
    versions = {f"i{n}": n for n in range(IDS) if n % 6}
    with Gallery.create(folder, model_name="fake", fingerprint="a1" * 32, width=WIDTH) as gallery:
        gallery.put([item_of(item_id, version) for item_id, version in versions.items()])
        gallery._store.set_setting(SETTING, json.dumps(GRAPH.to_json()))
    rebuild(folder)
    return versions


def rebuild(folder: Path) -> None:
    """Rebuild in this process, which is quicker than in one of its own."""
    store = Store.open(folder)
    try:
        for _ in range(100):
            with contextlib.suppress(BlockingIOError):  # a process of the crew is still dying
                compact(store, Generations.of(store), on_stage=lambda _: None)
                return
            time.sleep(0.02)
    finally:
        store.close()
    raise AssertionError("a dead crew keeps others from rebuilding")


def stored_versions(gallery: Gallery, figures: Figures) -> dict[str, int]:
    """Return the version of every stored item; count those that are of two versions."""
    sql = (
        "SELECT i.id, i.label, i.metadata, i.content_sha256, v.data, t.data FROM items i "
        "LEFT JOIN vectors v USING (key) LEFT JOIN thumbnails t USING (key)"
    )
    versions = {}
    with gallery._store.reading() as reader:
        for item_id, label, metadata, content, vector, thumbnail in reader.execute(sql):
            version = versions[item_id] = json.loads(metadata)["version"]
            item = item_of(item_id, version)
            figures.torn += (label, content, vector, thumbnail) != (
                item.label,
                item.content_sha256,
                item.vector_D.tobytes(),
                item.thumbnail.data,
            )
    return versions


def wrong_answers(gallery: Gallery, *, seed: int = 0) -> list[str]:
    """Hold searches against brute force over the vectors in the database."""
    with gallery._store.reading() as reader:
        rows = reader.execute("SELECT id, data FROM items JOIN vectors USING (key)").fetchall()
    ids = [row[0] for row in rows]
    vectors_ND = np.frombuffer(b"".join(row[1] for row in rows), "<f4").reshape(-1, WIDTH)
    queries_QD = unit_vectors(QUERIES, WIDTH, seed)
    queries_QD[: QUERIES // 2] = vectors_ND[-QUERIES // 2 :]  # the newest, and any
    scores_QN = queries_QD @ vectors_ND.T
    best_QK = np.sort(scores_QN, axis=1)[:, ::-1][:, :K]
    wrong = []
    for exact in (True, False):
        found = 0
        result = gallery.search(queries_QD, k=K, exact=exact)
        for query, hits in enumerate(result.hits):
            wrong += wrong_hits(queries_QD[query], hits, k=K)
            wrong += [f"{hit.id} is not stored" for hit in hits if hit.id not in ids]
            scores = np.array([hit.score for hit in hits])
            found += int((scores >= best_QK[query, -1] - 1e-5).sum())
            if exact and not np.allclose(scores, best_QK[query, : len(scores)], atol=1e-5):
                wrong.append("an exact search did not find the nearest")
        if found < LEAST_RECALL * best_QK.size:
            wrong.append(f"a search found {found} of the {best_QK.size} nearest")
    return wrong


def look(folder: Path, expected: Expected, figures: Figures) -> None:
    """Open what a crew left, and hold it against what it said."""
    snapshots = folder / "snapshots"
    figures.unfinished += len(list(snapshots.glob(".gen-*")))
    with Gallery.open(folder, fingerprint=None) as gallery:
        expected.compare(stored_versions(gallery, figures), figures)
        figures.wrong += gallery.verify()
        figures.wrong += wrong_answers(gallery, seed=figures.cycles)
        generation = gallery.info().generation
    if not generation:
        figures.wrong.append("no generation could be used, though a whole one was there")
    if figures.cycles % 3 == 0:
        rebuild(folder)
        left = sorted(path.name for path in snapshots.iterdir())
        if len(left) != 3 or left[0] != ".lock" or not left[2].endswith(f"{generation + 1:08}"):
            figures.wrong.append(f"a rebuild left {left} after generation {generation}")
        generation += 1
    figures.generations = generation
    names = {path.name for path in folder.iterdir()}
    if names != {"gallery.sqlite", "snapshots"}:
        figures.wrong.append(f"closing left {sorted(names)}")


class Crews:
    """The warmed-up process that forks them."""

    def __init__(self, place: Path) -> None:
        self._pipe = place / "events"
        os.mkfifo(self._pipe)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.crash_writer"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()  # its last line
        self._process.wait()

    @contextlib.contextmanager
    def at_work(self, folder: Path, **orders: Any) -> Iterator[Crew]:
        """Let a crew work on the gallery while the block runs, and kill it in the end."""
        crew = Crew(self._pipe)
        try:
            stdin = self._process.stdin
            assert stdin is not None
            stdin.write(Orders(folder=str(folder), events=str(self._pipe), **orders).line())
            stdin.flush()
            crew.wait_for_acks(1)
            yield crew
        finally:
            crew.kill()


def kill_crews(folder: Path, *, cycles: int, longest_s: float, **orders: Any) -> Figures:
    """Let crews work on a new gallery, each until it is killed, and look at what they leave.

    In turn: all processes at once; first the one that rebuilds, then the others; all at once;
    and a crew whose rebuilds are upkeep's own, and are killed one by one before all the others.
    """
    figures = Figures()
    rng = random.Random(cycles)
    started = time.monotonic()
    expected = Expected(create(folder))
    with Crews(folder.parent) as crews:
        for cycle in range(cycles):
            background = cycle % 4 == 3
            with crews.at_work(folder, cycle=cycle, background=background, **orders) as crew:
                time.sleep(rng.uniform(0, longest_s * (1 + background)))  # a cold start takes long
                if cycle % 4 == 1:
                    crew.kill_rebuilder()
                    time.sleep(rng.uniform(0, longest_s))
            expected.hear(crew.events, figures)
            figures.cycles += 1
            look(folder, expected, figures)
    figures.seconds = time.monotonic() - started
    return figures


def cut_power(place: Path, *, cycles: int, longest_s: float, **orders: Any) -> Figures:
    """As ``kill_crews``, on a disk whose power is cut before the crew is killed."""
    figures = Figures()
    rng = random.Random(cycles)
    started = time.monotonic()
    with loop_disk(place / "disk", megabytes=64) as disk, Crews(place) as crews:
        folder = disk.folder / "gallery"
        expected = Expected(create(folder))
        for cycle in range(cycles):
            with crews.at_work(folder, cycle=cycle, **orders) as crew:
                time.sleep(rng.uniform(0, longest_s))
                crew.cut(disk.cut_power)
                time.sleep(0.02)  # whoever is at work sees the disk fail
            disk.restart()
            expected.hear(crew.events, figures)
            figures.cycles += 1
            look(folder, expected, figures)
    figures.seconds = time.monotonic() - started
    return figures
