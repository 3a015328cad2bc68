"""Exact search over rows in memory, against sorting every cosine."""

import threading
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from index.errors import BadVectorsError
from index.search.exact import nearest, range_search
from index.search.hits import Hits
from index.snapshot.segments.delta_segment import MIN_TOMBSTONES, DeltaSegment
from index.snapshot.segments.immutable_segment import ImmutableSegmentView
from tests.support.fakes import unit_vectors
from tests.support.galleries.segments import base_of


def keys_of(*keys: int) -> np.ndarray:
    return np.array(keys, np.int64)


def filled(vectors: np.ndarray) -> DeltaSegment:
    index = DeltaSegment(vectors.shape[1])
    index.apply(keys_N=np.arange(1, len(vectors) + 1), vectors_ND=vectors)
    return index


def search(
    table: DeltaSegment, queries: np.ndarray, *, k: int, allowed: np.ndarray | None = None
) -> list[Hits]:
    among = None if allowed is None else table.view.rows_of(np.unique(allowed))
    return nearest(table.view, queries, k=k, among=among)


def sorted_by_cosine(vectors: dict[int, np.ndarray], query: np.ndarray, k: int) -> list[int]:
    """The slow twin: every cosine, sorted; ties by the smaller key."""
    scores = {
        key: np.float32(np.clip((vector.astype(np.float64) * query).sum(), -1, 1))
        for key, vector in vectors.items()
    }
    return sorted(scores, key=lambda key: (-scores[key], key))[:k]


@settings(deadline=None, max_examples=80)
@given(data=st.data())
def test_search_agrees_with_sorting_every_cosine(data: st.DataObject) -> None:
    count = data.draw(st.integers(1, 60))
    width = data.draw(st.integers(1, 12))
    seed = data.draw(st.integers(0, 2**32 - 1))
    pool = unit_vectors(data.draw(st.integers(1, count)), width, seed)  # few: many exact ties
    vectors = pool[np.random.default_rng(seed).integers(0, len(pool), count)]
    index = filled(vectors)
    removed = data.draw(st.sets(st.integers(1, count + 2)))
    index.apply(keys_N=keys_of(), vectors_ND=vectors[:0], removed=keys_of(*removed))
    allowed = data.draw(st.none() | st.sets(st.integers(-1, count + 2)))
    k = data.draw(st.integers(1, count + 5))
    queries = unit_vectors(data.draw(st.sampled_from([1, 3, 25])), width, seed + 1)

    found = search(index, queries, k=k, allowed=None if allowed is None else keys_of(*allowed))

    live = {key: vectors[key - 1] for key in range(1, count + 1) if key not in removed}
    if allowed is not None:
        live = {key: vector for key, vector in live.items() if key in allowed}
    for query, (keys, scores) in zip(queries, found, strict=True):
        assert keys.tolist() == sorted_by_cosine(live, query, k)
        np.testing.assert_allclose(scores, [live[key] @ query for key in keys], atol=1e-5)


def test_equal_vectors_come_oldest_first_however_many_there_are() -> None:
    one = unit_vectors(1, 16, seed=3)
    index = filled(np.repeat(one, 3000, axis=0))

    ((keys, scores),) = search(index, one, k=5)

    assert keys.tolist() == [1, 2, 3, 4, 5]
    assert len(set(scores.tolist())) == 1


def test_nearly_equal_vectors_come_in_the_order_of_their_true_cosines() -> None:
    noise = np.random.default_rng(0).normal(scale=3e-7, size=(3000, 64))
    vectors = (unit_vectors(1, 64, seed=3) + noise).astype(np.float32)  # apart by FAISS's rounding
    query = unit_vectors(1, 64, seed=4)

    ((keys, _),) = search(filled(vectors), query, k=20)

    assert keys.tolist() == sorted_by_cosine(dict(enumerate(vectors, 1)), query[0], 20)


def test_a_score_does_not_depend_on_the_batch_or_on_k() -> None:
    index = filled(unit_vectors(500, 33, seed=0))
    queries = unit_vectors(64, 33, seed=1)

    together = search(index, queries, k=20)

    for query, (keys, scores) in zip(queries, together, strict=True):
        ((alone, alone_scores),) = search(index, query[np.newaxis], k=7)
        assert keys[:7].tolist() == alone.tolist()
        assert scores[:7].tolist() == alone_scores.tolist()


def test_a_filtered_search_over_more_rows_than_a_block_agrees_with_an_unfiltered_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("index.search.exact.BLOCK_NUMBERS", 64 * 8)
    index = filled(unit_vectors(500, 8, seed=0))
    queries = unit_vectors(9, 8, seed=1)

    all_keys = search(index, queries, k=90, allowed=np.arange(1, 501))

    for (keys, scores), (same, same_scores) in zip(
        all_keys, search(index, queries, k=90), strict=True
    ):
        assert keys.tolist() == same.tolist()
        assert scores.tolist() == same_scores.tolist()


def test_an_empty_index_and_an_index_with_everything_deleted_find_nothing() -> None:
    index = DeltaSegment(width=3)
    queries = unit_vectors(2, 3, seed=0)
    assert [keys.tolist() for keys, _ in search(index, queries, k=5)] == [[], []]

    index.apply(keys_N=keys_of(4), vectors_ND=queries[:1])
    index.apply(keys_N=keys_of(), vectors_ND=queries[:0], removed=keys_of(4))

    assert [keys.tolist() for keys, _ in search(index, queries, k=5)] == [[], []]
    assert len(index) == 0


def test_no_queries_give_no_answers() -> None:
    assert search(filled(unit_vectors(2, 3, seed=0)), np.empty((0, 3), np.float32), k=1) == []


def test_deleted_rows_are_swept_out_and_the_others_stay_findable() -> None:
    vectors = unit_vectors(1000, 4, seed=0)
    index = filled(vectors)

    for key in range(1, 2 * MIN_TOMBSTONES):
        index.apply(keys_N=keys_of(), vectors_ND=vectors[:0], removed=keys_of(key))

    assert len(index.view.keys_N) < 1000
    assert len(index) == 1001 - 2 * MIN_TOMBSTONES
    ((keys, _),) = search(index, vectors[-1:], k=2000)
    assert sorted(keys.tolist()) == list(range(2 * MIN_TOMBSTONES, 1001))


def test_a_view_taken_earlier_does_not_change() -> None:
    vectors = unit_vectors(300, 4, seed=0)
    index = filled(vectors[:200])
    view = index.view

    index.apply(keys_N=np.arange(201, 301), vectors_ND=vectors[200:], removed=np.arange(1, 190))

    assert view.keys_N.tolist() == list(range(1, 201))
    np.testing.assert_array_equal(view.vectors_ND, vectors[:200])
    assert view.live_count == 200


@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_above_finds_exactly_the_rows_that_score_enough(data: st.DataObject) -> None:
    count = data.draw(st.integers(1, 60))
    seed = data.draw(st.integers(0, 2**32 - 1))
    vectors = unit_vectors(count, 4, seed)
    index = filled(vectors)
    removed = data.draw(st.sets(st.integers(1, count)))
    index.apply(keys_N=keys_of(), vectors_ND=vectors[:0], removed=keys_of(*sorted(removed)))
    query = vectors[0] if data.draw(st.booleans()) else unit_vectors(1, 4, seed + 1)[0]
    least = data.draw(st.sampled_from([-1.0, 0.0, 0.5, 0.99, 1.0]))
    limit = data.draw(st.none() | st.integers(1, 70))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "index.search.exact.BLOCK_NUMBERS", 4 * data.draw(st.sampled_from([1, 7, 1000]))
        )
        (keys, scores), total = range_search(index.view, query, min_score=least)
        (first, first_scores), same_total = range_search(
            index.view, query, min_score=least, limit=limit
        )

    assert total == same_total == len(keys)
    assert first.tolist() == keys[:limit].tolist()
    assert first_scores.tolist() == scores[:limit].tolist()
    live = {key: vectors[key - 1] for key in range(1, count + 1) if key not in removed}
    all_keys = sorted_by_cosine(live, query, count)
    assert keys.tolist() == all_keys[: len(keys)]
    assert (scores >= np.float32(least)).all()
    assert all(live[key] @ query < least + 1e-5 for key in all_keys[len(keys) :])


@pytest.mark.parametrize("limit", [1, 10, 1000])
@pytest.mark.parametrize("distinct", [1, 3, 5000])
def test_the_first_of_many_that_score_enough_are_those_of_all_ties_by_key(
    limit: int, distinct: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("index.search.exact.BLOCK_NUMBERS", 700 * 16)
    index = filled(np.resize(unit_vectors(distinct, 16, seed=0), (5000, 16)))
    index.apply(keys_N=keys_of(), vectors_ND=np.empty((0, 16), np.float32), removed=keys_of(1, 77))
    query = unit_vectors(1, 16, seed=0)[0]

    (keys, scores), total = range_search(index.view, query, min_score=-1)
    (first, first_scores), same_total = range_search(index.view, query, min_score=-1, limit=limit)

    assert total == same_total == 4998
    assert first.tolist() == keys[:limit].tolist()
    assert first_scores.tolist() == scores[:limit].tolist()
    ((nearest_keys, _),) = search(index, query[np.newaxis], k=limit)
    assert nearest_keys.tolist() == first.tolist()


@pytest.mark.parametrize("tombstones", [0, 60_000])
@pytest.mark.parametrize("what", ["range", "nearest", "equal"])
def test_memory_follows_what_is_asked_for_not_what_is_stored(what: str, tombstones: int) -> None:
    count, width = 200_000, 64
    vectors = unit_vectors(count, width, seed=0)
    if what == "equal":
        vectors[:] = vectors[0]
    base = ImmutableSegmentView(base_of(vectors)).without(np.arange(1, tombstones + 1))
    base.live_rows()  # remembered once for all searches
    queries = unit_vectors(4, width, seed=1)
    tracemalloc.start()

    if what == "range":
        (keys, _), total = range_search(base, queries[0], min_score=-1, limit=1)
        assert (len(keys), total) == (1, count - tombstones)
    else:
        for keys, _ in nearest(base, queries, k=10):
            assert len(keys) == 10

    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak_bytes < 40e6  # the vectors take 51 MB, in double precision twice as much


@pytest.mark.parametrize("keys", [[3], [2], [5, 5], [6, 4]])
def test_keys_that_do_not_increase_are_refused_and_nothing_is_added(keys: list[int]) -> None:
    index = filled(unit_vectors(3, 2, seed=0))

    with pytest.raises(BadVectorsError):
        index.apply(keys_N=keys_of(*keys), vectors_ND=unit_vectors(len(keys), 2, seed=1))

    assert index.view.keys_N.tolist() == [1, 2, 3]


def test_readers_are_never_disturbed_by_the_writer() -> None:
    vectors = unit_vectors(20_000, 16, seed=0)
    index = DeltaSegment(width=16)
    index.apply(keys_N=np.arange(1, 11), vectors_ND=vectors[:10])
    done = threading.Event()
    wrong: list[object] = []

    def read() -> None:
        while not done.is_set():
            newest = (int(index.view.keys_N[-1]) - 1) | 1  # the newest odd key
            try:
                ((keys, scores),) = search(index, vectors[newest - 1 : newest], k=3)
            except Exception as error:
                wrong.append(error)
                return
            if keys[0] != newest or scores[0] < 0.9999 or keys.min() < 1:
                wrong.append((newest, keys, scores))

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    for key in range(11, 1500):  # odd keys are never deleted: every reader must find them
        removed = keys_of(key // 4 * 2)
        index.apply(keys_N=keys_of(key), vectors_ND=vectors[key - 1 : key], removed=removed)
    done.set()
    for reader in readers:
        reader.join()

    assert wrong == []
