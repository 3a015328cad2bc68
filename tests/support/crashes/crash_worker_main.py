"""Groups of processes that work on one gallery until they are killed, and tell what they do.

``python -m tests.support.crashes.crash_worker_main`` imports everything, which takes longest, and
then forks a group for
every line of JSON that it reads: orders. A group writes to a pipe one line of JSON per event:

- ``["group", pid]`` of its first process, which leads a process group of the whole group;
- ``["rebuilder", pid]`` of the process that rebuilds in a loop;
- ``["try", thread, changes]`` before a call, changes being {id: version, or null for a delete};
- ``["ack", thread, seqs]`` after the call returned, with the seq of every put;
- ``["wrong", sentence]`` when a search was answered wrongly;
- ``["failed", sentence]`` when a call raised: after a power cut nothing can be written any more.

What an item holds is decided by its version alone, so that an item of two versions can be told.
"""

import json
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Final, Literal, Self

import numpy as np
from numpy.typing import NDArray

import index.maintenance.compaction
import index.maintenance.rebuild_process
import index.store.sqlite.database
from index.errors import VectorIndexError
from index.gallery import Gallery
from index.items.item import Hit, NewItem
from index.search.policy import SearchPolicy
from tests.support.fakes import new_item, unit_vectors

WIDTH: Final = 8
IDS: Final = 1_400  # about five in six of them are stored at any moment: enough for a graph
SHARED: Final = 4  # ids that all threads write
VERSIONS: Final = 1_000_000  # per thread

# A small gallery, and a fraction of a second, for what takes many rows and minutes.
HURRIED: Final = SearchPolicy(
    check_period_s=0.02,
    busy_retry_s=0.02,
    failure_retry_s=0.02,
    pending_rows=20,
    pending_share=0.0,
    tombstone_share=0.0,
)

Mode = Literal["honest", "acknowledges first", "syncs now and then"]
Changes = dict[str, int | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Orders:
    """What a group does."""

    folder: str
    events: str  # a named pipe
    cycle: int  # decides everything that is random, and the versions
    mode: Mode = "honest"
    threads: int = 3
    background: bool = False  # rebuilds come from the gallery's own upkeep, not from a loop

    @classmethod
    def read(cls, line: str) -> Self:
        return cls(**json.loads(line))

    def line(self) -> str:
        return json.dumps(asdict(self)) + "\n"

    def first_version(self, thread: int) -> int:
        return (1 + self.cycle * self.threads + thread) * VERSIONS


def item_of(item_id: str, version: int) -> NewItem:
    """Return the item as it is in this version: label, metadata, vector and thumbnail."""
    return new_item(
        item_id, seed=version, label=f"l{version % 7}", metadata={"version": version}, width=WIDTH
    )


def own_ids(thread: int, threads: int) -> list[str]:
    """Return the ids that only this thread writes."""
    return [f"i{n}" for n in range(thread, IDS, threads)]


def main() -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the workers
    index.maintenance.rebuild_process.NICENESS = 0
    for line in sys.stdin:
        if os.fork() == 0:
            _lead(Orders.read(line))


def _lead(orders: Orders) -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.setsid()
    os.dup2(os.open(orders.events, os.O_WRONLY), 1)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    _tell("group", os.getpid())
    if orders.mode == "syncs now and then":
        index.store.sqlite.database.SYNC_FULL = 1
    if os.fork() == 0:
        _run(lambda: _follow(orders))
    if not orders.background:
        rebuilder = os.fork()
        if rebuilder == 0:
            _run(lambda: _rebuild(orders))
        _tell("rebuilder", rebuilder)
    _run(lambda: _write(orders))


def _write(orders: Orders) -> None:
    gallery = Gallery.open(Path(orders.folder), fingerprint=None, policy=HURRIED)
    gallery.start_maintenance()
    if orders.background:
        threading.Thread(target=_murder, args=(gallery, random.Random(orders.cycle))).start()
    threads = [
        threading.Thread(target=_run, args=(lambda thread=thread: _work(gallery, orders, thread),))
        for thread in range(orders.threads)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _work(gallery: Gallery, orders: Orders, thread: int) -> None:
    rng = random.Random(orders.cycle * 100 + thread)
    ids = own_ids(thread, orders.threads)
    version = orders.first_version(thread)
    while True:
        version += 10
        dice = rng.random()
        changes: Changes
        if dice < 0.25:
            changes = {rng.choice(ids): None}
        elif dice < 0.4:
            changes = {name: version + place for place, name in enumerate(rng.sample(ids, 5))}
        elif dice < 0.5:
            changes = {f"s{rng.randrange(SHARED)}": version}
        else:
            changes = {rng.choice(ids): version}
        _tell("try", thread, changes)
        if orders.mode == "acknowledges first":
            _tell("ack", thread, [0] * len(changes))
            _change(gallery, changes)
        else:
            _tell("ack", thread, _change(gallery, changes))


def _change(gallery: Gallery, changes: Changes) -> list[int]:
    """Make one call and return the seq of every put."""
    deletes = [item_id for item_id, version in changes.items() if version is None]
    if deletes:
        gallery.delete(deletes)
        return []
    items = [item_of(name, version) for name, version in changes.items() if version is not None]
    return [result.seq for result in gallery.put(items)]


def _murder(gallery: Gallery, rng: random.Random) -> None:
    """Now and then kill the process that rebuilds, and only that."""
    while True:
        time.sleep(rng.uniform(0.1, 1.0))
        for running in list(gallery._maintenance._running):
            if running._process is not None:
                running._process.kill()


def _rebuild(orders: Orders) -> None:
    """Rebuild again and again, as the process would that upkeep starts; but it is warm."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    sys.argv = ["index.maintenance.rebuild_process", orders.folder, "{}", str(os.getppid())]
    while True:
        index.maintenance.rebuild_process.main()
        time.sleep(0.01)


def _follow(orders: Orders) -> None:
    """Search in a process that writes nothing, and look at every answer."""
    gallery = Gallery.open(Path(orders.folder), fingerprint=None)
    gallery.adopt_newest_generation()
    seq, number = 0, 0
    while True:
        number += 1
        queries = unit_vectors(2, WIDTH, number)
        result = gallery.search(queries, k=10, exact=number % 3 == 0)
        if result.seq < seq:
            _tell("wrong", f"a search saw operation {result.seq} after one had seen {seq}")
        seq = result.seq
        for query_D, hits in zip(queries, result.hits, strict=True):
            for sentence in wrong_hits(query_D, hits, k=10):
                _tell("wrong", sentence)
        if number % 5 == 0:
            gallery.adopt_newest_generation()
        time.sleep(0.005)


def wrong_hits(query_D: NDArray[np.float32], hits: Sequence[Hit], *, k: int) -> list[str]:
    """Return what is wrong with the answer to one query, whatever is stored."""
    wrong = [f"{len(hits)} hits, not {k}"] if len(hits) != k else []
    if len({hit.id for hit in hits}) < len(hits):
        wrong.append("one id twice")
    if any(one.score < next_one.score for one, next_one in pairwise(hits)):
        wrong.append("the best is not first")
    for hit in hits:
        item = item_of(hit.id, hit.metadata["version"])
        if item.label != hit.label:
            wrong.append(f"{hit.id} has the label of another version")
        if abs(float(item.vector_D @ query_D) - hit.score) > 1e-5:
            wrong.append(f"{hit.id} has the score of another version")
    return wrong


def _run(work: Callable[[], None]) -> None:
    """Work until killed, or until the gallery refuses."""
    try:
        work()
    except VectorIndexError as error:
        _tell("failed", str(error))
    except BrokenPipeError:
        pass
    except BaseException as error:
        _tell("wrong", f"{type(error).__name__}: {error}")
    while True:  # as a server would: it is still there
        time.sleep(1)


def _tell(*event: object) -> None:
    os.write(1, json.dumps(event).encode() + b"\n")  # one write: lines never mix


if __name__ == "__main__":
    main()
