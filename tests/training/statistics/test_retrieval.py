"""Retrieval metrics, against slow loops, torchmetrics and the papers."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torchmetrics.functional.retrieval import retrieval_average_precision, retrieval_precision

from training.statistics.retrieval import Retrieval, measure_retrieval

seeds = st.integers(0, 2**31)
Asked = tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.float32], NDArray[np.int64]]


def coarse_vectors(rng: np.random.Generator, count: int, width: int) -> NDArray[np.float32]:
    """Small whole numbers: equal scores are common, and exact however the product is computed."""
    return rng.integers(-2, 3, (count, width)).astype(np.float32)


def coarse_question(rng: np.random.Generator, queries: int, gallery: int, width: int = 3) -> Asked:
    return (
        coarse_vectors(rng, queries, width),
        rng.integers(0, 4, queries),
        coarse_vectors(rng, gallery, width),
        rng.integers(0, 3, gallery),
    )


def fine_question(rng: np.random.Generator, queries: int, gallery: int) -> Asked:
    """Return unit vectors of three loose groups."""
    centres = rng.normal(size=(3, 6))
    query_labels, gallery_labels = rng.integers(0, 3, queries), rng.integers(0, 3, gallery)
    vectors = [
        (centres[labels] + rng.normal(size=(len(labels), 6))).astype(np.float32)
        for labels in (query_labels, gallery_labels)
    ]
    asked, stored = (v / np.linalg.norm(v, axis=1, keepdims=True) for v in vectors)
    return asked, query_labels, stored, gallery_labels


def slow_retrieval(
    queries_QD: NDArray[np.float32],
    query_labels_Q: NDArray[np.int64],
    gallery_KD: NDArray[np.float32],
    gallery_labels_K: NDArray[np.int64],
) -> NDArray[np.float64]:
    """Return first, P@10, AP and AP@R per query (Q, 4), one query and one hit at a time."""
    figures = []
    scores_QK = queries_QD @ gallery_KD.T
    for scores_K, label in zip(scores_QK, query_labels_Q, strict=True):
        order = sorted(
            range(len(scores_K)),
            key=lambda k: (-scores_K[k], gallery_labels_K[k] == label),
        )
        right = [bool(gallery_labels_K[k] == label) for k in order]
        count = sum(right)
        precisions = [sum(right[: n + 1]) / (n + 1) * right[n] for n in range(len(right))]
        figures.append(
            (
                float(right[0]),
                sum(right[:10]) / len(right[:10]),
                sum(precisions) / max(count, 1),
                sum(precisions[:count]) / max(count, 1),
            )
        )
    return np.array(figures)


def as_array(retrieval: Retrieval) -> NDArray[np.float64]:
    return np.stack(
        [
            retrieval.first_Q.astype(np.float64),
            retrieval.precision_Q,
            retrieval.average_precision_Q,
            retrieval.average_precision_at_r_Q,
        ],
        axis=1,
    )


@settings(max_examples=80, deadline=None)
@given(seed=seeds, queries=st.integers(1, 40), gallery=st.integers(1, 40), width=st.integers(1, 4))
def test_every_query_gets_the_figures_of_a_slow_loop(
    seed: int, queries: int, gallery: int, width: int
) -> None:
    asked = coarse_question(np.random.default_rng(seed), queries, gallery, width)
    fast, slow = measure_retrieval(*asked), slow_retrieval(*asked)
    np.testing.assert_allclose(as_array(fast), slow, rtol=1e-12)
    means = tuple(fast.means.values())
    assert means == pytest.approx(slow.mean(axis=0))


def test_the_figures_are_those_of_torchmetrics() -> None:
    queries, query_labels, gallery, gallery_labels = fine_question(np.random.default_rng(0), 30, 90)
    found = measure_retrieval(queries, query_labels, gallery, gallery_labels)
    for query, label in enumerate(query_labels):
        scores = torch.from_numpy(gallery @ queries[query]) + 2  # it passes over scores below 0
        right = torch.from_numpy(gallery_labels == label)
        assert found.average_precision_Q[query] == pytest.approx(
            retrieval_average_precision(scores, right).item()
        )
        assert found.precision_Q[query] == pytest.approx(
            retrieval_precision(scores, right, top_k=10).item()
        )


@settings(max_examples=25, deadline=None)
@given(seed=seeds, rows=st.integers(1, 60), block=st.integers(1, 60))
def test_the_size_of_a_chunk_changes_nothing(seed: int, rows: int, block: int) -> None:
    asked = coarse_question(np.random.default_rng(seed), 60, 50)
    whole = measure_retrieval(*asked)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("training.statistics.retrieval.CHUNK_BYTES", 4 * 50 * rows)
        patch.setattr("training.statistics.retrieval.BLOCK", block)
        chunked = measure_retrieval(*asked)
    assert (as_array(chunked) == as_array(whole)).all()


def test_of_two_equal_scores_the_wrong_one_counts_as_nearer() -> None:
    same = np.ones((1, 2), np.float32)
    found = measure_retrieval(same, np.array([0]), same.repeat(4, axis=0), np.array([0, 1, 0, 1]))
    assert not found.first_Q[0]
    assert found.means["map"] == pytest.approx((1 / 3 + 2 / 4) / 2)
    assert found.means["map_at_r"] == 0


def test_average_precision_at_r_is_that_of_the_paper() -> None:
    # Right, wrong, right of three right ones: (1/1 + 2/3) / 3.
    gallery = np.array([[5], [4], [3], [2], [1]], np.float32)
    labels = np.array([0, 1, 0, 1, 0])
    found = measure_retrieval(np.ones((1, 1), np.float32), np.array([0]), gallery, labels)
    assert found.means["map_at_r"] == pytest.approx((1 + 2 / 3) / 3)
    assert found.means["map"] == pytest.approx((1 + 2 / 3 + 3 / 5) / 3)


def test_a_perfect_gallery_scores_one_and_a_wrong_one_zero() -> None:
    vectors, labels = np.eye(3, dtype=np.float32), np.arange(3)
    perfect = measure_retrieval(vectors, labels, vectors, labels)
    assert {perfect.means[name] for name in ("r_at_1", "map", "map_at_r")} == {1}
    wrong = measure_retrieval(vectors, labels + 3, vectors, labels)
    assert set(wrong.means.values()) == {0}


@settings(max_examples=30, deadline=None)
@given(seed=seeds)
def test_looking_only_as_far_as_r_never_scores_higher(seed: int) -> None:
    found = measure_retrieval(*fine_question(np.random.default_rng(seed), 8, 40))
    assert (found.average_precision_at_r_Q <= found.average_precision_Q + 1e-12).all()
    assert (as_array(found) >= 0).all()
    assert (as_array(found) <= 1).all()


@settings(max_examples=40, deadline=None)
@given(seed=seeds, images=st.integers(1, 30))
def test_what_is_of_a_querys_own_lot_is_as_if_it_were_not_there(seed: int, images: int) -> None:
    rng = np.random.default_rng(seed)
    vectors, labels, _, _ = coarse_question(rng, images, 1, 3)
    group_keys = rng.integers(0, max(1, images - 3), images).astype(np.uint64)  # some are copies
    found = measure_retrieval(vectors, labels, vectors, labels, group_keys=(group_keys, group_keys))
    for query in range(images):
        others = group_keys != group_keys[query]
        expected = np.zeros(4)
        if (labels[others] == labels[query]).any():
            alone = (vectors[[query]], labels[[query]], vectors[others], labels[others])
            expected = as_array(measure_retrieval(*alone))[0]
        np.testing.assert_allclose(as_array(found)[query], expected, rtol=1e-6)
