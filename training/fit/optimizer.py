"""What a recipe says about learning, as torch's own objects."""

import math
from typing import Any

import torch
from torch.optim import SGD, Adam, AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from training.errors import RecipeError
from training.recipes.recipe import Precision, Recipe

# One-cycle starts at a tenth of the highest rate and ends at a thousandth of that start.
START_DIVISOR = 10.0
END_DIVISOR = 1e3
COSINE_START = 0.01  # of the highest rate, at the first step of the warm-up

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def build_optimizer(recipe: Recipe, groups: list[dict[str, Any]]) -> Optimizer:
    """Return the optimizer of parameter groups that have their own ``lr`` and ``weight_decay``.

    It updates all parameters by one kernel, and passes over a step of float16 that overflowed
    without asking the device whether it did.
    """
    match recipe.optimizer:
        case "adam":
            return Adam(groups, fused=True)
        case "adamw":
            return AdamW(groups, fused=True)
        case "sgd":
            return SGD(groups, momentum=recipe.momentum, nesterov=recipe.momentum > 0, fused=True)


def build_scheduler(recipe: Recipe, optimizer: Optimizer, *, steps: int) -> LambdaLR:
    """Return the learning-rate schedule over ``steps`` steps; every group keeps its own share."""
    return LambdaLR(optimizer, lambda step: rate_share(recipe, step, steps))


def rate_share(recipe: Recipe, step: int, steps: int) -> float:
    """Return the learning rate of ``step`` (0 is the first), as a share of the highest.

    One-cycle: half a cosine up, another down (Smith & Topin 2018, arXiv:1708.07120; as torch's
    OneCycleLR, which divides by zero when the warm-up is one step). Cosine: a line up, half a
    cosine down (Loshchilov & Hutter 2017, arXiv:1608.03983).
    """
    if recipe.schedule == "constant":
        return 1.0
    peak = max(recipe.warm_up * steps - 1, 0.0)
    if step < peak:
        risen = step / peak
        if recipe.schedule == "cosine":
            return COSINE_START + (1 - COSINE_START) * risen
        return _half_cosine(1 / START_DIVISOR, 1.0, risen)
    fallen = min((step - peak) / max(steps - 1 - peak, 1.0), 1.0)
    end = 0.0 if recipe.schedule == "cosine" else 1 / START_DIVISOR / END_DIVISOR
    return _half_cosine(1.0, end, fallen)


def _half_cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * share)) / 2


def pick_precision(wanted: Precision, device: torch.device, *, depthwise: bool) -> Precision:
    """Return the precision of activations: ``auto`` becomes the fastest that trains well.

    On a GPU bfloat16, or float16 where that is missing. On a CPU bfloat16 where it has instructions
    for it, unless gradients go through depthwise convolutions: measured 1.3 to 1.9 times as fast as
    float32 for plain ones, and 0.5 to 0.9 times for depthwise ones.

    Raises:
        RecipeError: float16 was asked for on a CPU, where nothing scales gradients.
    """
    if wanted == "fp16" and device.type == "cpu":
        raise RecipeError("fp16 needs a GPU; use bf16 or fp32 on the CPU")
    if wanted != "auto":
        return wanted
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported() else "fp16"
    return "bf16" if cpu_has_bf16() and not depthwise else "fp32"


def cpu_has_bf16() -> bool:
    """Return whether this CPU multiplies bfloat16 itself (AVX512-BF16 or AMX)."""
    return bool(torch.cpu._is_avx512_bf16_supported())
