"""Complete training set-ups. A recipe is data: it is saved with the model it made."""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any, Final, Literal

from training.data import FASHION_MNIST
from vision.preprocess import Preprocessing


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """Everything that decides a training, apart from the images."""

    name: str
    network: str  # a name that vision.network.build_network knows
    width: int  # numbers in a vector
    preprocessing: Preprocessing

    epochs: int  # at most; the learning-rate schedule spans all of them
    batch_size: int  # images; fewer when there are fewer
    optimizer: Literal["adam", "sgd"]  # sgd: with Nesterov's momentum
    learning_rate: float  # per step; the highest of the schedule
    schedule: Literal["constant", "one-cycle"]
    warm_up: float  # share of all steps in which the one-cycle rate rises, in (0, 1)
    momentum: float  # of sgd, in [0, 1)
    weight_decay: float  # per step and unit of rate, on weight matrices and kernels only
    label_smoothing: float  # share of a label spread over all labels, in [0, 1)
    max_gradient_norm: float  # L2 over all parameters; larger gradients are scaled down to it

    flip: bool  # mirror half of the images left to right
    shift: int  # pixels; each image moves by up to this many, both ways

    validation: float  # share of each class, its last images, held out to stop early, in [0, 1)
    patience: int  # epochs without a lower validation loss before stopping; needs validation
    keep_best: bool  # keep the weights of the lowest validation loss instead of the last ones
    seed: int = 0  # of weights, order, augmentation and dropout

    def __post_init__(self) -> None:
        at_least_1 = {"epochs": self.epochs, "batch_size": self.batch_size}
        above_0 = {
            "learning_rate": self.learning_rate,
            "max_gradient_norm": self.max_gradient_norm,
        }
        shares = {
            "momentum": self.momentum,
            "label_smoothing": self.label_smoothing,
            "validation": self.validation,
        }
        not_negative = {
            "weight_decay": self.weight_decay,
            "shift": self.shift,
            "patience": self.patience,
            "seed": self.seed,
        }
        for name, count in at_least_1.items():
            if count < 1:
                raise ValueError(f"{name} must be at least 1, got {count}")
        for name, value in above_0.items():
            if not value > 0:
                raise ValueError(f"{name} must be above 0, got {value}")
        for name, share in shares.items():
            if not 0 <= share < 1:
                raise ValueError(f"{name} must lie in [0, 1), got {share}")
        for name, value in not_negative.items():
            if not value >= 0:
                raise ValueError(f"{name} must not be negative, got {value}")
        if not 0 < self.warm_up < 1:
            raise ValueError(f"warm_up must lie in (0, 1), got {self.warm_up}")
        if self.shift >= self.preprocessing.size:
            raise ValueError(
                f"shift must be less than the image's {self.preprocessing.size} pixels, "
                f"got {self.shift}"
            )

    def to_json(self) -> dict[str, Any]:
        """Return every setting as JSON values."""
        fields: dict[str, Any] = json.loads(json.dumps(asdict(self), allow_nan=False))
        return fields


def deck_cnn() -> Recipe:
    """Return the lecture's set-up, as published in D. Sarkar's "CNN Essentials" (2020).

    Adam at its defaults, batches of 32, pixels divided by 255 and nothing else, a tenth of the
    training images held out, stop after two epochs without a lower validation loss and keep the
    weights of the best one. Published test accuracy on Fashion-MNIST: 90.44 %.
    """
    return Recipe(
        name="deck-cnn",
        network="deck-cnn",
        width=256,
        preprocessing=Preprocessing(size=28, channels=1, mean=(0.0,), std=(1.0,)),
        epochs=100,
        batch_size=32,
        optimizer="adam",
        learning_rate=1e-3,
        schedule="constant",
        warm_up=0.5,
        momentum=0.0,
        weight_decay=0.0,
        label_smoothing=0.0,
        max_gradient_norm=1e6,
        flip=False,
        shift=0,
        validation=0.1,
        patience=2,
        keep_best=True,
    )


def cnn() -> Recipe:
    """Return our set-up for Fashion-MNIST: all training images, a fixed number of epochs.

    No image is mirrored: all shoes of Fashion-MNIST look the same way, and mirroring cost half a
    point of accuracy here.
    """
    return Recipe(
        name="cnn",
        network="cnn",
        width=128,
        preprocessing=Preprocessing(size=28, channels=1, mean=(0.2860,), std=(0.3530,)),
        epochs=7,
        batch_size=128,
        optimizer="sgd",
        learning_rate=0.1,
        schedule="one-cycle",
        warm_up=0.25,
        momentum=0.9,
        weight_decay=5e-4,
        label_smoothing=0.05,
        max_gradient_norm=10.0,
        flip=False,
        shift=1,
        validation=0.0,
        patience=0,
        keep_best=False,
    )


def cnn_photos() -> Recipe:
    """Return our set-up for a folder of colour photographs, some hundred or thousand of them."""
    return replace(
        cnn(),
        name="cnn-photos",
        preprocessing=Preprocessing(
            size=64, channels=3, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)
        ),
        epochs=30,
        batch_size=64,
        learning_rate=0.05,
        flip=True,
        shift=6,
    )


RECIPES: Final[dict[str, Callable[[], Recipe]]] = {
    "deck-cnn": deck_cnn,
    "cnn": cnn,
    "cnn-photos": cnn_photos,
}


def pick_recipe(name: str, source: str) -> Recipe:
    """Return the recipe called ``name`` for the data ``source``.

    ``cnn`` means ``cnn-photos`` when the source is a folder.

    Raises:
        ValueError: there is no such recipe.
    """
    if name not in RECIPES:
        raise ValueError(f"unknown recipe {name!r}; known are {', '.join(RECIPES)}")
    if name == "cnn" and source != FASHION_MNIST:
        return cnn_photos()
    return RECIPES[name]()
