"""Kills workers at work, and holds what is left against everything they said."""

import contextlib
import json
import random
import shutil
import time
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import numpy as np

from index.gallery import Gallery
from index.maintenance.compaction import SETTING, TARGET, TunedSpec, compact
from index.search.index_spec import IndexSpec
from index.snapshot.segments.generations import Generations
from index.store.store import Store
from tests.support.crashes.crash_oracle import CrashCounts, Precondition
from tests.support.crashes.crash_worker_main import IDS, WIDTH, item_of, wrong_hits
from tests.support.crashes.crash_workers import CrashWorkers
from tests.support.fakes import unit_vectors
from tests.support.faults.loop_filesystems import loop_disk

GRAPH: Final = IndexSpec(kind="graph", factory="HNSW8_SQ8", construction=40, k_factor=4)
QUERIES: Final = 20
K: Final = 10
LEAST_RECALL: Final = 0.9  # of the hits, over all queries of one look


def kill_workers(folder: Path, *, cycles: int, longest_s: float, **orders: Any) -> CrashCounts:
    """Let workers work on a new gallery, each until it is killed, and look at what they leave.

    In turn: all processes at once; first the one that rebuilds, then the others; all at once;
    and a group whose gallery rebuilds by itself: those are killed one by one before all the others.
    """
    counts = CrashCounts()
    rng = random.Random(cycles)
    started = time.monotonic()
    expected = Precondition(create(folder))
    begun = time.monotonic()
    rebuild(folder)
    longest_s = max(longest_s, 2 * (time.monotonic() - begun))  # some rebuilds shall come to an end
    with CrashWorkers(folder.parent) as workers:
        for cycle in range(cycles):
            background = cycle % 4 == 3
            with workers.at_work(folder, cycle=cycle, background=background, **orders) as group:
                time.sleep(rng.uniform(0, longest_s * (1 + background)))  # a cold start takes long
                if cycle % 4 == 1:
                    group.kill_rebuilder()
                    time.sleep(rng.uniform(0, longest_s))
            expected.hear(group.events, counts)
            counts.cycles += 1
            look(folder, expected, counts)
    counts.seconds = time.monotonic() - started
    return counts


def cut_power(place: Path, *, cycles: int, longest_s: float, **orders: Any) -> CrashCounts:
    """As ``kill_workers``, on a disk whose power is cut before the group is killed."""
    counts = CrashCounts()
    rng = random.Random(cycles)
    started = time.monotonic()
    with loop_disk(place / "disk", megabytes=64) as disk, CrashWorkers(place) as workers:
        folder = disk.folder / "gallery"
        expected = Precondition(create(folder))
        for cycle in range(cycles):
            with workers.at_work(folder, cycle=cycle, **orders) as group:
                time.sleep(rng.uniform(0, longest_s))
                group.cut(disk.cut_power)
                time.sleep(0.02)  # whoever is at work sees the disk fail
            disk.restart()
            expected.hear(group.events, counts)
            counts.cycles += 1
            look(folder, expected, counts)
    counts.seconds = time.monotonic() - started
    return counts


def create(folder: Path) -> dict[str, int]:
    """Make a gallery that is large enough for a graph, and return the version of every item."""
    versions = {f"i{n}": n for n in range(IDS) if n % 6}
    with Gallery.create(folder, model_name="fake", fingerprint="a1" * 32, width=WIDTH) as gallery:
        gallery.put([item_of(item_id, version) for item_id, version in versions.items()])
        gallery._store.set_setting(SETTING, TunedSpec(GRAPH, len(versions)).to_json())
        gallery._store.set_setting(TARGET, "0.95")  # as much as so few items can show
    rebuild(folder)
    return versions


@cache
def _created() -> TemporaryDirectory[str]:
    place = TemporaryDirectory()  # until this process ends
    create(Path(place.name) / "g")
    return place


def lay_out(folder: Path) -> None:
    """Write what ``create`` makes, but do not wait for the disk."""
    shutil.copytree(Path(_created().name) / "g", folder)


def rebuild(folder: Path) -> None:
    """Rebuild in this process, which is quicker than in one of its own."""
    store = Store.open(folder)
    try:
        for _ in range(100):
            with contextlib.suppress(BlockingIOError):  # a process of the group is still dying
                compact(store, Generations.of(store), on_stage=lambda _: None)
                return
            time.sleep(0.02)
    finally:
        store.close()
    raise AssertionError("a dead group keeps others from rebuilding")


def stored_versions(gallery: Gallery, counts: CrashCounts) -> dict[str, int]:
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
            counts.torn += (label, content, vector, thumbnail) != (
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


def look(folder: Path, expected: Precondition, counts: CrashCounts) -> None:
    """Open what a group left, and hold it against what it said."""
    snapshots = folder / "snapshots"
    counts.unfinished += len(list(snapshots.glob(".gen-*")))
    with Gallery.open(folder, fingerprint=None) as gallery:
        expected.compare(stored_versions(gallery, counts), counts)
        counts.wrong += gallery.verify()
        counts.wrong += wrong_answers(gallery, seed=counts.cycles)
        generation = gallery.info().generation
    if not generation:
        counts.wrong.append("no generation could be used, though a whole one was there")
    counts.generations += max(0, generation - counts.newest)
    counts.newest = generation
    if counts.cycles % 3 == 0:
        rebuild(folder)
        left = sorted(path.name for path in snapshots.iterdir())
        if len(left) != 3 or left[0] != ".lock" or not left[2].endswith(f"{generation + 1:08}"):
            counts.wrong.append(f"a rebuild left {left} after generation {generation}")
        counts.newest += 1
    names = {path.name for path in folder.iterdir()}
    if names != {"gallery.sqlite", "snapshots"}:
        counts.wrong.append(f"closing left {sorted(names)}")
