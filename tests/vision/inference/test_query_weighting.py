"""One vector, two questions: the very thing, or the same kind."""

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from tests.support.models import item_and_kind, manifest
from vision.inference.query_weighting import weight_queries
from vision.model.manifest import Architecture
from vision.networks.network import build_network

ITEM, SHARE = 24, 0.33


def parts(vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    item, kind = vectors[:, :ITEM], vectors[:, ITEM:]
    return (
        item / np.linalg.norm(item, axis=1, keepdims=True),
        kind / np.linalg.norm(kind, axis=1, keepdims=True),
    )


def vectors_of(count: int, architecture: Architecture, seed: int) -> np.ndarray:
    torch.manual_seed(seed)
    network = build_network(architecture, manifest(size=64).preprocessing).eval()
    features = torch.randn(count, network.features.width)  # type: ignore[arg-type]
    with torch.inference_mode():
        vectors, logits = network.head(features)
    assert logits.shape == (count, architecture.num_labels)
    return np.asarray(vectors)


@pytest.mark.parametrize("kind", [0.0, 0.2, SHARE, 0.9, 1.0, None])
def test_a_score_is_the_weighted_mean_of_both_cosines(kind: float | None) -> None:
    architecture = item_and_kind(item_width=ITEM, kind_width=9, kind_share=SHARE)
    vectors = vectors_of(12, architecture, seed=1)
    items, kinds = parts(vectors)

    weighed = weight_queries(vectors, architecture, kind)

    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(weighed.queries_QD, axis=1), 1, atol=1e-6)
    share = SHARE if kind is None else kind
    np.testing.assert_allclose(
        weighed.factors_Q[:, None] * (weighed.queries_QD @ vectors.T),
        (1 - share) * items @ items.T + share * kinds @ kinds.T,
        atol=1e-6,
    )


@pytest.mark.parametrize("kind", [-0.1, 1.1, float("nan")])
def test_a_knob_beyond_its_range_is_refused(kind: float) -> None:
    architecture = item_and_kind(item_width=ITEM, kind_width=9, kind_share=SHARE)
    with pytest.raises(ValueError, match=r"kind must lie in \[0, 1\]"):
        weight_queries(np.eye(33, dtype=np.float32), architecture, kind)


def test_a_model_without_two_parts_has_no_knob() -> None:
    queries = np.eye(4, 256, dtype=np.float32)
    assert (weight_queries(queries, manifest().architecture, None).queries_QD == queries).all()
    with pytest.raises(ValueError, match="no part for kinds alone"):
        weight_queries(queries, manifest().architecture, 0.5)


def test_a_mirror_image_has_the_same_features_where_both_are_looked_at() -> None:
    architecture = item_and_kind(item_width=ITEM, kind_width=9, kind_share=SHARE)
    network = build_network(architecture, manifest(size=64).preprocessing).eval()
    images = normalize(torch.randn(2, 3, 64, 64), dim=1)

    with torch.inference_mode():
        vectors, mirrored = network(images)[0], network(images.flip(-1))[0]

    torch.testing.assert_close(vectors, mirrored, atol=1e-4, rtol=0)


def test_a_network_without_classes_gives_no_scores() -> None:
    unlabelled = manifest(labels=(), size=28).architecture
    network = build_network(unlabelled, manifest().preprocessing).eval()
    vectors, logits = network(torch.randn(2, 3, 28, 28))
    assert vectors.shape == (2, 256)
    assert logits.shape == (2, 0)
