"""Whether every id of a gallery behaves as one register, whoever reads and writes it at once.

Threads note when each call began and ended and what it said. A history is linearizable when every
call can be given one moment between its beginning and its end such that, at these moments in turn,
a plain variable would have said the same (Herlihy and Wing 1990). Linearizability is local: each id
is checked on its own, by the search of Wing and Gong (1993) with memory (Lowe 2017), walking
through the events in the order of time.
"""

import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from index.errors import UnknownIdError
from index.gallery import Gallery
from index.items.filter import parse_filter
from tests.support.fakes import new_item, unit_vectors
from tests.support.galleries.segments import SMALL, rebuilt, small_structures

WIDTH = 8
THREADS = 8
IDS = [f"moving{number}" for number in range(24)]
STILL = 240  # items that never change, so that there is something to build a structure over
MOVING = parse_filter({"must": [{"key": "label", "match": "moving"}]})

Value = int | None  # the version an id holds; None: there is no such item


@dataclass(frozen=True, slots=True)
class Call:
    """One call about one id: when it ran, and what it wrote or said."""

    began: int  # ns
    ended: int
    kind: Literal["put", "delete", "read"]
    value: Value = None  # written by a put, or read
    said: str | bool | None = (
        None  # by a put: created or replaced; by a delete: whether there was one
    )

    def after(self, value: Value) -> tuple[bool, Value]:
        """Return whether a register holding ``value`` would answer so, and what it holds then."""
        if self.kind == "put":
            return self.said == ("created" if value is None else "replaced"), self.value
        if self.kind == "delete":
            return self.said == (value is not None), None
        return self.value == value, value


State = tuple[frozenset[int], Value]  # pending calls that have happened already, and what is held


def is_linearizable(calls: Iterable[Call]) -> bool:
    """Whether the calls about one id can be put in an order that a register explains."""
    history = sorted(calls, key=lambda call: call.began)
    events = sorted(
        [(call.began, 1, number) for number, call in enumerate(history)]
        + [(call.ended, 0, number) for number, call in enumerate(history)]
    )  # at one moment the ends come first: less is concurrent, so less is excused
    states: set[State] = {(frozenset(), None)}
    pending: set[int] = set()
    for _, begins, number in events:
        if begins:
            pending.add(number)
            continue
        states = {
            (happened - {number}, value)
            for happened, value in _reachable(states, pending, history)
            if number in happened
        }
        pending.remove(number)
        if not states:
            return False
    return True


def _reachable(states: set[State], pending: set[int], history: list[Call]) -> set[State]:
    """Return every state that ``states`` lead to when some of the pending calls happen."""
    seen = set(states)
    todo = list(states)
    while todo:
        happened, value = todo.pop()
        for number in pending - happened:
            fits, then = history[number].after(value)
            state = (happened | {number}, then)
            if fits and state not in seen:
                seen.add(state)
                todo.append(state)
    return seen


def put(began: int, ended: int, value: int, said: str = "created") -> Call:
    return Call(began, ended, "put", value, said)


def delete(began: int, ended: int, said: bool = True) -> Call:
    return Call(began, ended, "delete", None, said)


def read(began: int, ended: int, value: Value) -> Call:
    return Call(began, ended, "read", value)


@pytest.mark.parametrize(
    "calls",
    [
        [],
        [read(1, 2, None), put(3, 4, 7), read(5, 6, 7)],
        [put(1, 9, 7), read(2, 3, None), read(4, 5, 7)],  # during the put, either
        [put(1, 9, 7), delete(2, 8), read(10, 11, None)],  # put, then delete
        [put(1, 2, 7), put(3, 9, 8, "replaced"), read(4, 5, 8), read(6, 7, 8)],
        [put(1, 9, 7, "replaced"), put(2, 8, 8), read(10, 11, 7)],
        [put(1, 2, 7), delete(3, 9), delete(4, 8, said=False)],
    ],
)
def test_histories_that_a_register_explains_are_accepted(calls: list[Call]) -> None:
    assert is_linearizable(calls)


@pytest.mark.parametrize(
    "calls",
    [
        [put(1, 2, 7), read(3, 4, None)],  # acknowledged, not found
        [put(1, 2, 7), delete(3, 4), read(5, 6, 7)],  # a deleted item is found
        [put(1, 2, 7), put(3, 4, 8, "replaced"), read(5, 6, 7)],  # stale
        [read(1, 2, 7), put(3, 4, 7)],  # from the future
        [put(1, 9, 7), read(2, 3, 7), read(4, 5, None)],  # seen, then not
        [put(1, 2, 7), delete(3, 4), delete(5, 6)],  # deleted twice
        [put(1, 2, 7), put(3, 4, 8, "created")],  # created over something
        [put(1, 2, 7, "replaced")],  # replaced nothing
        [delete(1, 2, said=True)],
        [put(1, 2, 7), delete(3, 4, said=False)],
        [put(1, 9, 7), put(2, 8, 8, "replaced"), read(10, 11, 7)],  # the order the puts told
    ],
)
def test_histories_that_no_register_explains_are_refused(calls: list[Call]) -> None:
    assert not is_linearizable(calls)


@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_a_register_that_is_used_at_random_is_accepted_and_one_changed_read_is_refused(
    data: st.DataObject,
) -> None:
    value: Value = None
    calls: list[Call] = []
    for number in range(data.draw(st.integers(2, 25))):  # each happens at the moment 10 * number
        early, late = data.draw(st.integers(0, 40)), data.draw(st.integers(0, 40))
        span = (10 * number - early, 10 * number + late + 1)
        kind = data.draw(st.sampled_from(["put", "delete", "read"]))
        if kind == "put":
            calls.append(put(*span, number, "created" if value is None else "replaced"))
            value = number
        elif kind == "delete":
            calls.append(delete(*span, said=value is not None))
            value = None
        else:
            calls.append(read(*span, value))
    assert is_linearizable(calls)

    place = data.draw(st.integers(0, len(calls) - 1))
    assert not is_linearizable(
        [*calls[:place], read(10 * place, 10 * place + 1, 999), *calls[place:]]
    )


class Recorder:
    """Uses a gallery from one thread and notes every call by the id that it was about."""

    def __init__(self, galleries: list[Gallery], number: int) -> None:
        self.galleries = galleries
        self.number = number
        self.calls: dict[str, list[Call]] = defaultdict(list)
        self.kinds: Counter[str] = Counter()
        self._rng = np.random.default_rng(number)
        self._version = number  # unique: every thread counts on in steps of the number of threads

    def run(self, operations: int) -> None:
        kinds = ["put", "delete", "get", "near", "all"]
        for _ in range(operations):
            kind = str(self._rng.choice(kinds, p=[0.3, 0.15, 0.3, 0.15, 0.1]))
            gallery = self.galleries[int(self._rng.integers(len(self.galleries)))]
            item_id = IDS[int(self._rng.integers(len(IDS)))]
            getattr(self, kind)(gallery, item_id)
            self.kinds[kind] += 1

    def put(self, gallery: Gallery, item_id: str) -> None:
        self._version += THREADS
        version = self._version
        item = new_item(item_id, seed=version, label="moving", metadata={"version": version})
        began = time.perf_counter_ns()
        (result,) = gallery.put([item])
        self._note(item_id, Call(began, time.perf_counter_ns(), "put", version, result.outcome))

    def delete(self, gallery: Gallery, item_id: str) -> None:
        began = time.perf_counter_ns()
        (deleted,) = gallery.delete([item_id])
        self._note(item_id, Call(began, time.perf_counter_ns(), "delete", None, deleted))

    def get(self, gallery: Gallery, item_id: str) -> None:
        began = time.perf_counter_ns()
        try:
            value = gallery.get(item_id).metadata["version"]
        except UnknownIdError:
            value = None
        self._note(item_id, Call(began, time.perf_counter_ns(), "read", value))

    def near(self, gallery: Gallery, item_id: str) -> None:
        """Search among everything: what is found is there, and what is not may be farther."""
        query = unit_vectors(1, WIDTH, seed=self._version)
        began = time.perf_counter_ns()
        gallery.catch_up()  # what the other one wrote may else go unseen for a millisecond
        (hits,) = gallery.search(query, k=10).hits
        ended = time.perf_counter_ns()
        assert len(hits) == 10, "fewer than k although k exist"
        for hit in hits:
            if hit.label == "moving":
                version = hit.metadata["version"]
                expected = float(unit_vectors(1, WIDTH, seed=version)[0] @ query[0])
                assert abs(hit.score - expected) < 1e-5, "another vector's score"
                self._note(hit.id, Call(began, ended, "read", version))

    def all(self, gallery: Gallery, item_id: str) -> None:
        """Search for all moving items: of each id this tells what it holds, or that it is gone."""
        began = time.perf_counter_ns()
        gallery.catch_up()
        (hits,) = gallery.search(unit_vectors(1, WIDTH, seed=1), k=100, filter=MOVING).hits
        ended = time.perf_counter_ns()
        found = {hit.id: hit.metadata["version"] for hit in hits}
        assert len(found) == len(hits), "one id twice"
        for one in IDS:
            self._note(one, Call(began, ended, "read", found.get(one)))

    def _note(self, item_id: str, call: Call) -> None:
        self.calls[item_id].append(call)


def recorded(folder: Path, *, operations: int) -> tuple[dict[str, list[Call]], Counter[str]]:
    """Return the calls about each id that threads made while structures came and went."""
    ours = Gallery.create(
        folder, model_name="fake", fingerprint="a1" * 32, width=WIDTH, policy=SMALL
    )
    ours.put([new_item(f"still{n}", seed=10**9 + n) for n in range(STILL)])
    theirs = Gallery.open(folder, fingerprint=None, policy=SMALL)  # as another process would
    recorders = [Recorder([ours, theirs], number) for number in range(1, THREADS + 1)]
    raised: list[Exception] = []
    kinds: Counter[str] = Counter()
    done = threading.Event()

    def guarded(work: Callable[[], None]) -> None:
        try:
            work()
        except Exception as error:
            raised.append(error)

    def rebuild() -> None:
        while not done.is_set():
            kinds[f"rebuilt {rebuilt(folder).spec.kind}"] += 1
            kinds["taken over"] += ours.adopt_newest_generation() + theirs.adopt_newest_generation()
            done.wait(0.1)

    def work(recorder: Recorder) -> Callable[[], None]:
        return lambda: recorder.run(operations // THREADS)

    works = [work(recorder) for recorder in recorders]
    threads = [threading.Thread(target=guarded, args=(one,)) for one in works]
    builder = threading.Thread(target=guarded, args=(rebuild,))
    for thread in [*threads, builder]:
        thread.start()
    for thread in threads:
        thread.join()
    done.set()
    builder.join()

    assert raised == []
    assert ours.verify() == theirs.verify() == []
    ours.close()
    theirs.close()
    calls: dict[str, list[Call]] = defaultdict(list)
    for recorder in recorders:
        kinds += recorder.kinds
        for item_id, some in recorder.calls.items():
            calls[item_id] += some
    return calls, kinds


def check(folder: Path, *, operations: int) -> None:
    calls, kinds = recorded(folder, operations=operations)
    started = time.perf_counter()
    print(dict(kinds), sum(map(len, calls.values())), "calls about ids")  # noqa: T201

    assert [item_id for item_id in IDS if not is_linearizable(calls[item_id])] == []

    print(f"checked in {time.perf_counter() - started:.1f} s")  # noqa: T201
    assert kinds["rebuilt graph"] + kinds["rebuilt quantized"] > 1
    assert kinds["taken over"] > 1
    # Negative control: this very history, with one answer that was wrong, is refused.
    history = calls[IDS[0]]
    for name, violation in _violations(history).items():
        assert not is_linearizable(violation), f"{name} went unnoticed"


def _violations(history: list[Call]) -> dict[str, list[Call]]:
    """Return the history with one fault each, as faults of a gallery would show."""
    puts = [call for call in history if call.kind == "put"]
    deletes = [call for call in history if call.kind == "delete" and call.said is True]
    reads = [call for call in history if call.kind == "read" and call.value is not None]
    last = max(call.ended for call in history)
    first = min(call.began for call in history)
    seen = {call.value for call in reads}
    puts = [call for call in puts if call.value in seen]
    some_put, some_delete, some_read = (calls[len(calls) // 2] for calls in (puts, deletes, reads))

    def instead(old: Call, new: Call) -> list[Call]:
        return [new if call is old else call for call in history]

    return {
        "a write that was lost": [call for call in history if call is not some_put],
        "a delete that did nothing": [call for call in history if call is not some_delete],
        "a stale read at the end": [*history, read(last + 1, last + 2, puts[0].value)],
        "a read before the write": [*history, read(first - 2, first - 1, puts[0].value)],
        "a read of what nobody wrote": instead(some_read, replace(some_read, value=-1)),
        "an outcome that was told wrong": instead(
            some_put,
            replace(some_put, said="created" if some_put.said == "replaced" else "replaced"),
        ),
        "a delete that was told wrong": instead(some_delete, replace(some_delete, said=False)),
    }


@pytest.fixture(autouse=True)
def _small_structures(monkeypatch: pytest.MonkeyPatch) -> None:
    small_structures(monkeypatch)


def test_every_id_is_a_register_while_structures_are_rebuilt_and_taken_over(tmp_path: Path) -> None:
    check(tmp_path / "g", operations=4_800)


@pytest.mark.durability
def test_every_id_is_a_register_over_a_hundred_thousand_operations(tmp_path: Path) -> None:
    check(tmp_path / "g", operations=100_000)
