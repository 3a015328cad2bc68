"""The set-ups that come with the product, each a function that returns a complete recipe."""

from collections.abc import Callable
from dataclasses import replace
from typing import Final

from training.data.images.load import FASHION_MNIST
from training.recipes.recipe import PACKAGED, Augmentation, FineTuning, Recipe
from vision.image.preprocessing import Preprocessing

VGG19: Final = "torchvision:vgg19"
TIMM: Final = "timm:"
TIMM_WEIGHTS: Final = "pretrained"


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
        max_gradient_norm=1e6,
        precision="fp32",
        validation=0.1,
        patience=2,
        keep_best=True,
    )


def cnn() -> Recipe:
    """Return our set-up for Fashion-MNIST: a fixed number of epochs on nearly all training images.

    A fiftieth is held out, for the temperature. No image is mirrored: all shoes of Fashion-MNIST
    look the same way, and mirroring cost half a point of accuracy here.
    """
    return Recipe(
        name="cnn",
        network="cnn",
        width=128,
        preprocessing=Preprocessing(size=28, channels=1, mean=(0.2860,), std=(0.3530,)),
        epochs=12,
        batch_size=128,
        optimizer="sgd",
        learning_rate=0.1,
        schedule="one-cycle",
        warm_up=0.25,
        momentum=0.9,
        weight_decay=1e-3,
        label_smoothing=0.05,
        metric_loss="supervised-contrastive",
        metric_weight=0.5,
        augmentation=Augmentation(shift=1),
        validation=0.02,
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
        class_balance=0.5,
        augmentation=Augmentation(flip=True, shift=6),
        validation=0.05,
    )


def cnn_gray(side: int, *, bits: int) -> Recipe:
    """Return our set-up for small gray pictures of ``side`` pixels, some hundred or more."""
    return replace(
        cnn_photos(),
        name="cnn-gray",
        preprocessing=replace(cnn().preprocessing, size=side, fit="pad", bits=bits),
        epochs=12,
        class_balance=0.0,
        augmentation=Augmentation(shift=side // 14),
    )


def cnn_best() -> Recipe:
    """Return our set-up for the highest accuracy on Fashion-MNIST from random weights, on a GPU.

    A wide residual network (Zagoruyko & Komodakis 2016) with cutmix (Yun et al. 2019) and random
    erasing (Zhong et al. 2020); without a loss on the vectors, which needs one label per image.
    """
    return replace(
        cnn(),
        name="cnn-best",
        network="wide-resnet",
        width=256,
        epochs=120,
        batch_size=128,
        warm_up=0.1,
        metric_loss="none",
        average=0.999,
        compile=True,
        augmentation=Augmentation(shift=3, erase=0.25, cutmix=1.0),
    )


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
    "cnn-best": cnn_best,
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
