"""How far an export is from torch: known vectors in, known figures and refusals out."""

import numpy as np
import pytest
from numpy.typing import NDArray

from vision.export.encoding_comparison import compare_encodings
from vision.inference.encoder import Encoding
from vision.model.export_accuracy import Difference, LossLimits, sign_test

RNG = np.random.default_rng(0)
CLASSES = 3
LABELS_N = np.arange(60) % CLASSES


def unit(rows_ND: NDArray[np.float64]) -> NDArray[np.float32]:
    return (rows_ND / np.linalg.norm(rows_ND, axis=1, keepdims=True)).astype(np.float32)


VECTORS_ND = unit(RNG.normal(size=(60, 16)) + 2 * np.eye(16)[LABELS_N])
RIGHT_NL = np.eye(CLASSES, dtype=np.float32)[LABELS_N]


def test_what_is_the_same_loses_nothing() -> None:
    same = Encoding(VECTORS_ND, RIGHT_NL)
    found = compare_encodings(same, same, LABELS_N)
    assert found.cosine_min == pytest.approx(1)
    assert (found.accuracy_torch, found.accuracy, found.lost, found.won) == (1.0, 1.0, 0, 0)
    assert found.neighbours is not None
    assert found.neighbours.overlap == found.neighbours.overlap_beside_torch == 1.0
    assert (found.neighbours.lost, found.neighbours.won) == (0, 0)
    assert LossLimits(min_overlap=1.0, max_accuracy_loss=0.0).refuse(found) is None
    assert Difference.from_json(found.to_json()) == found


def test_the_nearest_are_those_that_a_plain_search_finds() -> None:
    other_ND = unit(VECTORS_ND + 0.2 * RNG.normal(size=VECTORS_ND.shape))
    found = compare_encodings(
        Encoding(VECTORS_ND, RIGHT_NL), Encoding(other_ND, RIGHT_NL), LABELS_N
    )
    assert found.neighbours is not None
    shares, right = [], []
    for query in range(60):
        others = [place for place in range(60) if place != query]
        by_torch = sorted(others, key=lambda place: -float(VECTORS_ND[query] @ VECTORS_ND[place]))
        own = sorted(others, key=lambda place: -float(other_ND[query] @ other_ND[place]))
        shares.append(len(set(by_torch[:10]) & set(own[:10])) / 10)
        right.append(LABELS_N[own[0]] == LABELS_N[query])
    assert found.neighbours.overlap == pytest.approx(np.mean(shares))
    assert found.neighbours.r_at_1 == pytest.approx(np.mean(right))
    assert 0 < found.neighbours.overlap < found.neighbours.overlap_beside_torch < 1


def test_a_turned_space_finds_the_same_by_itself_and_nothing_beside_torch() -> None:
    turned_ND = VECTORS_ND @ np.linalg.qr(RNG.normal(size=(16, 16)))[0].astype(np.float32)
    found = compare_encodings(
        Encoding(VECTORS_ND, RIGHT_NL), Encoding(turned_ND, RIGHT_NL), LABELS_N
    )
    assert found.neighbours is not None
    assert found.neighbours.overlap == 1.0
    assert found.neighbours.overlap_beside_torch < 0.5
    refusal = LossLimits(min_overlap=0.5).refuse(found)
    assert refusal is not None


def test_without_classes_only_vectors_are_compared() -> None:
    none = Encoding(VECTORS_ND, RIGHT_NL[:, :0])
    found = compare_encodings(none, none, LABELS_N)
    assert (found.accuracy_torch, found.accuracy, found.lost, found.won) == (None,) * 4
    assert found.neighbours is not None
    assert found.neighbours.r_at_1 is None
    assert LossLimits().refuse(found) is None
    assert Difference.from_json(found.to_json()) == found
    assert "accuracy" not in str(found)


def test_one_image_has_no_neighbours() -> None:
    one = Encoding(VECTORS_ND[:1], RIGHT_NL[:1])
    assert compare_encodings(one, one, LABELS_N[:1]).neighbours is None


@pytest.mark.parametrize(
    ("lost", "won", "refused"),
    [(0, 0, False), (1, 0, False), (5, 0, True), (6, 4, False), (40, 20, True), (20, 40, False)],
)
def test_a_loss_is_refused_that_is_too_large_and_that_chance_does_not_explain(
    lost: int, won: int, refused: bool
) -> None:
    difference = Difference(
        images=600,
        cosine_mean=0.99,
        cosine_low=0.9,
        cosine_min=0.9,
        accuracy_torch=0.9,
        accuracy=0.9 - (lost - won) / 600,
        lost=lost,
        won=won,
    )
    refusal = LossLimits(max_accuracy_loss=0.003).refuse(difference)
    assert refusal == ("it loses more than 0.3 points of accuracy" if refused else None)


def test_chance_is_that_of_fair_coins() -> None:
    assert sign_test(0, 0) == 1
    assert sign_test(3, 0) == 1 / 8
    assert sign_test(2, 1) == 1 / 2
