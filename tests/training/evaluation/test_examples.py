"""What a report shows of a tiny network with random weights, and where it puts the vectors."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.training.evaluation.test_evaluate import squares_dataset, write_tiny_model
from training.data.dataset import Dataset
from training.evaluation.evaluate import Measurement, evaluate_model
from training.evaluation.examples import Examples, choose_examples
from training.statistics.tsne import project_vectors
from vision.inference.encoder import Encoding

seeds = st.integers(0, 2**31)


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Measurement:
    folder = tmp_path_factory.mktemp("evidence") / "model"
    write_tiny_model(folder)
    return evaluate_model(folder, squares_dataset(), device="cpu")


def examples_of(measured: Measurement, dataset: Dataset) -> Examples:
    return choose_examples(
        measured.queries,
        dataset.test.labels_N,
        measured.predictions.retrieval.first_Q,
        measured.gallery.vectors_BD,
        group_keys=(dataset.test.group_keys_N, dataset.train.group_keys_N),
    )


def test_the_evidence_shows_what_the_network_said(measured: Measurement) -> None:
    dataset = squares_dataset()
    examples = examples_of(measured, dataset)
    probabilities_NL = measured.queries.probabilities_BL
    assert len(examples.mistakes) == min(24, (~measured.predictions.correct_N).sum())
    for mistake in examples.mistakes:
        assert mistake.label == dataset.test.labels_N[mistake.position] != mistake.predicted
        assert mistake.predicted == probabilities_NL[mistake.position].argmax()
        assert mistake.probability == probabilities_NL[mistake.position].max()
    sureness = [mistake.probability for mistake in examples.mistakes]
    assert sureness == sorted(sureness, reverse=True)

    points = examples.plot_points
    assert (points.xy.shape, points.xy.dtype) == ((30, 2), np.float32)
    assert points.indexes.tolist() == list(range(30))
    assert (points.predicted == probabilities_NL.argmax(axis=1)).all()

    scores_NK = measured.queries.vectors_BD @ measured.gallery.vectors_BD.T
    assert len({searched.position for searched in examples.neighbours}) == 12
    for position, gallery_indexes, scores in examples.neighbours:
        assert len(gallery_indexes) == 8
        np.testing.assert_allclose(scores, np.sort(scores_NK[position])[::-1][:8], atol=1e-6)
        np.testing.assert_allclose(scores, scores_NK[position, list(gallery_indexes)], atol=1e-6)
    assert examples_of(measured, dataset).neighbours == examples.neighbours


@settings(max_examples=30, deadline=None)
@given(seed=seeds)
def test_the_example_searches_show_every_class_and_right_beside_wrong(seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels_N = np.repeat(np.arange(6), 10)
    first_N = rng.permuted(np.arange(60).reshape(6, 10) % 10 > 2, axis=1).ravel()
    vectors_ND = rng.normal(size=(60, 4)).astype(np.float32)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "training.evaluation.examples.PLOT_POINTS", 9
        )  # so few that no t-SNE is needed
        examples = choose_examples(
            Encoding(vectors_ND, np.eye(6, dtype=np.float32)[labels_N]),
            labels_N,
            first_N,
            vectors_ND,
            group_keys=(np.arange(len(labels_N)), np.arange(len(labels_N), 2 * len(labels_N))),
            seed=seed,
        )
    chosen = np.array([searched.position for searched in examples.neighbours])
    assert np.bincount(labels_N[chosen]).tolist() == [2] * 6
    assert first_N[chosen].sum() == 6
    assert examples.mistakes == ()


@settings(max_examples=30, deadline=None)
@given(seed=seeds, most=st.integers(10, 40))
def test_the_map_has_of_each_class_about_the_same_share(seed: int, most: int) -> None:
    rng = np.random.default_rng(seed)
    labels_N = rng.permutation(np.repeat(np.arange(3), (20, 40, 60)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("training.evaluation.examples.PLOT_POINTS", most)
        patch.setattr(
            "training.evaluation.examples.project_vectors", lambda vectors_ND, seed: vectors_ND
        )
        encoding = Encoding(np.eye(120, 4, dtype=np.float32), np.eye(120, 3, dtype=np.float32))
        points = choose_examples(
            encoding,
            labels_N,
            labels_N > 0,
            np.eye(4),
            group_keys=(np.arange(120), np.arange(120, 124)),
        ).plot_points
    assert len(set(points.indexes.tolist())) == most
    shares = np.bincount(labels_N[points.indexes], minlength=3) / (20, 40, 60)
    assert shares == pytest.approx(most / 120, abs=0.06)


def test_groups_of_vectors_stay_groups_on_the_plane() -> None:
    rng = np.random.default_rng(0)
    labels_N = np.repeat(np.arange(3), 15)
    vectors_ND = (3 * np.eye(3, 8)[labels_N] + 0.2 * rng.normal(size=(45, 8))).astype(np.float32)
    places_N2 = project_vectors(vectors_ND)
    apart_NN = np.linalg.norm(places_N2[:, None] - places_N2, axis=2) + 1e9 * np.eye(45)
    assert (labels_N[apart_NN.argmin(axis=1)] == labels_N).all()
    assert (project_vectors(vectors_ND) == places_N2).all()


@pytest.mark.parametrize("shape", [(1, 4), (2, 4), (9, 1), (9, 4), (10, 4), (12, 1)])
def test_few_vectors_have_places_too(shape: tuple[int, int]) -> None:
    vectors_ND = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    places_N2 = project_vectors(vectors_ND)
    assert places_N2.shape == (shape[0], 2)
    assert np.isfinite(places_N2).all()


def test_vectors_that_are_all_the_same_lie_in_one_place() -> None:
    assert np.unique(project_vectors(np.ones((20, 4), np.float32)), axis=0).shape == (1, 2)
