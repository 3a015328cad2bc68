"""What learns, how fast, and by which loss."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from tests.support.learners import SMALL, small_trainable_model
from training.errors import RecipeError
from training.fit.objective import balanced_weights, layer_groups
from training.fit.weight_average import WeightAverage
from training.recipes.recipe import FineTuning, MetricLoss
from vision.networks.network import Network

TUNED = replace(
    SMALL,
    fine_tuning=FineTuning(
        groups=4, frozen_groups=1, head_epochs=2, epochs_per_group=1, rate=0.5, rate_decay=0.1
    ),
)


def batch() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(12, 1, 14, 14, generator=generator), torch.arange(12) % 3


@pytest.mark.parametrize("metric_loss", ["supervised-contrastive", "cosface"])
def test_a_metric_loss_pulls_classes_together(metric_loss: MetricLoss) -> None:
    recipe = replace(SMALL, metric_loss=metric_loss, metric_weight=1.0)
    model = small_trainable_model(recipe).train()
    images_BCHW, labels_B = batch()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    losses = []
    for _ in range(30):
        optimizer.zero_grad()
        loss, _ = model(images_BCHW, labels_B)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    vectors_BD, _ = model.network(images_BCHW)
    scores_BB = (vectors_BD @ vectors_BD.T).detach()
    same_BB = labels_B[:, None] == labels_B
    assert scores_BB[same_BB].mean() > scores_BB[~same_BB].mean() + 0.5


def test_the_metric_loss_is_added_with_its_weight() -> None:
    images_BCHW, labels_B = batch()
    losses = [
        small_trainable_model(replace(SMALL, metric_loss="cosface", metric_weight=weight))
        .eval()(images_BCHW, labels_B)[0]
        .item()
        for weight in (0.0, 1.0, 3.0)
    ]
    plain = small_trainable_model(SMALL).eval()(images_BCHW, labels_B)[0].item()
    assert losses[0] == pytest.approx(plain, rel=1e-5)
    assert losses[2] - losses[0] == pytest.approx(3 * (losses[1] - losses[0]), rel=1e-4)


@given(counts=st.lists(st.integers(1, 10_000), min_size=2, max_size=9), balance=st.floats(0, 1))
def test_class_weights_are_one_on_average_and_favour_the_rare(
    counts: list[int], balance: float
) -> None:
    counts_L = np.array(counts)
    weights_L = balanced_weights(counts_L, balance).double().numpy()
    assert (weights_L * counts_L).sum() / counts_L.sum() == pytest.approx(1, rel=1e-5)
    rare, common = counts_L.argmin(), counts_L.argmax()
    ratio = (counts_L[common] / counts_L[rare]) ** balance
    assert weights_L[rare] / weights_L[common] == pytest.approx(ratio, rel=1e-4)


def test_a_full_balance_counts_every_class_alike() -> None:
    images_BCHW, _ = batch()
    labels_B = torch.tensor([0] * 8 + [1] * 3 + [2])
    recipe = replace(SMALL, class_balance=1.0)
    model = small_trainable_model(recipe, counts=(8, 3, 1)).eval()
    loss, logits_BL = model(images_BCHW, labels_B)
    losses_B = torch.nn.functional.cross_entropy(logits_BL, labels_B, reduction="none")
    of_classes = torch.stack([losses_B[labels_B == label].mean() for label in range(3)])
    assert loss.item() == pytest.approx(of_classes.mean().item(), rel=1e-5)


# Fine-tuning


@pytest.mark.parametrize(
    ("epoch", "learning"), [(1, []), (2, []), (3, [3]), (4, [2, 3]), (5, [1, 2, 3]), (9, [1, 2, 3])]
)
def test_groups_are_let_loose_from_the_top_and_the_frozen_never(
    epoch: int, learning: list[int]
) -> None:
    assert TUNED.fine_tuning is not None
    model = small_trainable_model(TUNED)
    model.set_trainable(TUNED.fine_tuning, epoch=epoch)
    groups = layer_groups(model.network.features, TUNED.fine_tuning)
    found = [
        number
        for number, modules in enumerate(groups)
        if all(p.requires_grad for m in modules for p in m.parameters(recurse=False))
    ]
    assert found == learning
    assert all(p.requires_grad for p in model.network.embedding.parameters())
    assert all(p.requires_grad for p in model.network.classifier.parameters())


def test_what_rests_keeps_every_byte_and_what_learns_moves() -> None:
    assert TUNED.fine_tuning is not None
    model = small_trainable_model(TUNED)
    model.set_trainable(TUNED.fine_tuning, epoch=4)
    groups = layer_groups(model.network.features, TUNED.fine_tuning)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    optimizer = torch.optim.SGD(model.parameter_groups(TUNED), lr=0.1, weight_decay=0.1)
    loss, _ = model.train()(*batch())
    loss.backward()
    optimizer.step()
    names = {module: name for name, module in model.named_modules()}
    for number, modules in enumerate(groups):
        for module in modules:
            for key, tensor in module.state_dict().items():
                moved = not torch.equal(tensor, before[f"{names[module]}.{key}"])
                assert moved == (number >= 2), (number, names[module], key)


def test_a_lower_group_learns_more_slowly_than_the_one_above() -> None:
    model = small_trainable_model(TUNED)
    rates = [group["lr"] for group in model.parameter_groups(TUNED)]
    assert rates[0] == TUNED.learning_rate
    wanted = {1.0, 0.5, 0.05, 0.005, 0.0005}
    assert {round(rate / TUNED.learning_rate, 6) for rate in rates} == wanted
    of_optimizer = [p for group in model.parameter_groups(TUNED) for p in group["params"]]
    assert len(of_optimizer) == len(list(model.parameters()))


def test_only_matrices_and_kernels_decay() -> None:
    for group in small_trainable_model(SMALL).parameter_groups(SMALL):
        for parameter in group["params"]:
            assert group["weight_decay"] == (SMALL.weight_decay if parameter.ndim > 1 else 0)


def test_more_groups_than_layers_are_refused() -> None:
    with pytest.raises(RecipeError, match=r"the backbone has \d+ layers, too few for 99 groups"):
        small_trainable_model(replace(SMALL, fine_tuning=FineTuning(groups=99)))


# The moving average


def test_a_moving_average_is_that_of_a_slow_loop() -> None:
    network: Network = small_trainable_model(SMALL).network
    average = WeightAverage(network, 0.9, {})
    weight = network.classifier.weight
    slow = None
    for step in range(30):
        with torch.no_grad():
            weight.add_(torch.randn(weight.shape, generator=torch.Generator().manual_seed(step)))
        average.update()
        decay = min(0.9, (1 + step) / (10 + step))
        slow = weight.clone() if slow is None else decay * slow + (1 - decay) * weight
    assert torch.allclose(average.network.classifier.weight, slow, atol=1e-5)
