"""One complete training set-up, checked when it is made. A recipe is data: it is saved with the
model that it made."""

import json
import math
from dataclasses import asdict, dataclass, field
from typing import Any, Final, Literal

from vision.image.preprocessing import Preprocessing
from vision.model.manifest import EMBEDDING_LAYER, Architecture, Reduction

MetricLoss = Literal["none", "supervised-contrastive", "cosface"]
Precision = Literal["auto", "fp32", "bf16", "fp16"]
PACKAGED: Final = "packaged"  # the name of weights that come along
MOST_SEEDS: Final = 2**63  # torch's generators take no larger ones


@dataclass(frozen=True, slots=True, kw_only=True)
class Augmentation:
    """How far the images of a batch may change, each by its own draw."""

    flip: bool = False  # mirror left to right with probability 1/2
    shift: int = 0  # pixels; move by up to this many, both ways; the border pixels fill the gap
    crop: float = 1.0  # a crop keeps at least this share of the area, in (0, 1]; 1: no crops
    # Side of what is learnt from, as a share of the network's own, in (0, 1]. Crops show things
    # larger than they are measured later; learning from fewer pixels makes up for it, and saves
    # time (Touvron et al. 2019, arXiv:1906.06423).
    scale: float = 1.0
    erase: float = 0.0  # probability of a rectangle of noise, in [0, 1]
    mixup: float = 0.0  # both parameters of the beta distribution; 0: none (arXiv:1710.09412)
    cutmix: float = 0.0  # likewise (arXiv:1905.04899); with both, every batch gets one of them

    def __post_init__(self) -> None:
        if not 0 < self.crop <= 1:
            raise ValueError(f"crop must lie in (0, 1], got {self.crop}")
        if not 0 <= self.erase <= 1:
            raise ValueError(f"erase must lie in [0, 1], got {self.erase}")
        if not 0 < self.scale <= 1:
            raise ValueError(f"scale must lie in (0, 1], got {self.scale}")
        for name, value in {
            "shift": self.shift,
            "mixup": self.mixup,
            "cutmix": self.cutmix,
        }.items():
            if not 0 <= value < math.inf:
                raise ValueError(f"{name} must be a finite number from 0 on, got {value}")

    def side(self, whole: int) -> int:
        """Return the side, in pixels, of what is learnt from images of side ``whole``."""
        return max(1, round(self.scale * whole))

    @property
    def mixes(self) -> bool:
        """Whether images are mixed, and labels with them."""
        return self.mixup > 0 or self.cutmix > 0


@dataclass(frozen=True, slots=True, kw_only=True)
class FineTuning:
    """How a pretrained backbone learns on: in groups of layers, the upper ones sooner and faster.

    Discriminative rates and gradual unfreezing as in Howard & Ruder 2018 (arXiv:1801.06146),
    sections 3.2 and 3.3.
    """

    groups: int  # of consecutive layers, with about the same number of weight layers in each
    frozen_groups: int = 0  # the lowest ones, which never learn
    head_epochs: int = 0  # in which only embedding and classifier learn
    epochs_per_group: int = 0  # after those, until the next lower group learns too; 0: all at once
    rate: float = 1.0  # learning rate of the highest group, as a share of the head's
    rate_decay: float = 1.0  # learning rate of a group, as a share of the one above

    def __post_init__(self) -> None:
        if self.groups < 1 or not 0 <= self.frozen_groups < self.groups:
            raise ValueError(
                f"at least one of the {self.groups} groups must learn, "
                f"but {self.frozen_groups} are frozen"
            )
        if self.head_epochs < 0 or self.epochs_per_group < 0:
            raise ValueError("head_epochs and epochs_per_group must not be negative")
        if not (0 < self.rate <= 1 and 0 < self.rate_decay <= 1):
            raise ValueError("rate and rate_decay must lie in (0, 1]")

    def lowest_group(self, epoch: int) -> int:
        """Return the lowest group that learns in ``epoch`` (1 is the first); ``groups``: none."""
        since = epoch - 1 - self.head_epochs
        if since < 0:
            return self.groups
        if not self.epochs_per_group:
            return self.frozen_groups
        return max(self.frozen_groups, self.groups - 1 - since // self.epochs_per_group)

    def group_rate(self, group: int) -> float:
        """Return the learning rate of ``group`` (0 is the lowest), as a share of the head's."""
        return self.rate * self.rate_decay ** (self.groups - 1 - group)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """Everything that decides a training, apart from the images."""

    name: str
    network: str  # a name that vision.networks.network.build_network knows
    embedding_layer: str = EMBEDDING_LAYER
    width: int  # numbers in a vector
    reduction: Reduction | None = None  # of a backbone's numbers to width
    preprocessing: Preprocessing

    # Those it begins with: a published name, a file or a model folder; None: random ones.
    weights: str | None = None
    weights_sha256: str | None = None  # hexadecimal, of the file they came from
    predecessor: str | None = None  # fingerprint of the model folder that it goes on from
    views: int = 0  # above 0: the backbone is frozen; so many copies of each image are embedded
    fine_tuning: FineTuning | None = None  # None: all layers learn alike

    epochs: int  # at most; the learning-rate schedule spans all of them
    batch_size: int  # images, over all processes; fewer when there are fewer
    optimizer: Literal["adam", "adamw", "sgd"]  # sgd: with Nesterov's momentum
    learning_rate: float  # per step; the highest of the schedule
    bias_rate: float = 1.0  # of the features' biases, as a multiple of the others' rate
    schedule: Literal["constant", "one-cycle", "cosine"]
    warm_up: float  # share of all steps in which the rate rises, in (0, 1)
    momentum: float = 0.0  # of sgd, in [0, 1)
    weight_decay: float = 0.0  # per step and unit of rate, on weight matrices and kernels only
    label_smoothing: float = 0.0  # share of a label spread over all labels, in [0, 1)
    max_gradient_norm: float = 10.0  # L2 over all parameters; larger ones are scaled down to it
    class_balance: float = 0.0  # 0: every image counts alike, 1: every class does; in [0, 1]
    metric_loss: MetricLoss = "none"  # beside cross-entropy, on the vectors
    metric_weight: float = 0.0  # of metric_loss; cross-entropy has 1
    average: float = 0.0  # decay per step of the moving average of the weights; 0: none
    precision: Precision = "auto"  # of activations; auto: what is fastest on the device
    compile: bool = False  # by torch.compile, on a GPU; takes a minute and needs a C compiler

    augmentation: Augmentation = field(default_factory=Augmentation)

    validation: float  # share of each class, its last images, held out; in [0, 1)
    patience: int | None = None  # epochs without a lower validation loss before stopping; None: all
    keep_best: bool = False  # keep the weights of the lowest validation loss, not the last ones
    seed: int = 0  # of weights, order, augmentation and dropout

    def __post_init__(self) -> None:
        self._refuse_beyond_range()
        self._refuse_contradictions()

    def _refuse_beyond_range(self) -> None:
        at_least_1 = ("epochs", "batch_size", "width")
        above_0 = ("learning_rate", "bias_rate", "max_gradient_norm")
        shares = ("momentum", "label_smoothing", "validation", "average")
        from_0_on = ("weight_decay", "patience", "seed", "metric_weight", "views")
        for names, holds, range_ in (
            (at_least_1, lambda value: value >= 1, "be at least 1"),
            (above_0, lambda value: value > 0, "be above 0"),
            (above_0, math.isfinite, "be a finite number"),
            (shares, lambda value: 0 <= value < 1, "lie in [0, 1)"),
            (from_0_on, lambda value: 0 <= (value or 0) < math.inf, "not be negative, but finite"),
            (("seed",), lambda value: value < MOST_SEEDS, "be less than 2**63"),
            (("warm_up",), lambda value: 0 < value < 1, "lie in (0, 1)"),
            (("class_balance",), lambda value: 0 <= value <= 1, "lie in [0, 1]"),
        ):
            for name in names:
                value = getattr(self, name)
                if not holds(value):
                    raise ValueError(f"{name} must {range_}, got {value}")

    def _refuse_contradictions(self) -> None:
        if self.augmentation.shift >= self.preprocessing.size:
            raise ValueError(
                f"{self.name} moves images by up to {self.augmentation.shift} pixels (shift): "
                f"images of {self.preprocessing.size} pixels are too small"
            )
        if self.views and self.reduction is None:
            raise ValueError(f"{self.name} has no pretrained backbone that could be frozen")
        if self.views and self.fine_tuning is not None:
            raise ValueError(
                "a frozen backbone cannot be fine-tuned: views or fine_tuning, not both"
            )
        if self.views and self.augmentation.mixes:
            raise ValueError(
                "a frozen backbone learns nothing from mixed images: no mixup, no cutmix"
            )
        if self.reduction == "pca" and not self.views:
            raise ValueError("PCA is fitted once, so it needs a frozen backbone; use a projection")
        if self.metric_loss != "none" and self.augmentation.mixes:
            raise ValueError(
                "a metric loss needs one label per image: no mixup and no cutmix with it"
            )
        if self.metric_loss != "none" and self.views and self.reduction != "projection":
            raise ValueError("with a frozen backbone, a metric loss needs a projection to work on")

    @property
    def frozen(self) -> bool:
        """Whether the backbone stays as it is, byte for byte."""
        return self.views > 0

    @property
    def fits_components(self) -> bool:
        """Whether principal components are fitted; a predecessor's are taken as they are."""
        return self.reduction == "pca" and self.predecessor is None

    def architecture(self, num_labels: int) -> Architecture:
        """Return the network's description for data of ``num_labels`` classes."""
        return Architecture(
            network=self.network,
            embedding_layer=self.embedding_layer,
            width=self.width,
            num_labels=num_labels,
            reduction=self.reduction,
        )

    def to_json(self) -> dict[str, Any]:
        """Return every setting as JSON values."""
        fields: dict[str, Any] = json.loads(json.dumps(asdict(self), allow_nan=False))
        return fields
