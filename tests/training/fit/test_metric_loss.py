"""The losses on vectors, against those of a library that counts pairs."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pytorch_metric_learning import losses
from torch.nn.functional import normalize

from training.fit.metric_loss import (
    CONTRAST_TEMPERATURE,
    COSINE_MARGIN,
    COSINE_SCALE,
    CosFace,
    SupervisedContrastive,
)

labels_of_batches = st.lists(st.integers(0, 3), min_size=2, max_size=24)


def embedded(count: int) -> torch.Tensor:
    return torch.randn(count, 8, generator=torch.Generator().manual_seed(count)).requires_grad_()


@settings(max_examples=40, deadline=None)
@given(labels=labels_of_batches)
def test_the_contrastive_loss_is_the_librarys(labels: list[int]) -> None:
    labels_B = torch.tensor(labels)
    ours_BD, theirs_BD = embedded(len(labels)), embedded(len(labels))
    library = losses.SupConLoss(temperature=CONTRAST_TEMPERATURE)
    ours = SupervisedContrastive()(normalize(ours_BD, dim=1), labels_B)
    theirs = library(normalize(theirs_BD, dim=1), labels_B)
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-4, abs=1e-5)
    if theirs.item() > 0:
        ours.backward()
        theirs.backward()
        torch.testing.assert_close(ours_BD.grad, theirs_BD.grad, rtol=1e-3, atol=1e-4)


@settings(max_examples=40, deadline=None)
@given(labels=labels_of_batches)
def test_cosface_is_the_librarys(labels: list[int]) -> None:
    labels_B, vectors_BD = torch.tensor(labels), normalize(embedded(len(labels)), dim=1)
    ours = CosFace(4, 8)
    theirs = losses.CosFaceLoss(4, 8, margin=COSINE_MARGIN, scale=COSINE_SCALE)
    theirs.load_state_dict(ours.state_dict())
    expected = theirs(vectors_BD, labels_B).item()
    assert ours(vectors_BD, labels_B).item() == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_a_number_that_is_not_finite_is_not_passed_over() -> None:
    broken_BD = normalize(embedded(4), dim=1).detach().clone()
    broken_BD[0, 0] = float("nan")
    assert SupervisedContrastive()(broken_BD, torch.tensor([0, 0, 1, 1])).isnan()
