"""The set-ups that come with the product by name, and those that begin with published weights."""

from collections.abc import Callable
from dataclasses import replace
from typing import Final

from training.data.images.load import FASHION_MNIST
from training.recipes.from_scratch import (
    cnn,
    cnn_best,
    cnn_fast,
    cnn_photos,
    deck_cnn,
    vgg19_scratch,
)
from training.recipes.recipe import PACKAGED, Augmentation, FineTuning, Recipe
from vision.image.preprocessing import Preprocessing

VGG19: Final = "torchvision:vgg19"
TIMM: Final = "timm:"
TIMM_WEIGHTS: Final = "pretrained"


def backbone_frozen(backbone: str, weights: str | None = None) -> Recipe:
    """Return a pretrained backbone as a feature extractor: only a head of two layers is trained.

    The head is linear, because nothing bends between its projection and its classifier. The
    features are computed once, of the image as it is and of an augmented copy.

    Args:
        backbone: ``torchvision:NAME``, ``timm:NAME`` or ``timm:NAME.TAG``.
        weights: as ``Recipe.weights``; published ones decide how images are prepared.
    """
    return Recipe(
        name="backbone-frozen",
        network=backbone,
        embedding_layer="penultimate",
        width=256,
        reduction="projection",
        preprocessing=weights_preprocessing(backbone, weights),
        weights=weights or published_weights(backbone),
        views=2,
        epochs=10,
        batch_size=64,
        optimizer="adamw",
        learning_rate=3e-4,
        schedule="one-cycle",
        warm_up=0.1,
        weight_decay=0.1,
        label_smoothing=0.1,
        metric_loss="supervised-contrastive",
        metric_weight=0.3,
        augmentation=Augmentation(flip=True),
        validation=0.05,
    )


def backbone_finetune(backbone: str, weights: str | None = None) -> Recipe:
    """Return a pretrained backbone that learns on, lower layers more slowly than upper ones.

    The head alone comes first. The lowest quarter of the layers stays as it is: edges and colours
    are the same everywhere, and its large maps would take most of the time.

    Args:
        backbone: as of ``backbone_frozen``.
        weights: likewise.
    """
    return replace(
        backbone_frozen(backbone, weights),
        name="backbone-finetune",
        views=0,
        fine_tuning=FineTuning(groups=8, frozen_groups=2, head_epochs=1, rate=1.0, rate_decay=0.8),
        epochs=10,
        batch_size=32,
        learning_rate=1e-3,
        weight_decay=0.05,
        average=0.99,
        augmentation=Augmentation(flip=True, crop=0.35, scale=0.86, erase=0.2),
    )


def vgg19_frozen() -> Recipe:
    """Return the lecture's first way of transfer learning: VGG-19 as it is, and a head on fc7."""
    return replace(backbone_frozen(VGG19), name="vgg19-frozen", embedding_layer="fc7")


def vgg19_finetune() -> Recipe:
    """Return the lecture's second way of transfer learning: VGG-19 learns on, all of it.

    The head first, then one eighth of the layers more in every epoch, from the top.
    """
    return replace(
        backbone_finetune(VGG19),
        name="vgg19-finetune",
        embedding_layer="pool5",
        fine_tuning=FineTuning(
            groups=8, head_epochs=1, epochs_per_group=1, rate=0.3, rate_decay=0.8
        ),
        epochs=16,
        batch_size=64,
        learning_rate=3e-4,
    )


OWN_RECIPES: Final[dict[str, Callable[[], Recipe]]] = {
    "deck-cnn": deck_cnn,
    "cnn": cnn,
    "cnn-photos": cnn_photos,
    "cnn-fast": cnn_fast,
    "cnn-best": cnn_best,
    "vgg19-scratch": vgg19_scratch,
    "vgg19-frozen": vgg19_frozen,
    "vgg19-finetune": vgg19_finetune,
}
BACKBONE_RECIPES: Final[dict[str, Callable[[str, str | None], Recipe]]] = {
    "backbone-frozen": backbone_frozen,
    "backbone-finetune": backbone_finetune,
}
RECIPE_NAMES: Final = (*OWN_RECIPES, *BACKBONE_RECIPES)


def pick_recipe(
    name: str, source: str, *, backbone: str | None = None, weights: str | None = None
) -> Recipe:
    """Return the recipe called ``name`` for the data ``source``.

    ``cnn`` means ``cnn-photos`` when the source is not Fashion-MNIST. Of backbones, published
    ``weights`` decide how images are prepared.

    Raises:
        ValueError: there is no such recipe or backbone, or the backbone is missing or superfluous.
    """
    if name in BACKBONE_RECIPES:
        if backbone is None:
            raise ValueError(f"{name} needs a backbone: torchvision:NAME or timm:NAME")
        return BACKBONE_RECIPES[name](backbone, weights)
    if name not in OWN_RECIPES:
        raise ValueError(f"unknown recipe {name!r}; known are {', '.join(RECIPE_NAMES)}")
    if backbone is not None:
        raise ValueError(
            f"{name} brings its own network; a backbone goes with backbone-frozen "
            "and backbone-finetune"
        )
    if name == "cnn" and source != FASHION_MNIST:
        return cnn_photos()
    return OWN_RECIPES[name]()


def is_of_library(network: str) -> bool:
    """Return whether ``network`` is one of torchvision or timm, and not our own."""
    return ":" in network


def recipes_of(network: str) -> list[str]:
    """Return the recipes that train ``network``."""
    own = [name for name, recipe in OWN_RECIPES.items() if recipe().network == network]
    return [*own, *(BACKBONE_RECIPES if is_of_library(network) else ())]


def weights_preprocessing(backbone: str, weights: str | None) -> Preprocessing:
    """Return what the weights demand, but of the whole picture: a crop loses sleeves and soles."""
    from vision.networks.backbone import default_preprocessing  # noqa: PLC0415 - torchvision is slow to import

    published = default_preprocessing(backbone, weights=weights)
    return replace(published, fit="pad", crop_fraction=1.0)


def published_weights(backbone: str) -> str:
    """Return the name of the weights that a network begins with where none were named."""
    from training.recipes.packaged_weights import PACKAGES  # noqa: PLC0415 - torch is slow, too
    from vision.networks.backbone import default_weights  # noqa: PLC0415 - torchvision is slow to import

    if backbone in PACKAGES:
        return PACKAGED
    return TIMM_WEIGHTS if backbone.startswith(TIMM) else default_weights(backbone)
