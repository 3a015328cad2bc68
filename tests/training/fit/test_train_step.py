"""One step of training: what it learns, what it says, and numbers that are not finite."""

import pytest
import torch
from torch import Tensor
from torch.optim import SGD
from torch.optim.lr_scheduler import ConstantLR

from tests.support.learners import SMALL, small_trainable_model
from training.distributed import ProcessGroup
from training.errors import DivergenceError
from training.fit.train_step import FETCHED_TOGETHER, TrainStep
from training.progress import StepMetrics

ALONE = ProcessGroup(0, 1, torch.device("cpu"))


class Bench:
    """A small network, ready to take steps."""

    def __init__(
        self, *, learning_rate: float = 0.1, precision: torch.dtype = torch.float32
    ) -> None:
        self.model = small_trainable_model(SMALL)
        optimizer = SGD(self.model.parameters(), lr=learning_rate, momentum=0.9)
        self.stepper = TrainStep(
            optimizer,
            ConstantLR(optimizer, factor=1.0),
            ALONE,
            max_gradient_norm=1.0,
            precision=precision,
        )

    def step(self, images_BCHW: Tensor, labels: Tensor) -> StepMetrics:
        self.stepper.step(self.model.train(), (images_BCHW, labels))
        (metrics,) = self.stepper.fetch()
        return metrics


def batch(value: float | None = None) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    images_BCHW = torch.randn(6, 1, 14, 14, generator=generator)
    if value is not None:
        images_BCHW[2, 0, 3, 3] = value
    return images_BCHW, torch.tensor([0, 1, 2, 0, 1, 2])


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_number_that_is_not_finite_stops_the_training(
    value: float, precision: torch.dtype
) -> None:
    bench = Bench(precision=precision)
    bench.step(*batch())
    with pytest.raises(DivergenceError, match="finite numbers were expected"):
        bench.step(*batch(value))


def test_steps_are_told_in_order_and_a_diverged_one_whatever_came_after_it() -> None:
    bench = Bench()
    alone = Bench()
    for _ in range(FETCHED_TOGETHER):
        bench.stepper.step(bench.model.train(), batch())
    assert bench.stepper.is_due
    told = bench.stepper.fetch()
    assert told == [alone.step(*batch()) for _ in range(FETCHED_TOGETHER)]
    assert not bench.stepper.is_due
    assert bench.stepper.fetch() == []
    bench.stepper.step(bench.model, batch(float("nan")))
    bench.stepper.step(bench.model, batch())
    with pytest.raises(DivergenceError, match="finite numbers were expected"):
        bench.stepper.fetch()


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_repeating_a_batch_learns_it(precision: torch.dtype) -> None:
    bench = Bench(precision=precision)
    reports = [bench.step(*batch()) for _ in range(40)]
    assert reports[-1].loss < 0.2 * reports[0].loss
    assert reports[-1].correct == reports[-1].images == 6
    assert all(parameter.dtype == torch.float32 for parameter in bench.model.parameters())


def test_shares_of_labels_are_learnt_like_labels() -> None:
    images_BCHW, labels_B = batch()
    whole = Bench().step(images_BCHW, torch.nn.functional.one_hot(labels_B, 3).float())
    assert whole.loss == pytest.approx(Bench().step(images_BCHW, labels_B).loss, rel=1e-6)
    assert 0 <= whole.correct <= 6


def test_a_step_says_what_it_did() -> None:
    report = Bench(learning_rate=0.02).step(*batch())
    assert report.images == 6
    assert 0 <= report.correct <= 6
    assert report.learning_rate == 0.02
    assert report.gradient_norm > 0
    assert report.loss == pytest.approx(1.1, abs=0.7)  # about ln 3: it knows nothing yet
