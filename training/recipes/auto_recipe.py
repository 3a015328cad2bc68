"""The set-up of `auto`: what is tried for one's own photos, and how one of it is chosen."""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Final, Self

from training.recipes.built_in import VGG19, published_weights, weights_preprocessing
from training.recipes.from_scratch import cnn_gray
from training.recipes.recipe import MOST_SEEDS, PACKAGED, Recipe
from vision.image.preprocessing import Fit, Preprocessing
from vision.model.manifest import Architecture

AUTO: Final = "auto"
BUDGET_S: Final = 120.0
MANY: Final = 1000  # labelled images, from which on few folds are enough
MANY_PHOTOS: Final = 20_000  # from which on the larger network takes many minutes on two cores
SMALLEST_GRAY: Final = 28  # pixels, of a small network's input
FOLDS: Final = 5

# What blocks give out tells things apart; what lies inside the upper ones, before they narrow it,
# tells kinds apart (docs/decisions/0025-auto.md has the figures).
LITE0: Final = "timm:tf_efficientnet_lite0"
LITE2: Final = "timm:tf_efficientnet_lite2"
LITE_SIDES: Final = {LITE2: 320, LITE0: 288}  # pixels
QUICK_SIDE: Final = 224  # of the smaller one, where time is short
LITE_BLOCKS: Final = {LITE2: (4, 5), LITE0: (3, 4)}  # in the stages 4 and 5
VGG19_LAYERS: Final = ("pool4", "pool5", "fc7")
ITEM_LAYERS: Final = ("blocks.3", "blocks.4", "blocks.5", "penultimate")


def kind_layers(network: str) -> tuple[str, ...]:
    """Return the layers of an EfficientNet-Lite that tell kinds apart, beside the others."""
    fourth, fifth = LITE_BLOCKS[network]
    return (
        *(f"blocks.4.{block}.bn1" for block in range(fourth)),
        *(f"blocks.5.{block}.bn1" for block in range(fifth)),
        "blocks.6.0.bn1",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Extractor:
    """A pretrained network that turns images into features: which, of what layers and images."""

    network: str  # torchvision:NAME, timm:NAME or timm:NAME.TAG
    item_layers: tuple[str, ...]  # tell one thing from another; with the others, kinds apart
    kind_layers: tuple[str, ...] = ()
    preprocessing: Preprocessing
    weights: str  # as ``Recipe.weights``
    weights_sha256: str | None = None

    @property
    def embedding_layer(self) -> str:
        """Return all layers by name, with + between them."""
        return "+".join((*self.item_layers, *self.kind_layers))

    def prepared(self, **settings: Any) -> Self:
        """Return the same network, whose images are prepared otherwise."""
        return replace(self, preprocessing=replace(self.preprocessing, **settings))

    def __str__(self) -> str:
        layers = len(self.item_layers) + len(self.kind_layers)
        return (
            f"{self.network.partition(':')[2]} at {self.preprocessing.size} px, "
            f"{layers} layer{'s' if layers > 1 else ''}"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class AutoFineTuning:
    """How an EfficientNet-Lite learns on: all of it but the lowest stages, lower ones slower."""

    epochs: int = 12  # at most; as many as there is time for
    fewest_epochs: int = 4  # fewer than these are not worth it
    fewest_images: int = 300  # to learn from; fewer teach no more than heads in closed form
    from_stage: int = 2  # the lowest that learns
    side: int = 224  # pixels of what is learnt from, less than what is measured with
    batch_size: int = 32
    rate: float = 3e-4  # of the highest stage
    decay: float = 0.8  # of the rate, from a stage to the one below
    head_rate: float = 1e-3
    weight_decay: float = 0.02
    label_smoothing: float = 0.1
    mixed: float = 0.5  # share of the batches with parts of one image pasted into another
    crop: float = 0.4  # least share of the area
    drop: float = 0.1  # stochastic depth of the highest block
    average: float = 0.995  # decay per step of the moving average of the weights


@dataclass(frozen=True, slots=True, kw_only=True)
class FromScratch:
    """How a small network learns from small gray pictures alone."""

    recipe: Recipe
    fewest_images: int = 300  # to learn from; of fewer, pretrained networks make more
    steps: int = 2000  # at least: few images are looked at more often,
    most_epochs: int = 100  # but no more often than this

    def of(self, images: int) -> Recipe:
        """Return the recipe to learn from so many images with."""
        steps = max(1, images // self.recipe.batch_size)
        epochs = min(self.most_epochs, max(self.recipe.epochs, math.ceil(self.steps / steps)))
        return replace(self.recipe, epochs=epochs, validation=0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class AutoRecipe:
    """Everything that decides what `auto` tries, apart from the images and the clock."""

    extractors: tuple[Extractor, ...]  # the first is always tried, the others while there is time
    budget_s: float = BUDGET_S  # seconds, from the images on: what may be spent on trying more
    folds: int = FOLDS  # parts that take turns at being held out; twice as many for few images
    shrinkages: tuple[float, ...] = (0.1, 0.3, 0.5, 0.7, 0.85, 0.95)  # of covariance, tried
    emphases: tuple[float, ...] = (1.0, 3**0.5, 10**0.5)  # of the last layer, tried for few photos
    item_width: int = 256  # numbers that tell one thing from another; fewer for few images
    most_kinds: int = 256  # numbers that tell kinds apart
    kind_share: float = 1 / 3  # of a score
    view_shrinkage: float = 0.3  # of the covariance of changes between views
    lone_view_shrinkage: float = 0.6  # likewise, where there are no classes
    tuning: AutoFineTuning | None = (
        AutoFineTuning()
    )  # of the first network, where there are classes and time
    scratch: FromScratch | None = None  # for small gray pictures: a small network of their own
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.extractors:
            raise ValueError("auto needs at least one pretrained network")
        if not self.budget_s > 0:
            raise ValueError(f"the budget must be above 0 seconds, got {self.budget_s}")
        if not 0 <= self.seed < MOST_SEEDS:
            raise ValueError(f"seed must be less than 2**63 and not negative, got {self.seed}")

    @property
    def name(self) -> str:
        """What it is called."""
        return AUTO

    @property
    def preprocessing(self) -> Preprocessing:
        """How images are prepared for the first network."""
        return self.extractors[0].preprocessing

    def with_bits(self, bits: int) -> Self:
        """Return the set-up for gray pictures of so many bits."""
        return replace(self, extractors=tuple(one.prepared(bits=bits) for one in self.extractors))

    def adapted_to(self, photos: int, gray_side: int | None) -> Self:
        """Return the set-up for so many photos; ``gray_side`` pixels if all are small and gray.

        Of many photos the quicker network comes first, so that the budget is kept to. Small gray
        pictures are also learnt by a small network of their own.
        """
        quick = photos > MANY_PHOTOS or gray_side is not None
        scratch = None
        if gray_side is not None:
            small = cnn_gray(max(gray_side, SMALLEST_GRAY), bits=self.preprocessing.bits)
            small = replace(small, seed=self.seed)
            scratch = FromScratch(recipe=small)
        return replace(
            self,
            extractors=quickest_first(self.extractors) if quick else self.extractors,
            scratch=scratch,
        )

    def with_vgg19(self) -> Self:
        """Return the set-up that tries VGG-19 as well, at its own size, after all others."""
        if any(one.network == VGG19 for one in self.extractors):
            return self
        vgg19 = Extractor(
            network=VGG19,
            item_layers=VGG19_LAYERS,
            preprocessing=weights_preprocessing(VGG19, None),
            weights=published_weights(VGG19),
        )
        ours = self.preprocessing
        return replace(
            self, extractors=(*self.extractors, vgg19.prepared(fit=ours.fit, bits=ours.bits))
        )

    def without_classes(self) -> Self:
        """Return the set-up for photos without classes: nothing is read that tells kinds apart."""
        return replace(
            self, extractors=tuple(replace(one, kind_layers=()) for one in self.extractors)
        )

    def architecture(
        self, extractor: Extractor, *, num_labels: int, item_width: int, kind_width: int
    ) -> Architecture:
        """Return the description of a network whose heads have these widths."""
        return Architecture(
            network=extractor.network,
            embedding_layer=extractor.embedding_layer,
            width=item_width + kind_width,
            num_labels=num_labels,
            reduction="item-and-kind" if kind_width else "pca",
            mirrored=True,
            item_width=item_width if kind_width else None,
            kind_share=self.kind_share if kind_width else None,
        )

    def to_json(self) -> dict[str, Any]:
        """Return every setting as JSON values."""
        fields: dict[str, Any] = json.loads(json.dumps(asdict(self), allow_nan=False))
        return {"name": self.name, **fields}


def auto_recipe(
    *,
    backbone: str | None = None,
    weights: str | None = None,
    weights_sha256: str | None = None,
    layer: str | None = None,
    size: int | None = None,
    fit: Fit = "pad",
    budget_s: float | None = None,
    seed: int = 0,
) -> AutoRecipe:
    """Return the set-up of `auto`: the networks whose weights come along, and one's own before.

    Args:
        backbone: a network of torchvision or timm to compare with those that come along.
        weights: of that network, as ``Recipe.weights``; its published ones if not given.
        weights_sha256: likewise, as ``Recipe.weights_sha256``.
        layer: of that network; what its last layer reads if not given.
        size: pixels, of all networks; what each was measured best with if not given.
        fit: how the picture becomes a square.
        budget_s: seconds that may be spent on trying.
        seed: of everything random.

    Raises:
        ValueError: there is no such network, or the settings contradict one another.
    """
    if backbone is None and (weights, weights_sha256, layer) != (None, None, None):
        raise ValueError("weights and layers are a network's: name it, too, with --backbone")
    extractors = [
        Extractor(
            network=network,
            item_layers=ITEM_LAYERS,
            kind_layers=kind_layers(network),
            preprocessing=weights_preprocessing(network, None),
            weights=PACKAGED,
        ).prepared(size=side)
        for network, side in LITE_SIDES.items()
    ]
    if backbone is not None:
        own = Extractor(
            network=backbone,
            item_layers=tuple((layer or "penultimate").split("+")),
            preprocessing=weights_preprocessing(backbone, weights),
            weights=weights or published_weights(backbone),
            weights_sha256=weights_sha256,
        )
        extractors = [own, *(one for one in extractors if one.network != backbone)]
    asked = {"fit": fit} if size is None else {"fit": fit, "size": size}
    return AutoRecipe(
        extractors=tuple(one.prepared(**asked) for one in extractors),
        budget_s=BUDGET_S if budget_s is None else budget_s,
        seed=seed,
    )


def quickest_first(extractors: Sequence[Extractor]) -> tuple[Extractor, ...]:
    """Return the same with the smaller network that comes along first, at fewer pixels."""
    usual = LITE_SIDES[LITE0]  # another size was asked for
    smaller = [
        one.prepared(size=QUICK_SIDE) if one.preprocessing.size == usual else one
        for one in extractors
        if one.network == LITE0
    ]
    return (*smaller, *(one for one in extractors if one.network != LITE0))


def assign_folds(labels_N: Sequence[int], group_keys_N: Sequence[int], folds: int) -> list[int]:
    """Return the fold of each image: copies (with equal keys) together, every class dealt evenly.

    Of few images there are twice as many folds, so that less is missing where one is held out.
    """
    folds = folds if len(labels_N) >= MANY else 2 * folds
    label_of = dict(zip(reversed(group_keys_N), reversed(labels_N), strict=True))
    order = sorted(label_of, key=lambda key: (label_of[key], key))
    fold_of = {key: place % folds for place, key in enumerate(order)}
    return [fold_of[key] for key in group_keys_N]
