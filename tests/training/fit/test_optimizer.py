"""Learning rates over a training, and the precision of each device."""

from dataclasses import replace
from typing import Literal

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.optim import SGD
from torch.optim.lr_scheduler import OneCycleLR

from tests.support.learners import SMALL
from training.errors import RecipeError
from training.fit.optimizer import cpu_has_bf16, pick_precision, rate_share
from training.recipes.recipe import Precision

CPU = torch.device("cpu")


@pytest.mark.parametrize("steps", [20, 137])
def test_one_cycle_is_that_of_torch(steps: int) -> None:
    recipe = replace(SMALL, schedule="one-cycle", warm_up=0.25)
    optimizer = SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    theirs = OneCycleLR(
        optimizer,
        1.0,
        steps,
        pct_start=0.25,
        div_factor=10,
        final_div_factor=1e3,
        cycle_momentum=False,
    )
    for step in range(steps):
        assert rate_share(recipe, step, steps) == pytest.approx(theirs.get_last_lr()[0], abs=1e-9)
        optimizer.step()
        if step < steps - 1:
            theirs.step()


@given(
    schedule=st.sampled_from(["constant", "one-cycle", "cosine"]),
    steps=st.integers(1, 500),
    warm_up=st.floats(0.01, 0.9),
)
def test_every_schedule_stays_within_zero_and_the_highest_rate(
    schedule: Literal["constant", "one-cycle", "cosine"], steps: int, warm_up: float
) -> None:
    recipe = replace(SMALL, schedule=schedule, warm_up=warm_up)
    shares = [rate_share(recipe, step, steps) for step in range(steps + 1)]
    assert all(0 <= share <= 1 for share in shares)
    top = shares.index(max(shares))
    assert shares[: top + 1] == sorted(shares[: top + 1])
    assert shares[top:] == sorted(shares[top:], reverse=True)


@pytest.mark.parametrize(
    ("wanted", "depthwise", "expected"),
    [
        ("fp32", False, "fp32"),
        ("bf16", True, "bf16"),
        ("auto", True, "fp32"),
        ("auto", False, "bf16" if cpu_has_bf16() else "fp32"),
    ],
)
def test_the_cpu_takes_bfloat16_where_it_is_faster(
    wanted: Precision, depthwise: bool, expected: Precision
) -> None:
    assert pick_precision(wanted, CPU, depthwise=depthwise) == expected


def test_float16_on_the_cpu_is_refused() -> None:
    with pytest.raises(RecipeError, match="fp16 needs a GPU"):
        pick_precision("fp16", CPU, depthwise=False)
