"""Limits of what a model knows: how they are fitted, and what they refuse."""

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.support.galleries.labelled_gallery import labelled
from training.evaluation.novelty import (
    REFUSED,
    area_under_curve,
    choose_references,
    fit_references,
    novelty_figures,
)
from training.evaluation.out_of_distribution import KINDS, out_of_distribution_images
from vision.image.preprocessing import Preprocessing
from vision.inference.encoder import Encoding

WIDTH, LABELS = 16, 3


def said(labels_N: NDArray[np.int64], rng: np.random.Generator, *, spread: float) -> Encoding:
    """Vectors about an axis of their class, and probabilities that are sure of it."""
    rows = np.eye(WIDTH)[labels_N] + rng.normal(0, spread, (len(labels_N), WIDTH))
    vectors = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    return Encoding(vectors, (0.97 * np.eye(LABELS)[labels_N] + 0.01).astype(np.float32))


def test_about_the_stated_share_of_new_photos_is_refused() -> None:
    refused, new = 0, 0
    for seed in range(5):
        rng = np.random.default_rng(seed)
        learnt_K, held_N, new_N = (rng.integers(0, LABELS, n) for n in (300, 500, 2000))
        known = said(learnt_K, rng, spread=0.2)
        references = fit_references(known.vectors_BD, learnt_K, said(held_N, rng, spread=0.2))
        assert references.refused == REFUSED
        figures = novelty_figures(
            references, said(new_N, rng, spread=0.2), np.ones(2000, np.bool_), {}
        )
        refused += figures.refused_right
        new += 2000
    assert 0.003 < refused / new <= 0.02 * 1.3


def test_few_photos_state_the_larger_error_they_can_keep() -> None:
    rng = np.random.default_rng(0)
    labels_K = np.arange(30) % LABELS
    known, held = (said(labels_K, rng, spread=0.1) for _ in range(2))
    references = fit_references(known.vectors_BD, labels_K, held)
    assert references.refused == pytest.approx(2 / 31)
    figures = novelty_figures(references, held, np.ones(30, np.bool_), {})
    assert figures.refused == 0  # none of those that the limits were fitted with


def test_strangers_far_away_or_between_classes_are_refused() -> None:
    rng = np.random.default_rng(0)
    labels_N = np.arange(600) % LABELS
    known, held = (said(labels_N, rng, spread=0.05) for _ in range(2))
    references = fit_references(known.vectors_BD, labels_N, held)
    far = Encoding(
        np.eye(WIDTH, dtype=np.float32)[[7] * 20], np.full((20, LABELS), 1 / 3, np.float32)
    )
    mistaken = Encoding(held.vectors_BD[:20], np.roll(held.probabilities_BL[:20], 1, axis=1))
    correct_N = np.ones(600, np.bool_)
    correct_N[:3] = False
    figures = novelty_figures(references, held, correct_N, {"far": far, "mistaken": mistaken})
    by_kind = {one.kind: one for one in figures.strangers}
    assert (by_kind["far"].refused, by_kind["far"].auroc, by_kind["far"].certain) == (1, 1, 0)
    assert by_kind["mistaken"].refused == 1
    assert (by_kind["mistaken"].certain, by_kind["mistaken"].certain_and_sure) == (1, 0)
    assert figures.refused <= REFUSED
    assert figures.refused_right + figures.refused_wrong == round(600 * figures.refused)


def test_references_are_of_all_classes_and_do_not_depend_on_the_order() -> None:
    rng = np.random.default_rng(0)
    labels_N = np.repeat(np.arange(3), (2, 40, 400))
    images = labelled(
        rng.integers(0, 256, (442, 1, 4, 4), dtype=np.uint8), labels_N, ("a", "b", "c")
    )
    chosen = choose_references(images.labels_N, images.contents_N, most=100)
    assert np.bincount(labels_N[chosen]).tolist() == [2, 40, 58]
    order = rng.permutation(442)
    shuffled = images.take(order)
    again = choose_references(shuffled.labels_N, shuffled.contents_N, most=100)
    assert set(shuffled.contents_N[again].tolist()) == set(images.contents_N[chosen].tolist())
    assert choose_references(images.labels_N, images.contents_N).tolist() == list(range(442))


def test_the_area_under_the_curve_counts_pairs() -> None:
    rng = np.random.default_rng(0)
    low, high = rng.integers(0, 9, 30).astype(float), rng.integers(3, 12, 20).astype(float)
    pairs = [(h > one) + 0.5 * (h == one) for h in high for one in low]
    assert area_under_curve(low, high) == pytest.approx(np.mean(pairs))


def test_strange_pictures_are_the_models_input_and_the_same_each_time() -> None:
    grey = Preprocessing(size=20, channels=1, mean=(0.5,), std=(0.5,))
    first, again = (out_of_distribution_images(grey, each=2) for _ in range(2))
    assert set(first) == set(KINDS)
    for kind, images_NCHW in first.items():
        assert (images_NCHW.shape, images_NCHW.dtype) == ((2, 1, 20, 20), np.uint8)
        assert images_NCHW[0].tobytes() != images_NCHW[1].tobytes()
        np.testing.assert_array_equal(images_NCHW, again[kind])
