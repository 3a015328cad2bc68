"""The set-ups that begin with random weights, each a function that returns a complete recipe."""

from dataclasses import replace

from training.recipes.recipe import Augmentation, Recipe
from vision.image.preprocessing import Preprocessing


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


def cnn_fast() -> Recipe:
    """Return our set-up for Fashion-MNIST in the fewest seconds on a GPU.

    Network, start and the biases' rate are those of airbench (vision.networks.whitened_cnn), and so
    are momentum and weight decay; the moving average is in place of its lookahead. What airbench
    adds when it measures, and mirroring, are left out: served vectors are of one look at a picture,
    and mirroring costs accuracy here. No compiling: it would take longer than the training.
    """
    return replace(
        cnn(),
        name="cnn-fast",
        network="whitened-cnn",
        epochs=10,
        batch_size=1024,
        learning_rate=0.8,
        bias_rate=64.0,
        momentum=0.85,
        weight_decay=1.3e-3,
        label_smoothing=0.1,
        max_gradient_norm=2.0,
        average=0.95,
    )


def cnn_best() -> Recipe:
    """Return our set-up for the highest accuracy on Fashion-MNIST from random weights, on a GPU.

    A wide residual network (Zagoruyko & Komodakis 2016) with cutmix (Yun et al. 2019) and random
    erasing (Zhong et al. 2020); without a loss on the vectors, which needs one label per image.

    Batch, rate and average belong together: the rate grows with the batch (Goyal et al. 2017,
    arXiv:1706.02677), and the average's decay is its power (Busbridge et al. 2023,
    arXiv:2307.13813). They are 4 times 128 images, 4 times 0.1, and 0.999 to the power of 4.
    """
    return replace(
        cnn(),
        name="cnn-best",
        network="wide-resnet",
        width=256,
        epochs=60,
        batch_size=512,
        learning_rate=0.4,
        warm_up=0.1,
        metric_loss="none",
        average=0.996,
        compile=True,
        augmentation=Augmentation(shift=3, erase=0.25, cutmix=1.0),
    )


def vgg19_scratch() -> Recipe:
    """Return the lecture's network from random weights: VGG-19 with batch normalisation.

    For small images: the embedding is made of the fifth pooling block, and the dense layers, which
    are for 224 pixels, are left out, as of the VGG for CIFAR-10 (Liu & Deng 2015). torchvision
    draws the weights as He et al. (2015, arXiv:1502.01852) do.
    """
    return Recipe(
        name="vgg19-scratch",
        network="torchvision:vgg19_bn",
        embedding_layer="pool5",
        width=256,
        reduction="projection",
        preprocessing=Preprocessing(
            size=32, channels=3, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), fit="pad"
        ),
        epochs=40,
        batch_size=256,
        optimizer="sgd",
        learning_rate=0.1,
        schedule="one-cycle",
        warm_up=0.2,
        momentum=0.9,
        weight_decay=5e-4,
        label_smoothing=0.05,
        metric_loss="supervised-contrastive",
        metric_weight=0.5,
        average=0.99,
        augmentation=Augmentation(shift=2, erase=0.2),
        validation=0.02,
    )
