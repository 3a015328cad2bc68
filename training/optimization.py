"""What a recipe says about learning, as torch's own objects."""

from torch import nn
from torch.optim import SGD, Adam, Optimizer
from torch.optim.lr_scheduler import ConstantLR, LRScheduler, OneCycleLR

from training.recipes import Recipe

# One-cycle starts at a tenth of the highest rate and ends at a thousandth of that start.
START_DIVISOR = 10.0
END_DIVISOR = 1e3


def build_loss(recipe: Recipe) -> nn.Module:
    """Return the cross-entropy in nats, with smoothed labels (Szegedy et al. 2016, section 7)."""
    return nn.CrossEntropyLoss(label_smoothing=recipe.label_smoothing)


def build_optimizer(recipe: Recipe, network: nn.Module) -> Optimizer:
    """Return the optimizer; only weight matrices and kernels decay, not biases and scales."""
    parameters = list(network.parameters())
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": recipe.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    if recipe.optimizer == "adam":
        return Adam(groups, lr=recipe.learning_rate)
    return SGD(
        groups, lr=recipe.learning_rate, momentum=recipe.momentum, nesterov=recipe.momentum > 0
    )


def build_scheduler(recipe: Recipe, optimizer: Optimizer, *, steps: int) -> LRScheduler:
    """Return the learning-rate schedule over ``steps`` steps (one-cycle: Smith & Topin 2018)."""
    if recipe.schedule == "constant":
        return ConstantLR(optimizer, factor=1.0)
    return OneCycleLR(
        optimizer,
        max_lr=recipe.learning_rate,
        total_steps=steps,
        pct_start=recipe.warm_up,
        cycle_momentum=False,
        div_factor=START_DIVISOR,
        final_div_factor=END_DIVISOR,
    )
