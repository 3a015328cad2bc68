import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from training.evaluate import calibration_error, class_figures, count_confusion
from training.retrieval import Retrieval, measure_retrieval

seeds = st.integers(0, 2**31)


def unit_vectors(rng: np.random.Generator, count: int, width: int) -> NDArray[np.float32]:
    # few different values, so that equal scores are common
    vectors = rng.integers(-1, 2, (count, width)).astype(np.float32) + np.float32(0.25)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def slow_retrieval(
    queries_QD: NDArray[np.float32],
    query_labels_Q: NDArray[np.int64],
    gallery_KD: NDArray[np.float32],
    gallery_labels_K: NDArray[np.int64],
) -> Retrieval:
    """Do it one query and one hit at a time."""
    first, top, average = [], [], []
    scores_QK = queries_QD @ gallery_KD.T
    for scores_K, label in zip(scores_QK, query_labels_Q, strict=True):
        order = sorted(
            range(len(scores_K)),
            key=lambda k: (-scores_K[k], gallery_labels_K[k] == label),
        )
        right = [bool(gallery_labels_K[k] == label) for k in order]
        first.append(right[0])
        top.append(sum(right[:10]) / len(right[:10]))
        precisions = [sum(right[: n + 1]) / (n + 1) for n in range(len(right)) if right[n]]
        average.append(sum(precisions) / len(precisions) if precisions else 0.0)
    return Retrieval(
        r_at_1=float(np.mean(first)),
        precision_at_10=float(np.mean(top)),
        map=float(np.mean(average)),
    )


@settings(max_examples=60, deadline=None)
@given(seed=seeds, queries=st.integers(1, 6), gallery=st.integers(1, 40), width=st.integers(1, 4))
def test_retrieval_figures_are_those_of_a_slow_loop(
    seed: int, queries: int, gallery: int, width: int
) -> None:
    rng = np.random.default_rng(seed)
    asked = (
        unit_vectors(rng, queries, width),
        rng.integers(0, 4, queries),
        unit_vectors(rng, gallery, width),
        rng.integers(0, 3, gallery),
    )
    fast, slow = measure_retrieval(*asked), slow_retrieval(*asked)
    assert fast.r_at_1 == pytest.approx(slow.r_at_1)
    assert fast.precision_at_10 == pytest.approx(slow.precision_at_10)
    assert fast.map == pytest.approx(slow.map)


def test_figures_do_not_depend_on_the_size_of_a_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    asked = (
        unit_vectors(rng, 23, 5),
        rng.integers(0, 3, 23),
        unit_vectors(rng, 50, 5),
        rng.integers(0, 3, 50),
    )
    whole = measure_retrieval(*asked)
    monkeypatch.setattr("training.retrieval.CHUNK_BYTES", 8 * 50 * 4)
    chunked = measure_retrieval(*asked)
    assert chunked.map == pytest.approx(whole.map)
    assert chunked.r_at_1 == pytest.approx(whole.r_at_1)


def test_a_perfect_gallery_scores_one_and_a_wrong_one_zero() -> None:
    vectors = np.eye(3, dtype=np.float32)
    labels = np.arange(3)
    assert measure_retrieval(vectors, labels, vectors, labels).map == 1
    wrong = measure_retrieval(vectors, labels + 3, vectors, labels)
    assert (wrong.r_at_1, wrong.precision_at_10, wrong.map) == (0, 0, 0)


@settings(max_examples=40, deadline=None)
@given(seed=seeds, images=st.integers(1, 60))
def test_class_figures_are_those_of_a_slow_count(seed: int, images: int) -> None:
    rng = np.random.default_rng(seed)
    labels = np.concatenate([np.arange(4), rng.integers(0, 4, images)])
    given_labels = rng.integers(0, 4, len(labels))
    confusion = count_confusion(labels, given_labels, 4)
    assert confusion.sum() == len(labels)
    for number, figure in enumerate(class_figures(confusion, ("a", "b", "c", "d"))):
        right = int(((labels == number) & (given_labels == number)).sum())
        predicted = int((given_labels == number).sum())
        assert figure.images == (labels == number).sum()
        assert figure.recall == pytest.approx(right / figure.images)
        assert figure.precision == (pytest.approx(right / predicted) if predicted else None)


def test_calibration_error_is_that_of_a_slow_count() -> None:
    rng = np.random.default_rng(0)
    probabilities = rng.dirichlet(np.ones(5) * 0.4, 500).astype(np.float32)
    labels = rng.integers(0, 5, 500)
    slow = 0.0
    confidences, given_labels = probabilities.max(1), probabilities.argmax(1)
    for number in range(15):
        inside = [
            n
            for n in range(500)
            if number / 15 <= confidences[n] < (number + 1) / 15 + number // 14
        ]
        if inside:
            gap = confidences[inside].mean() - (given_labels[inside] == labels[inside]).mean()
            slow += abs(gap) * len(inside) / 500
    assert calibration_error(probabilities, labels) == pytest.approx(slow, abs=1e-6)


def test_certain_and_right_has_no_calibration_error_certain_and_wrong_has_all() -> None:
    certain = np.eye(3, dtype=np.float32)
    assert calibration_error(certain, np.arange(3)) == 0
    assert calibration_error(certain, (np.arange(3) + 1) % 3) == 1
