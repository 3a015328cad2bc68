"""Approximate structures: scores, batches, rows that are left out, effort, threads."""

import threading
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from index.search.ann_index import MAX_SEARCH_DEPTH, MEASURED_K, AnnIndex
from index.search.index_spec import IndexSpec
from index.search.live_rows import LiveRows
from index.search.vector_matrix import Matrix
from tests.support.galleries.segments import SPECS, clustered, scores_of

ROWS = 2000
WIDTH = 16


@pytest.fixture(scope="module", params=SPECS, ids=lambda spec: spec.kind)
def ann_index(request: pytest.FixtureRequest) -> AnnIndex:
    vectors_ND, _ = clustered(ROWS, WIDTH, seed=1)
    return AnnIndex.build(Matrix.of(vectors_ND), request.param, count=ROWS)


def rows_in(live: LiveRows, count: int) -> list[int]:
    return live.among(np.arange(count)).tolist()


@settings(deadline=None)
@given(data=st.data())
def test_bits_of_rows_agree_with_an_array_of_booleans(data: st.DataObject) -> None:
    count = data.draw(st.integers(1, 70))
    numbers = st.integers(0, count - 1)
    flags = np.zeros(count, np.bool_)
    chosen = data.draw(st.lists(numbers))
    flags[chosen] = True
    live = LiveRows.only(np.array(chosen, np.int64), count=count)

    for removed in data.draw(st.lists(st.lists(numbers), max_size=3)):
        before = live.bits.copy()
        fewer = live.without(np.array(removed, np.int64))
        np.testing.assert_array_equal(live.bits, before)  # others may be searching with it
        flags[removed] = False
        live = fewer

    np.testing.assert_array_equal(rows_in(live, count), np.flatnonzero(flags))
    asked = data.draw(st.lists(numbers))
    kept = [row for row in asked if flags[row]]
    assert live.among(np.array(asked, np.int64)).tolist() == kept
    np.testing.assert_array_equal(live.bits, np.packbits(flags, bitorder="little"))


def test_a_row_more_than_the_structure_has_is_never_alive() -> None:
    assert rows_in(LiveRows.only(np.arange(13), count=13), 16) == list(range(13))


def test_scores_are_the_cosines_of_the_rows_best_first(ann_index: AnnIndex) -> None:
    vectors_ND, _ = clustered(ROWS, WIDTH, seed=1)
    queries_QD, _ = clustered(50, WIDTH, seed=2)

    scores_QK, rows_QK = ann_index.search(queries_QD, 20)

    for query_D, scores_K, rows_K in zip(queries_QD, scores_QK, rows_QK, strict=True):
        assert len(set(rows_K.tolist())) == 20
        np.testing.assert_allclose(scores_K, scores_of(vectors_ND[rows_K], query_D), atol=1e-5)
        assert (np.diff(scores_K) <= 0).all()


def test_a_batch_finds_what_single_queries_find(ann_index: AnnIndex) -> None:
    queries_QD, _ = clustered(30, WIDTH, seed=3)

    scores_QK, rows_QK = ann_index.search(queries_QD, 10)

    for row, query_D in enumerate(queries_QD):
        alone_scores, alone = ann_index.search(query_D[np.newaxis], 10)
        assert len(set(alone[0].tolist()) & set(rows_QK[row].tolist())) >= 9  # kernels round
        np.testing.assert_allclose(alone_scores[0, :1], scores_QK[row, :1], atol=1e-5)


@pytest.mark.parametrize("allowed", [1, 5, 40, 400, ROWS])
def test_only_rows_that_are_alive_are_found_and_the_rest_is_minus_one(
    ann_index: AnnIndex, allowed: int
) -> None:
    chosen = np.random.default_rng(allowed).permutation(ROWS)[:allowed]
    live = LiveRows.only(chosen, count=ROWS)
    queries_QD, _ = clustered(20, WIDTH, seed=4)
    vectors_ND, _ = clustered(ROWS, WIDTH, seed=1)

    scores_QK, rows_QK = ann_index.search(queries_QD, 10, live=live, share=allowed / ROWS)

    for query_D, scores_K, rows_K in zip(queries_QD, scores_QK, rows_QK, strict=True):
        found = rows_K >= 0
        assert set(rows_K[found].tolist()) <= set(chosen.tolist())
        assert len(set(rows_K[found].tolist())) == found.sum()
        expected = scores_of(vectors_ND[rows_K[found]], query_D)
        np.testing.assert_allclose(scores_K[found], expected, atol=1e-5)
        assert (np.diff(found.astype(int)) <= 0).all(), "a row after one of -1"
        assert (rows_K[~found] == -1).all()


def test_nothing_alive_gives_rows_of_minus_one_only(ann_index: AnnIndex) -> None:
    nothing = LiveRows.only(np.empty(0, np.int64), count=ROWS)
    queries_QD, _ = clustered(3, WIDTH, seed=4)

    _, rows_QK = ann_index.search(queries_QD, 10, live=nothing, share=0.01)

    assert (rows_QK == -1).all()


def test_asking_for_more_than_there_is_gives_rows_of_minus_one_at_the_end(
    ann_index: AnnIndex,
) -> None:
    queries_QD, _ = clustered(2, WIDTH, seed=4)

    _, rows_QK = ann_index.search(queries_QD, ROWS + 50)

    for rows_K in rows_QK:
        found = rows_K[rows_K >= 0]
        assert len(set(found.tolist())) == len(found)
        assert (rows_K[len(found) :] == -1).all()


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.kind)
@given(k=st.integers(1, 5000), share=st.floats(1e-4, 1.0), less=st.floats(1e-4, 1.0))
def test_effort_grows_with_k_and_with_fewer_rows_to_find_up_to_a_limit(
    spec: IndexSpec, k: int, share: float, less: float
) -> None:
    ann_index = AnnIndex.build(Matrix.of(clustered(64, 16, seed=0)[0]), spec, count=64)

    search_depth = ann_index.search_depth(k, share)

    assert spec.search_depth <= search_depth <= MAX_SEARCH_DEPTH
    assert ann_index.search_depth(MEASURED_K, 1.0) == spec.search_depth
    assert ann_index.search_depth(k, min(share, less)) >= search_depth
    assert ann_index.search_depth(k + 1, share) >= search_depth


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.kind)
def test_more_effort_finds_more(spec: IndexSpec) -> None:
    vectors_ND, _ = clustered(5000, 24, seed=1)
    queries_QD, _ = clustered(100, 24, seed=2)
    truth = [np.argsort(-scores_of(vectors_ND, query_D))[:10] for query_D in queries_QD]
    ann_index = AnnIndex.build(
        Matrix.of(vectors_ND), replace(spec, factory=_wide(spec)), count=5000
    )

    def recall(search_depth: int) -> float:
        _, rows_QK = ann_index.with_spec(replace(ann_index.spec, search_depth=search_depth)).search(
            queries_QD, 10
        )
        return float(np.mean([np.isin(truth[q], rows_QK[q]).mean() for q in range(100)]))

    least, most = recall(1), recall(200)
    assert least < most
    assert most > 0.97


def test_a_structure_over_the_first_rows_is_completed_with_the_others(
    ann_index: AnnIndex,
) -> None:
    vectors_ND, _ = clustered(600, WIDTH, seed=5)
    part = AnnIndex.build(Matrix.of(vectors_ND), ann_index.spec, count=500)
    assert _own_row_found(part, vectors_ND[500:]) == 0

    whole = part.completed()

    assert whole.index.ntotal == 600
    assert _own_row_found(whole, vectors_ND) >= 590


def test_any_number_of_threads_may_search_at_once(ann_index: AnnIndex) -> None:
    queries_QD, _ = clustered(40, WIDTH, seed=6)
    live = LiveRows.only(np.arange(0, ROWS, 2), count=ROWS)
    expected = [ann_index.search(query[np.newaxis], 10, live=live)[1] for query in queries_QD]
    wrong: list[int] = []

    def search() -> None:
        for _ in range(5):
            for number, query_D in enumerate(queries_QD):
                _, rows_QK = ann_index.search(query_D[np.newaxis], 10, live=live)
                if (rows_QK != expected[number]).any():
                    wrong.append(number)

    threads = [threading.Thread(target=search) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert wrong == []


def _wide(spec: IndexSpec) -> str:
    return spec.factory.replace("PQ8", "PQ12")


def _own_row_found(ann_index: AnnIndex, vectors_ND: NDArray[np.float32]) -> int:
    """Return how many of the vectors find themselves first."""
    scores_QK, _ = ann_index.search(vectors_ND, 1)
    return int((scores_QK[:, 0] > 1 - 1e-6).sum())
