import pytest
import torch
from torch import Tensor
from torch.nn import CrossEntropyLoss
from torch.optim import SGD
from torch.optim.lr_scheduler import ConstantLR

from training.errors import DivergenceError
from training.loop import StepReport, train_step
from vision.manifest import Architecture
from vision.network import EMBEDDING_LAYER, Network, build_network
from vision.preprocess import Preprocessing


class Bench:
    """A small network, ready to take steps."""

    def __init__(self, *, learning_rate: float = 0.1) -> None:
        torch.manual_seed(0)
        self.network: Network = build_network(
            Architecture(network="cnn", embedding_layer=EMBEDDING_LAYER, width=8, num_labels=3),
            Preprocessing(size=14, channels=1, mean=(0.5,), std=(0.5,)),
        )
        self.optimizer = SGD(self.network.parameters(), lr=learning_rate, momentum=0.9)
        self.scheduler = ConstantLR(self.optimizer, factor=1.0)

    def step(self, images_BCHW: Tensor, labels_B: Tensor) -> StepReport:
        return train_step(
            self.network,
            CrossEntropyLoss(),
            self.optimizer,
            self.scheduler,
            (images_BCHW, labels_B),
            max_gradient_norm=1.0,
        )

    def parameters(self) -> list[Tensor]:
        return [parameter.detach().clone() for parameter in self.network.parameters()]


def batch(value: float | None = None) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    images_BCHW = torch.randn(6, 1, 14, 14, generator=generator)
    if value is not None:
        images_BCHW[2, 0, 3, 3] = value
    return images_BCHW, torch.tensor([0, 1, 2, 0, 1, 2])


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_number_that_is_not_finite_stops_before_the_update(value: float) -> None:
    bench = Bench()
    bench.step(*batch())
    before = bench.parameters()
    with pytest.raises(DivergenceError, match="finite numbers were expected"):
        bench.step(*batch(value))
    for old, new in zip(before, bench.parameters(), strict=True):
        assert torch.equal(old, new)


def test_repeating_a_batch_learns_it() -> None:
    bench = Bench()
    reports = [bench.step(*batch()) for _ in range(40)]
    assert reports[-1].loss < 0.2 * reports[0].loss
    assert reports[-1].correct == reports[-1].images == 6


def test_a_step_says_what_it_did() -> None:
    report = Bench(learning_rate=0.02).step(*batch())
    assert report.images == 6
    assert 0 <= report.correct <= 6
    assert report.learning_rate == 0.02
    assert report.gradient_norm > 0
    assert report.loss == pytest.approx(1.1, abs=0.7)  # about ln 3: it knows nothing yet
