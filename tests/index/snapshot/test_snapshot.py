"""Snapshots: what searches read while rows come and go."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from index.errors import BadVectorsError
from index.search.index_spec import EXACT, IndexSpec
from index.snapshot.filter_cache import FilterMask
from index.snapshot.snapshot import Snapshot, SnapshotWriter
from tests.support.fakes import unit_vectors
from tests.support.galleries.segments import GRAPH, SPECS, base_of, best, clustered, scores_of

WIDTH = 16
NO_KEYS = np.empty(0, np.int64)
NO_VECTORS = np.empty((0, WIDTH), np.float32)


class Twin:
    """The same rows in a dict, searched by sorting every cosine."""

    def __init__(self) -> None:
        self.vectors: dict[int, NDArray[np.float32]] = {}

    def search(
        self, query_D: NDArray[np.float32], k: int, mask: set[int] | None
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        keys = [key for key in self.vectors if mask is None or key in mask]
        if not keys:
            return NO_KEYS, np.empty(0, np.float32)
        scores = scores_of(np.stack([self.vectors[key] for key in keys]), query_D)
        return best(np.array(keys, np.int64), scores, k)


@pytest.mark.parametrize(
    "spec", [None, EXACT, *SPECS], ids=lambda spec: getattr(spec, "kind", spec)
)
@settings(deadline=None, max_examples=40)
@given(data=st.data())
def test_a_snapshot_answers_as_sorting_all_its_rows_would(
    spec: IndexSpec | None, data: st.DataObject
) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 10_000)))
    pool_ND, _ = clustered(400, WIDTH, seed=0, clusters=10)
    pool_ND[::7] = pool_ND[0]  # ties, within a part and between them
    in_base = 0 if spec is None else data.draw(st.sampled_from([64, 200]))
    base = None if spec is None else base_of(pool_ND[:in_base], spec)
    writer, twin = SnapshotWriter(WIDTH, segment=base, seq=5), Twin()
    twin.vectors = {key: pool_ND[key - 1] for key in range(1, in_base + 1)}
    last, seq = in_base, 5
    for _ in range(data.draw(st.integers(0, 5))):
        added = np.arange(last + 1, last + 1 + data.draw(st.integers(0, 30)))
        last, seq = last + len(added), seq + 40
        share = data.draw(st.sampled_from([0.0, 0.1, 0.9]))
        removed = np.flatnonzero(rng.random(last + 10) < share)
        writer.apply(seq=seq, keys_N=added, vectors_ND=pool_ND[added - 1], removed=removed)
        twin.vectors |= {key: pool_ND[key - 1] for key in added.tolist()}
        for key in removed.tolist():
            twin.vectors.pop(key, None)
    snapshot = writer.snapshot
    keys = set(np.flatnonzero(rng.random(last + 1) < data.draw(st.floats(0, 1))).tolist())
    chosen = data.draw(st.sampled_from([None, keys]))
    mask = (
        None if chosen is None else FilterMask(np.array(sorted(keys), np.int64), evaluated_to=last)
    )
    k = data.draw(st.integers(1, 30))
    queries_QD = np.concatenate([pool_ND[:1], unit_vectors(2, WIDTH, seed=1)])

    assert snapshot.seq == seq
    assert snapshot.count == len(twin.vectors)
    for after in (0, last // 2, last):
        range_search = snapshot.keys_above(after).tolist()
        assert range_search == sorted(set(range_search)), "increasing, and each once"
        assert {key for key in twin.vectors if key > after} <= set(range_search)
        assert not range_search or after < range_search[0] <= range_search[-1] <= last
    assert snapshot.last_key >= max(twin.vectors, default=0)
    exact = snapshot.search(queries_QD, k=k, mask=mask, exact=True)
    quick = snapshot.search(queries_QD, k=k, mask=mask)
    for query_D, hits, quick_hits in zip(queries_QD, exact, quick, strict=True):
        expected_keys, expected = twin.search(query_D, k, chosen)
        assert hits[0].tolist() == expected_keys.tolist()
        np.testing.assert_allclose(hits[1], expected, atol=1e-5)
        assert len(quick_hits[0]) == len(expected_keys)
        all_keys = dict(
            zip(*map(np.ndarray.tolist, twin.search(query_D, 1000, chosen)), strict=True)
        )
        np.testing.assert_allclose(
            quick_hits[1], [all_keys[key] for key in quick_hits[0].tolist()], atol=1e-5
        )
        assert len(set(quick_hits[0].tolist())) == len(quick_hits[0])

        least = data.draw(st.sampled_from([-1.0, 0.2, 0.8]))
        (above_keys, above_scores), total = snapshot.range_search(
            query_D, min_score=least, mask=mask
        )
        (first, _), same_total = snapshot.range_search(query_D, min_score=least, limit=3, mask=mask)
        assert first.tolist() == above_keys[:3].tolist()
        assert total == same_total == len(above_keys)
        all_keys, all_scores = twin.search(query_D, 1000, chosen)
        enough = all_scores >= np.float32(least)
        assert above_keys.tolist() == all_keys[enough].tolist()
        np.testing.assert_allclose(above_scores, all_scores[enough], atol=1e-5)


def mixed() -> Snapshot:
    """A snapshot with rows in a base under a graph, and rows that came since."""
    vectors_ND, _ = clustered(300, WIDTH, seed=0)
    writer = SnapshotWriter(WIDTH, segment=base_of(vectors_ND[:200], GRAPH), seq=200)
    writer.apply(
        seq=301,
        keys_N=np.arange(201, 301),
        vectors_ND=vectors_ND[200:],
        removed=np.array([3, 250]),
    )
    return writer.snapshot


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (lambda queries: queries[:, :-1], "expected vectors of 16 numbers"),
        (lambda queries: queries[0], "expected vectors of 16 numbers"),
        (lambda queries: queries[np.newaxis], "expected vectors of 16 numbers"),
        (lambda queries: queries * np.nan, "finite"),
        (lambda queries: queries * np.inf, "finite"),
        (lambda queries: queries * 2, "unit vectors"),
        (lambda queries: queries * 0, "unit vectors"),
    ],
)
def test_queries_that_are_no_unit_vectors_of_the_width_are_refused(
    spoil: Callable[[NDArray[np.float32]], NDArray[np.float32]], sentence: str
) -> None:
    queries_QD = spoil(unit_vectors(2, WIDTH, seed=0))

    for snapshot in (mixed(), SnapshotWriter(WIDTH, segment=None, seq=0).snapshot):
        with pytest.raises(BadVectorsError, match=sentence):
            snapshot.search(queries_QD, k=1)
        with pytest.raises(BadVectorsError, match=sentence):
            snapshot.range_search(queries_QD[0], min_score=0.5)


@pytest.mark.parametrize("k", [0, -1, -(2**40)])
def test_k_below_one_is_refused(k: int) -> None:
    with pytest.raises(ValueError, match=f"k must be at least 1, got {k}"):
        mixed().search(unit_vectors(1, WIDTH, seed=0), k=k)


def test_a_huge_k_gives_everything_there_is() -> None:
    for exact in (False, True):
        ((keys, _),) = mixed().search(unit_vectors(1, WIDTH, seed=0), k=2**40, exact=exact)
        assert sorted(keys.tolist()) == sorted(set(range(1, 301)) - {3, 250})


def test_queries_of_another_layout_or_precision_find_the_same() -> None:
    queries_QD = unit_vectors(4, WIDTH, seed=0)
    snapshot = mixed()
    expected = snapshot.search(queries_QD, k=5)
    padded = np.repeat(queries_QD, 2, axis=1)

    for same in (np.asfortranarray(queries_QD), queries_QD.astype(np.float64), padded[:, ::2]):
        for (keys, _), (wanted, _) in zip(snapshot.search(same, k=5), expected, strict=True):
            assert keys.tolist() == wanted.tolist()


def test_a_snapshot_that_is_held_does_not_change_while_rows_come_and_go() -> None:
    vectors_ND, _ = clustered(600, WIDTH, seed=0)
    writer = SnapshotWriter(WIDTH, segment=base_of(vectors_ND[:200], GRAPH), seq=200)
    held = writer.snapshot
    before = held.search(vectors_ND[:20], k=10)

    writer.apply(
        seq=900, keys_N=np.arange(201, 601), vectors_ND=vectors_ND[200:], removed=np.arange(1, 190)
    )

    assert writer.snapshot.count == 600 - 189
    assert held.count == 200
    for (keys, scores), (same, same_scores) in zip(
        held.search(vectors_ND[:20], k=10), before, strict=True
    ):
        assert keys.tolist() == same.tolist()
        assert scores.tolist() == same_scores.tolist()


def test_a_change_that_is_refused_leaves_the_snapshot_as_it_was() -> None:
    writer = SnapshotWriter(WIDTH, segment=None, seq=0)
    writer.apply(seq=1, keys_N=np.array([4]), vectors_ND=unit_vectors(1, WIDTH, 0), removed=NO_KEYS)
    before = writer.snapshot

    with pytest.raises(BadVectorsError):
        writer.apply(
            seq=2, keys_N=np.array([4]), vectors_ND=unit_vectors(1, WIDTH, 1), removed=np.array([4])
        )

    assert writer.snapshot is before
    assert replace(before).count == 1


def test_removals_are_counted_whether_or_not_the_keys_are_known() -> None:
    writer = SnapshotWriter(WIDTH, segment=None, seq=0)
    for seq, removed in enumerate(([], [7], [7, 8], [])):
        writer.apply(
            seq=seq, keys_N=NO_KEYS, vectors_ND=NO_VECTORS, removed=np.array(removed, np.int64)
        )
    assert writer.snapshot.removals == 2
