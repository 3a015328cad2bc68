"""The networks: normalised pixels in, one unit vector and one row of class scores per image out.

Every network is features -> embedding -> classifier. The vector is the embedding's output scaled to
unit length; the classifier reads the same embedding, the features, or the vector. The features are
our own, or those of a network that torchvision or timm knows.

Shape suffixes: B images, C channels, H x W pixels, F features, D vector width, L labels.
"""

from collections.abc import Callable
from itertools import chain, repeat
from typing import Final, Literal, get_args

from torch import Tensor, nn
from torch.nn.functional import max_pool2d, normalize, relu

from vision.image.preprocessing import Preprocessing
from vision.model.manifest import EMBEDDING_LAYER, Architecture, Reduction
from vision.networks.backbone import build_backbone
from vision.networks.heads import ItemAndKind, make_classifier
from vision.networks.model_zoo import CHANNELS, LIBRARIES
from vision.networks.whitened_cnn import SMALLEST as WHITENED_SMALLEST
from vision.networks.whitened_cnn import WhitenedCnn
from vision.networks.wide_resnet import SMALLEST as WIDE_SMALLEST
from vision.networks.wide_resnet import WideResNet

DECK_WIDTH: Final = 256
DECK_SMALLEST: Final = 10  # pixels; a smaller image leaves nothing after two convolutions and pools

CNN_SMALLEST: Final = 13  # pixels; the first convolution leaves 7
CNN_MAP: Final = 7  # pixels; a feature map of this side or more is halved once more
CNN_CHANNELS: Final = (32, 48, 96, 192)  # after each halving; the last is for all that follow


ClassifierInput = Literal["embedding", "features", "vectors"]


class Network(nn.Module):
    """Three parts: features, and of them the vectors; the classifier reads the one or the other.

    Classes that were fitted later read the unit vectors.
    """

    def __init__(
        self,
        features: nn.Module,
        embedding: nn.Module,
        classifier: nn.Module,
        *,
        classifies: ClassifierInput = "embedding",
    ) -> None:
        super().__init__()
        self.features = features
        self.embedding = embedding
        self.classifier = classifier
        self._classifies = classifies

    def forward(self, images_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        """Return unit vectors (B, D) and logits (B, L) of normalised images (B, C, H, W)."""
        return self.head(self.features(images_BCHW))

    def head(self, features_BF: Tensor) -> tuple[Tensor, Tensor]:
        """Return unit vectors (B, D) and logits (B, L) of features (B, F)."""
        embedded_BD = self.embedding(features_BF)
        vectors_BD = normalize(embedded_BD, dim=1)
        inputs = {"embedding": embedded_BD, "features": features_BF, "vectors": vectors_BD}
        return vectors_BD, self.classifier(inputs[self._classifies])

    def with_classifier(self, weight_LD: Tensor, bias_L: Tensor) -> "Network":
        """Return the network with another classifier, a linear layer that reads unit vectors."""
        layer = nn.Linear(weight_LD.shape[1], len(bias_L))
        layer.load_state_dict({"weight": weight_LD, "bias": bias_L})
        return Network(self.features, self.embedding, layer, classifies="vectors")


def build_network(architecture: Architecture, preprocessing: Preprocessing) -> Network:
    """Return the network that ``architecture`` names, for images as ``preprocessing`` makes them.

    The weights are random, drawn from torch's global generator. ``torchvision:NAME`` and
    ``timm:NAME`` are cut at the embedding layer (see ``vision.networks.backbone``) and reduced to
    the width.

    Raises:
        ValueError: unknown network, embedding layer or reduction, a size, width or number of
            channels that does not fit, or timm is not installed.
    """
    if architecture.width < 1 or architecture.num_labels < 0:
        raise ValueError(
            f"a network needs a width of at least 1 and no negative number of labels, got "
            f"{architecture.width} and {architecture.num_labels}"
        )
    if architecture.network.partition(":")[0] in LIBRARIES:
        return _on_backbone(architecture, preprocessing)
    smallest, builder = _BUILDERS.get(architecture.network, (0, None))
    if builder is None:
        known = ", ".join((*sorted(_BUILDERS), *(f"{library}:NAME" for library in LIBRARIES)))
        raise ValueError(f"unknown network {architecture.network!r}; known are {known}")
    if architecture.embedding_layer != EMBEDDING_LAYER:
        raise ValueError(
            f"network {architecture.network!r} has the embedding layer {EMBEDDING_LAYER!r}, "
            f"not {architecture.embedding_layer!r}"
        )
    if architecture.reduction is not None:
        raise ValueError(
            f"network {architecture.network!r} has an embedding of its own; the reduction "
            f"{architecture.reduction!r} is for backbones"
        )
    if architecture.mirrored:
        raise ValueError(f"network {architecture.network!r} does not look at mirror images")
    if preprocessing.size < smallest:
        raise ValueError(
            f"{architecture.network} needs images of at least {smallest} pixels, "
            f"not {preprocessing.size}"
        )
    return builder(architecture, preprocessing)


def _on_backbone(architecture: Architecture, preprocessing: Preprocessing) -> Network:
    """Return a network of torchvision or timm with an embedding and a classifier of our own."""
    name, width = architecture.network, architecture.width
    if architecture.reduction not in get_args(Reduction):
        raise ValueError(
            f"a backbone needs a reduction, one of {', '.join(get_args(Reduction))}; "
            f"got {architecture.reduction!r}"
        )
    if preprocessing.channels != CHANNELS:
        raise ValueError(f"{name} looks at {CHANNELS} channels, not {preprocessing.channels}")
    backbone = build_backbone(
        name,
        architecture.embedding_layer,
        side=preprocessing.size,
        mirrored=architecture.mirrored,
    )
    if not backbone.accepts_size(preprocessing.size):
        side = backbone.side
        raise ValueError(
            f"{name} does not take images of {preprocessing.size} pixels, "
            + (f"only of {side}" if backbone.has_fixed_size else f"it was made for {side}")
        )
    if architecture.reduction == "item-and-kind":
        parts = ItemAndKind(backbone.width, architecture)
        scores = make_classifier(backbone.width, architecture.num_labels)
        return Network(backbone, parts, scores, classifies="features")
    embedding: nn.Module
    if architecture.reduction == "none":
        if width != backbone.width:
            raise ValueError(
                f"layer {architecture.embedding_layer!r} of {name} gives {backbone.width} numbers; "
                f"without a reduction the width cannot be {width}"
            )
        embedding = nn.Identity()
    elif architecture.reduction == "projection":
        embedding = _projection(backbone.width, width)
    else:
        if width > backbone.width:
            raise ValueError(
                f"layer {architecture.embedding_layer!r} of {name} gives {backbone.width} numbers; "
                f"principal components cannot make {width} of them"
            )
        embedding = nn.Linear(backbone.width, width)  # the bias takes the mean away
    return Network(backbone, embedding, make_classifier(width, architecture.num_labels))


def _projection(features: int, width: int) -> nn.Module:
    return nn.Sequential(nn.Linear(features, width, bias=False), nn.BatchNorm1d(width))


def _wide_resnet(architecture: Architecture, preprocessing: Preprocessing) -> Network:
    """Return WRN-28-10 (``vision.networks.wide_resnet``): 36.5 million parameters, for a GPU."""
    return _projected(WideResNet(preprocessing.channels), architecture)


def _whitened_cnn(architecture: Architecture, preprocessing: Preprocessing) -> Network:
    """Return ``vision.networks.whitened_cnn``: 0.51 million parameters for gray images."""
    return _projected(WhitenedCnn(preprocessing.channels), architecture)


def _projected(features: WideResNet | WhitenedCnn, architecture: Architecture) -> Network:
    return Network(
        features,
        _projection(features.width, architecture.width),
        make_classifier(architecture.width, architecture.num_labels),
    )


def _deck_cnn(architecture: Architecture, preprocessing: Preprocessing) -> Network:
    """Return the lecture's network: 278,218 parameters for 28 x 28 x 1 images and 10 labels.

    Two valid 3x3 convolutions with pooling and two dense layers, as in the notebook "CNN
    Classifiers" of D. Sarkar's "CNN Essentials" (2020). Weights start as in Keras: Glorot uniform,
    biases zero.
    """
    if architecture.width != DECK_WIDTH:
        raise ValueError(f"deck-cnn has width {DECK_WIDTH}, not {architecture.width}")
    map_side = ((preprocessing.size - 2) // 2 - 2) // 2
    features = nn.Sequential(
        nn.Conv2d(preprocessing.channels, 16, kernel_size=3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 32, kernel_size=3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(32 * map_side**2, 256),
        nn.ReLU(),
        nn.Dropout(0.3),
    )
    classifier = nn.Sequential(
        nn.ReLU(), nn.Dropout(0.3), make_classifier(DECK_WIDTH, architecture.num_labels)
    )
    network = Network(features, nn.Linear(256, DECK_WIDTH), classifier)
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.xavier_uniform_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
    return network


def _cnn(architecture: Architecture, preprocessing: Preprocessing) -> Network:
    """Return our own small network: 0.28 million parameters for 28 x 28 x 1 images and width 128.

    A convolution with stride 2, then stages until the side is below 7 pixels, each half as large
    and wider than the one before, then the mean over what pixels are left.
    """
    channels = CNN_CHANNELS[0]
    layers: list[nn.Module] = [
        nn.Conv2d(preprocessing.channels, channels, 5, stride=2, padding=2, bias=False),
        nn.BatchNorm2d(channels),
        nn.ReLU(),
    ]
    side = (preprocessing.size + 1) // 2
    widths = chain(CNN_CHANNELS[1:], repeat(CNN_CHANNELS[-1]))
    while side >= CNN_MAP:
        wider = next(widths)
        layers.append(_Stage(channels, wider))
        side, channels = side // 2, wider
    features = nn.Sequential(*layers, _MeanPool())
    embedding = _projection(channels, architecture.width)
    return Network(
        features, embedding, make_classifier(architecture.width, architecture.num_labels)
    )


class _Stage(nn.Module):
    """Halves an image's sides and widens it, then adds a residual block (He et al. 2016).

    The pool comes before normalisation and activation: the same maximum, but they then work on a
    quarter of the numbers.
    """

    def __init__(self, channels: int, wider: int) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(channels, wider, kernel_size=3, padding=1, bias=False)
        self.normalisation = nn.BatchNorm2d(wider)
        self.block = _Residual(wider)

    def forward(self, images_BCHW: Tensor) -> Tensor:
        halved_BCHW = max_pool2d(self.convolution(images_BCHW), 2)
        widened_BCHW: Tensor = self.block(relu(self.normalisation(halved_BCHW)))
        return widened_BCHW


class _Residual(nn.Module):
    """Adds what two convolutions make of an image to the image."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.change = nn.Sequential(
            nn.Conv2d(channels, channels, kernel_size=3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            nn.Conv2d(channels, channels, kernel_size=3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
        )

    def forward(self, images_BCHW: Tensor) -> Tensor:
        changed_BCHW: Tensor = self.change(images_BCHW)
        return images_BCHW + changed_BCHW


class _MeanPool(nn.Module):
    """Averages over the pixels, whatever the size: (B, C, H, W) to (B, C)."""

    def forward(self, images_BCHW: Tensor) -> Tensor:
        return images_BCHW.mean(dim=(2, 3))


# The smallest image that each takes, pixels, and what makes it.
_BUILDERS: Final[dict[str, tuple[int, Callable[[Architecture, Preprocessing], Network]]]] = {
    "deck-cnn": (DECK_SMALLEST, _deck_cnn),
    "cnn": (CNN_SMALLEST, _cnn),
    "whitened-cnn": (WHITENED_SMALLEST, _whitened_cnn),
    "wide-resnet": (WIDE_SMALLEST, _wide_resnet),
}
