"""Remembered filters: the rows they let through are those of judging everything anew."""

import threading
from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from index.items.filter import Condition, Exists, Filter, IsNull, Key, Match, Range, parse_filter
from index.snapshot.filter_cache import SPARE, FilterCache, FilterMask
from index.snapshot.segments.delta_segment import DeltaSegment
from tests.support.fakes import unit_vectors
from tests.support.galleries.segments import base_of

VALUES: list[Any] = ["absent", None, 0, 1, 2, 2.5, True, False, "1", "a", ["a", 1], [True, "b"]]
CONDITIONS = [
    {"key": "v", "match": 1},
    {"key": "v", "match": True},
    {"key": "v", "match": False},
    {"key": "v", "match": [0, "a"]},
    {"key": "v", "match": "1"},
    {"key": "v", "range": {"gte": 1}},
    {"key": "v", "range": {"lt": "b"}},
    {"key": "v", "exists": True},
    {"key": "v", "exists": False},
    {"key": "v", "is_null": True},
    {"key": "v", "is_null": False},
]
ABSENT = "absent"


class World:
    """Items by key, and a judge that reads them; it counts how often it was asked."""

    def __init__(self) -> None:
        self.values: dict[int, Any] = {}
        self.last = 0
        self.asked: Counter[int] = Counter()  # by ``after``
        self.listed: list[int] = []  # ``after``, whenever all keys above it were wanted

    def put(self, value: Any) -> None:
        self.last += 1
        self.values[self.last] = value

    def evaluate(self, condition: Condition, /, *, after: int) -> NDArray[np.int64]:
        self.asked[after] += 1
        held = [
            key for key, value in self.values.items() if key > after and holds(condition, value)
        ]
        return np.array(held, np.int64)

    def keys(self, after: int) -> NDArray[np.int64]:
        self.listed.append(after)
        return np.array([key for key in self.values if key > after], np.int64)

    def passing(self, wanted: Filter) -> list[int]:
        return [key for key, value in self.values.items() if passes(wanted, value)]


def holds(condition: Condition, member: Any) -> bool:
    if isinstance(condition, Exists):
        return (member != ABSENT) == condition.wanted
    if member == ABSENT:
        return False
    if isinstance(condition, IsNull):
        return (member is None) == condition.wanted
    for value in member if isinstance(member, list) else [member]:
        if isinstance(condition, Match):
            if any(_kind(value) == _kind(one) and value == one for one in condition.values):
                return True
        elif _in_range(condition, value):
            return True
    return False


def passes(wanted: Filter, value: Any) -> bool:
    return (
        all(holds(condition, value) for condition in wanted.must)
        and (not wanted.should or any(holds(condition, value) for condition in wanted.should))
        and not any(holds(condition, value) for condition in wanted.must_not)
    )


def _kind(value: Any) -> str:
    if value is None or isinstance(value, bool | str):
        return type(value).__name__
    return "number"


def _in_range(condition: Range, value: Any) -> bool:
    compare = {"gte": "__ge__", "gt": "__gt__", "lte": "__le__", "lt": "__lt__"}
    return all(
        _kind(value) == _kind(bound)
        and getattr(value if isinstance(bound, str) else float(value), compare[name])(bound)
        for name, bound in condition.bounds
    )


def test_one_and_true_are_different_filters_although_python_calls_them_equal() -> None:
    world = World()
    for value in (1, True, 1, 0, False):
        world.put(value)
    cache = FilterCache(world.evaluate, newest=lambda: 0, stored=lambda: 10**6)

    def keys(value: object) -> list[int]:
        wanted = parse_filter({"must": [{"key": "v", "match": value}]})
        return cache.of(wanted, up_to=5, all_keys=world.keys).keys_S.tolist()

    assert keys(1) == [1, 3]
    assert keys(True) == [2]
    assert keys(1.0) == [1, 3]
    assert keys(0) == [4]
    assert keys(False) == [5]
    assert keys([1, False]) == [1, 3, 5]
    assert keys([True, 0]) == [2, 4]


@pytest.mark.parametrize("spare", [0, SPARE])
@settings(deadline=None)
@given(data=st.data())
def test_what_is_remembered_equals_judging_everything_anew(spare: int, data: st.DataObject) -> None:
    world = World()
    cache = FilterCache(
        world.evaluate, newest=lambda: 0, stored=lambda: len(world.values), spare=spare
    )
    condition = st.lists(st.sampled_from(CONDITIONS), max_size=2)
    lists = st.fixed_dictionaries(
        {}, optional=dict.fromkeys(["must", "should", "must_not"], condition)
    )
    filters = list(map(parse_filter, data.draw(st.lists(lists, min_size=1, max_size=4))))
    filters = [one for one in filters if one != Filter()] or [
        parse_filter({"must": CONDITIONS[:1]})
    ]
    for _ in range(data.draw(st.integers(1, 8))):
        for value in data.draw(st.lists(st.sampled_from(VALUES), max_size=5)):
            world.put(value)
        for key in data.draw(st.sets(st.integers(1, 40), max_size=3)):
            world.values.pop(key, None)

        for wanted in data.draw(st.lists(st.sampled_from(filters), max_size=4)):
            found = cache.of(wanted, up_to=world.last, all_keys=world.keys)

            live = [key for key in found.keys_S.tolist() if key in world.values]
            assert live == world.passing(wanted)
            assert (np.diff(found.keys_S) > 0).all()


def test_only_keys_that_came_since_are_judged() -> None:
    world = World()
    cache = FilterCache(world.evaluate, newest=lambda: 0, stored=lambda: 10**6)
    wanted = parse_filter({"must": [{"key": "v", "match": "a"}]})
    for up_to in (10, 10, 25, 25):
        while world.last < up_to:
            world.put("a")
        found = cache.of(wanted, up_to=up_to, all_keys=world.keys)
        assert found.keys_S.tolist() == list(range(1, up_to + 1))

    assert world.asked == {0: 1, 10: 1}


def test_a_filter_that_only_excludes_is_given_only_the_keys_that_came_since() -> None:
    world = World()
    cache = FilterCache(world.evaluate, newest=lambda: 0, stored=lambda: 10**6)
    wanted = parse_filter({"must_not": [{"key": "v", "match": "b"}]})
    for up_to in (10, 10, 11, 25, 25):
        while world.last < up_to:
            world.put("a")
        found = cache.of(wanted, up_to=up_to, all_keys=world.keys)
        assert found.keys_S.tolist() == list(range(1, up_to + 1))

    assert world.listed == [0, 10, 11]


def test_keys_that_are_gone_are_forgotten_in_time() -> None:
    world = World()
    cache = FilterCache(world.evaluate, newest=lambda: 0, stored=lambda: len(world.values))
    wanted = parse_filter({"must": [{"key": "v", "match": "a"}]})
    for _ in range(5 * SPARE):
        world.values.clear()  # one item, replaced again and again
        world.put("a")
        found = cache.of(wanted, up_to=world.last, all_keys=world.keys)

        assert found.keys_S[-1] == world.last
        assert len(found.keys_S) <= SPARE + 3


def test_keys_that_the_asker_does_not_know_yet_are_left_for_later() -> None:
    world = World()
    for _ in range(9):
        world.put("a")
    cache = FilterCache(world.evaluate, newest=lambda: 0, stored=lambda: 10**6)
    wanted = parse_filter({"must": [{"key": "v", "match": "a"}]})

    assert cache.of(wanted, up_to=4, all_keys=world.keys).keys_S.tolist() == [1, 2, 3, 4]
    assert len(cache.of(wanted, up_to=9, all_keys=world.keys).keys_S) == 9


def filter_of(number: int) -> Filter:
    return Filter(must=(Match(Key("v", column=False), (f"user {number}",)),))


def test_memory_stays_within_its_bound_and_the_longest_unused_goes_first() -> None:
    keys_S = np.arange(1, 1001)
    judged: Counter[Condition] = Counter()

    def evaluate(condition: Condition, /, *, after: int) -> NDArray[np.int64]:
        judged[condition] += 1
        return keys_S[keys_S > after]

    cache = FilterCache(evaluate, newest=lambda: 0, stored=lambda: 10**6, max_bytes=8 * 1000 * 10)

    def ask(number: int) -> None:
        cache.of(filter_of(number), up_to=1000, all_keys=lambda _: keys_S)

    for number in range(30):
        ask(number)
        ask(0)  # used all the time
    assert judged[filter_of(0).must[0]] == 1
    ask(29)
    ask(1)
    assert judged[filter_of(29).must[0]] == 1
    assert judged[filter_of(1).must[0]] == 2, "it was forgotten"
    assert sum(known.nbytes for known in cache._known.values()) <= 8 * 1000 * 10


def test_filters_that_let_next_to_nothing_through_are_not_remembered_without_end() -> None:
    nothing = np.empty(0, np.int64)
    cache = FilterCache(
        lambda _, /, *, after: nothing, newest=lambda: 0, stored=lambda: 10**6, max_filters=50
    )

    for number in range(400):
        cache.of(filter_of(number), up_to=1000, all_keys=lambda _: nothing)

    assert len(cache._known) <= 50


def test_a_judge_that_fails_leaves_nothing_wrong_behind() -> None:
    world = World()
    world.put("a")
    broken = True

    def evaluate(condition: Condition, /, *, after: int) -> NDArray[np.int64]:
        if broken:
            raise OSError("the disk is gone")
        return world.evaluate(condition, after=after)

    cache = FilterCache(evaluate, newest=lambda: 0, stored=lambda: 10**6)
    wanted = parse_filter({"must": [{"key": "v", "match": "a"}]})
    with pytest.raises(OSError, match="gone"):
        cache.of(wanted, up_to=1, all_keys=world.keys)

    broken = False
    assert cache.of(wanted, up_to=1, all_keys=world.keys).keys_S.tolist() == [1]


def test_rows_are_those_of_the_base_that_is_asked_about_and_of_the_table() -> None:
    vectors_ND = unit_vectors(6, 4, seed=0)
    one = base_of(vectors_ND, keys_N=np.array([5, 3, 9, 1, 7, 2]))
    other = base_of(vectors_ND[:3], keys_N=np.array([9, 20, 3]))
    table = DeltaSegment(4)
    table.apply(keys_N=np.array([21, 23, 25]), vectors_ND=vectors_ND[:3], removed=np.array([23]))
    mask = FilterMask(np.array([2, 3, 9, 20]), evaluated_to=20)

    assert mask.rows_in(one).tolist() == [1, 2, 5]
    assert mask.rows_in(other).tolist() == [0, 1, 2]
    assert mask.rows_of(table.view).tolist() == []
    more = mask.extended(np.array([21, 23]), evaluated_to=25, seq=0)
    assert more.rows_in(other).tolist() == [0, 1, 2]
    assert more.rows_in(one).tolist() == [1, 2, 5]
    assert more.rows_of(table.view).tolist() == [0]
    assert mask.keys_S.tolist() == [2, 3, 9, 20], "what somebody holds does not change"


def test_threads_at_different_moments_all_get_what_they_know() -> None:
    world = World()
    rng = np.random.default_rng(0)
    for number in range(2000):
        world.put(VALUES[int(rng.integers(len(VALUES)))])
        if number % 7 == 0:
            world.values.pop(number // 2, None)
    cache = FilterCache(world.evaluate, newest=lambda: 0, stored=lambda: 10**6)
    filters = [parse_filter({"must_not": [one]}) for one in CONDITIONS[:3]]
    passing = {repr(wanted): np.array(world.passing(wanted)) for wanted in filters}
    wrong: list[object] = []

    def ask(seed: int) -> None:
        rng = np.random.default_rng(seed)
        for _ in range(60):
            wanted = filters[int(rng.integers(3))]
            up_to = int(rng.integers(1, 2001))
            keys_S = cache.of(wanted, up_to=up_to, all_keys=world.keys).keys_S
            expected = passing[repr(wanted)]
            if keys_S[keys_S <= up_to].tolist() != expected[expected <= up_to].tolist():
                wrong.append((wanted, up_to))

    threads = [threading.Thread(target=ask, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
