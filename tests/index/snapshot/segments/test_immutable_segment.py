"""Bases: filtered and unfiltered searches over every structure, and rows that are deleted."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from index.search.autotune import autotune
from index.search.exact import nearest
from index.search.hits import Hits, merged
from index.search.index_spec import EXACT, IndexSpec
from index.search.live_rows import LiveRows
from index.search.policy import SearchPolicy
from index.search.tuning_sample import hold_out
from index.snapshot.segments.immutable_segment import ImmutableSegment, ImmutableSegmentView
from tests.support.fakes import unit_vectors
from tests.support.galleries.segments import (
    GRAPH,
    QUANTIZED,
    SPECS,
    base_of,
    best,
    clustered,
    scores_of,
)

ROWS = 30_000
WIDTH = 32
QUERIES = 60
SHARES = [0.001, 0.01, 0.03, 0.1, 0.3, 1.0]

Rows = NDArray[np.int64]


@pytest.fixture(scope="module")
def queries_QD() -> NDArray[np.float32]:
    return clustered(QUERIES, WIDTH, seed=2)[0]


@pytest.fixture(scope="module", params=["graph", "quantized"])
def large(request: pytest.FixtureRequest) -> ImmutableSegment:
    """30,000 rows in clusters under the structure that was measured to find 99 % of them."""
    vectors_ND, _ = clustered(ROWS, WIDTH, seed=1)
    keys_N, sample = hold_out(np.arange(1, ROWS + 1), vectors_ND)
    factory = "HNSW24_SQ8" if request.param == "graph" else "IVF128,PQ16x4fsr"
    spec = replace(GRAPH if request.param == "graph" else QUANTIZED, factory=factory)
    trial, ann_index = autotune(replace(spec, search_depth=0), sample, target=0.99)
    assert trial.reached
    assert ann_index is not None
    return ImmutableSegment(
        generation=1,
        seq=0,
        keys_N=keys_N,
        matrix=sample.matrix,
        spec=trial.spec,
        ann_index=ann_index.completed(),
    )


# Filtered searches use the ANN index, however few rows they choose from.
NO_SCANS = SearchPolicy(scan_numbers=0, scan_share=0.0)


def random_rows(share: float, seed: int) -> Rows:
    count = max(1, int(share * ROWS))
    return np.sort(np.random.default_rng(seed).permutation(ROWS)[:count])


def far_rows(base: ImmutableSegment, query_D: NDArray[np.float32], share: float) -> Rows:
    """The rows farthest from the query: a structure that looks near it finds none of them."""
    count = max(1, int(share * ROWS))
    return np.sort(np.argsort(scores_of(base.matrix.rows_ND, query_D))[:count])


def recall(found: list[Hits], exact: list[Hits]) -> float:
    """Return the share of the exact hits that were found; equally near ones count."""
    shares = [
        np.mean(scores[: len(truth)] >= truth.min() - 1e-6)
        for (_, scores), (_, truth) in zip(found, exact, strict=True)
    ]
    return float(np.mean(shares))


def check_hits(
    base: ImmutableSegment, query_D: NDArray[np.float32], hits: Hits, allowed: Rows | None
) -> None:
    keys_K, scores_K = hits
    row_of = {key: row for row, key in enumerate(base.keys_N.tolist())}
    rows_K = np.array([row_of[key] for key in keys_K.tolist()], np.int64)
    assert len(set(keys_K.tolist())) == len(keys_K)
    np.testing.assert_allclose(scores_K, scores_of(base.matrix.rows_ND[rows_K], query_D), atol=1e-5)
    assert (np.diff(scores_K) <= 0).all()
    if allowed is not None:
        assert np.isin(rows_K, allowed).all()


@pytest.mark.parametrize("share", SHARES)
@pytest.mark.parametrize("k", [1, 10, 100])
def test_never_fewer_than_k_come_back_when_k_are_allowed(
    large: ImmutableSegment, queries_QD: NDArray[np.float32], share: float, k: int
) -> None:
    view = ImmutableSegmentView(large, policy=NO_SCANS)
    few_QD = queries_QD[:8]
    sets = [random_rows(share, 1), *(far_rows(large, query_D, share) for query_D in few_QD[:3])]

    for allowed in sets:
        for query_D, hits in zip(few_QD, view.search(few_QD, k=k, allowed=allowed), strict=True):
            assert len(hits[0]) == min(k, len(allowed))
            check_hits(large, query_D, hits, allowed)


def test_without_the_scan_behind_it_a_structure_alone_would_come_back_with_fewer(
    large: ImmutableSegment, queries_QD: NDArray[np.float32]
) -> None:
    allowed = far_rows(large, queries_QD[0], 0.001)
    assert large.ann_index is not None

    _, rows_QK = large.ann_index.search(
        queries_QD[:1], 10, live=LiveRows.only(allowed, count=ROWS), share=1.0
    )

    assert (rows_QK < 0).any()


@pytest.mark.parametrize("share", [0.02, 0.1, 0.5, 1.0])
def test_filtered_searches_find_what_unfiltered_ones_would(
    large: ImmutableSegment, queries_QD: NDArray[np.float32], share: float
) -> None:
    view, allowed = ImmutableSegmentView(large, policy=NO_SCANS), random_rows(share, 3)

    found = view.search(queries_QD, k=10, allowed=allowed)

    assert recall(found, nearest(view, queries_QD, k=10, among=allowed)) >= 0.95


@pytest.mark.parametrize("share", [0.02, 0.1, 0.3, 0.8])
def test_filtered_searches_with_all_allowed_rows_far_away_find_the_nearest_of_them(
    large: ImmutableSegment, queries_QD: NDArray[np.float32], share: float
) -> None:
    view = ImmutableSegmentView(large, policy=NO_SCANS)
    recalls = []

    for query_D in queries_QD[:15]:
        allowed = far_rows(large, query_D, share)
        found = view.search(query_D[np.newaxis], k=10, allowed=allowed)
        exact = nearest(view, query_D[np.newaxis], k=10, among=allowed)
        recalls.append(recall(found, exact))

    assert np.mean(recalls) >= 0.95


@pytest.mark.parametrize("share", [0.02, 0.1, 0.3, 0.8])
def test_filters_that_follow_what_images_look_like_cost_no_recall(
    large: ImmutableSegment, queries_QD: NDArray[np.float32], share: float
) -> None:
    view = ImmutableSegmentView(large, policy=NO_SCANS)
    _, cluster_N = clustered(ROWS, WIDTH, seed=1)
    chosen = np.random.default_rng(1).permutation(100)[: int(100 * share)]
    allowed = np.flatnonzero(np.isin(cluster_N[large.keys_N - 1], chosen))

    found = view.search(queries_QD, k=10, allowed=allowed)

    assert recall(found, nearest(view, queries_QD, k=10, among=allowed)) >= 0.95


@pytest.mark.parametrize("tombstones", [0.0, 0.05, 0.5, 0.97])
def test_rows_that_died_are_never_found_and_cost_no_recall(
    large: ImmutableSegment, queries_QD: NDArray[np.float32], tombstones: float
) -> None:
    died = np.random.default_rng(5).permutation(ROWS)[: int(tombstones * ROWS)] + 1
    view = ImmutableSegmentView(large).without(np.sort(died))
    assert len(view) == ROWS - len(died)

    found = view.search(queries_QD, k=10, allowed=None)

    assert recall(found, nearest(view, queries_QD, k=10)) >= 0.95
    for query_D, hits in zip(queries_QD, found, strict=True):
        assert len(hits[0]) == 10
        assert not np.isin(hits[0], died).any()
        check_hits(large, query_D, hits, None)


@pytest.mark.parametrize("left", [0, 1, 9, 10, 11])
def test_a_base_of_which_nearly_everything_died_gives_what_is_left(
    large: ImmutableSegment, queries_QD: NDArray[np.float32], left: int
) -> None:
    view = ImmutableSegmentView(large).without(np.arange(left + 1, ROWS + 1))

    if left:
        for keys, _ in view.search(queries_QD, k=10, allowed=None):
            assert len(keys) == min(10, left)
            assert keys.max() <= left
    assert len(view) == left


@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_rows_are_found_by_key_and_die_by_key(data: st.DataObject) -> None:
    order = data.draw(st.permutations(range(1, data.draw(st.integers(2, 30)))))
    keys_N = np.array(order, np.int64) * 3
    base = base_of(unit_vectors(len(keys_N), 4, seed=0), keys_N=keys_N)
    assert base.last_key == keys_N.max()
    asked = np.array(sorted(data.draw(st.sets(st.integers(0, 100)))), np.int64)
    assert base.rows_of(asked).tolist() == np.flatnonzero(np.isin(keys_N, asked)).tolist()

    view, tombstones = ImmutableSegmentView(base), set[int]()
    for removed in data.draw(st.lists(st.sets(st.integers(0, 100)), max_size=4)):
        before, dead_before = view, view.tombstones
        view = view.without(np.array(sorted(removed), np.int64))
        tombstones |= removed
        assert before.tombstones == dead_before

    live = [row for row, key in enumerate(keys_N.tolist()) if key not in tombstones]
    assert view.live_rows().tolist() == live
    assert len(view) == len(live)
    assert view.tombstones == len(keys_N) - len(live)
    some = np.array(data.draw(st.lists(st.integers(0, len(keys_N) - 1))), np.int64)
    assert view.live_among(some).tolist() == [row for row in some if row in live]


@pytest.mark.parametrize("spec", [EXACT, *SPECS], ids=lambda spec: spec.kind)
@settings(deadline=None, max_examples=40)
@given(data=st.data())
def test_any_search_in_any_base_gives_k_alive_and_allowed_rows(
    spec: IndexSpec, data: st.DataObject
) -> None:
    policy = SearchPolicy(scan_numbers=data.draw(st.sampled_from([0, 16 * 20])))
    vectors_ND, _ = clustered(data.draw(st.integers(64, 300)), 16, seed=0, clusters=10)
    vectors_ND[:: data.draw(st.integers(2, 9))] = vectors_ND[0]  # ties
    base = base_of(vectors_ND, spec)
    rng = np.random.default_rng(data.draw(st.integers(0, 1000)))
    view = ImmutableSegmentView(base, policy=policy).without(
        _some(rng, base.keys_N, data.draw(st.floats(0, 0.99)))
    )
    allowed = _some(rng, np.arange(len(base)), data.draw(st.floats(0, 1)))
    k = data.draw(st.integers(1, 40))
    queries_QD = clustered(data.draw(st.sampled_from([1, 3, 20])), 16, seed=1, clusters=10)[0]

    filtered = view.search(queries_QD, k=k, allowed=allowed)
    free = view.search(queries_QD, k=k, allowed=None)

    live_allowed = view.live_among(allowed)
    for query_D, hits, all_hits in zip(queries_QD, filtered, free, strict=True):
        assert len(hits[0]) == min(k, len(live_allowed))
        assert len(all_hits[0]) == min(k, len(view))
        check_hits(base, query_D, hits, live_allowed)
        check_hits(base, query_D, all_hits, view.live_rows())
        if spec is EXACT:
            scores = scores_of(vectors_ND[live_allowed], query_D)
            keys, _ = best(base.keys_N[live_allowed], scores, k)
            assert hits[0].tolist() == keys.tolist()
        for keys, scores in (hits, all_hits):
            tied = np.flatnonzero(np.diff(scores) == 0)
            assert (keys[tied] < keys[tied + 1]).all()


def test_a_row_that_a_structure_did_not_find_is_never_taken_for_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    base = base_of(clustered(300, 16, seed=0)[0], GRAPH)
    queries_QD, _ = clustered(4, 16, seed=1)
    assert base.ann_index is not None
    search = base.ann_index.search

    def with_a_hole(*arguments: object, **options: object) -> object:
        scores_QK, rows_QK = search(*arguments, **options)  # type: ignore[arg-type]
        rows_QK[1, 2], rows_QK[3, -1] = -1, -1
        return scores_QK, rows_QK

    monkeypatch.setattr(base.ann_index, "search", with_a_hole)
    for query_D, hits in zip(
        queries_QD, ImmutableSegmentView(base).search(queries_QD, k=5, allowed=None), strict=True
    ):
        assert len(hits[0]) == 5
        check_hits(base, query_D, hits, None)


def test_a_score_is_never_below_minus_one() -> None:
    vectors_ND = np.repeat(clustered(200, 16, seed=0)[0], 2, axis=0)
    base = base_of(vectors_ND, GRAPH)

    for keys, scores in ImmutableSegmentView(base).search(-vectors_ND, k=399, allowed=None):
        assert len(keys) == 399
        assert scores.min() >= -1


@given(data=st.data())
def test_two_lists_of_hits_are_merged_as_sorting_both_would(data: st.DataObject) -> None:
    score = st.sampled_from([-1.0, 0.0, 0.5, 0.5000001, 1.0])
    found = data.draw(st.dictionaries(st.integers(1, 40), score))
    first = data.draw(st.sets(st.sampled_from(sorted(found)))) if found else set[int]()

    def hits(keys: list[int]) -> Hits:
        scores = np.array([found[key] for key in keys], np.float32)
        return best(np.array(keys, np.int64), scores, len(keys))

    k = data.draw(st.integers(1, 10))
    keys, scores = merged(
        hits(sorted(first)), hits([key for key in found if key not in first]), k=k
    )

    expected_keys, expected = hits(list(found))
    assert keys.tolist() == expected_keys[:k].tolist()
    assert scores.tolist() == expected[:k].tolist()


def _some(rng: np.random.Generator, of: Rows, share: float) -> Rows:
    return np.sort(rng.permutation(of)[: int(share * len(of))])
