"""The figures of a model on a dataset, as they are printed, written and compared."""

import json
from dataclasses import asdict, dataclass
from typing import Any

from training.calibration import ReliabilityBin
from training.significance import Interval
from training.speed import Speed


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFacts:
    """Which model was measured."""

    name: str
    fingerprint: str  # SHA-256 of all that decides the vectors, hexadecimal
    recipe: str  # its name
    network: str
    embedding_layer: str
    width: int  # numbers in a vector
    parameters: int
    weights_bytes: int  # on disk
    created: str  # ISO 8601, UTC


@dataclass(frozen=True, slots=True, kw_only=True)
class DataFacts:
    """What it was measured on."""

    name: str
    train_images: int
    test_images: int
    test_fingerprint: str  # SHA-256 of the test images' pixels and labels, hexadecimal


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassFigures:
    """One class of the test images. A ratio is None where nothing was predicted to divide by."""

    label: str
    images: int
    precision: float | None  # of the images given this label, the share that has it
    recall: float  # of the images that have this label, the share given it
    f1: float  # harmonic mean of both; 0 where no image was given its label rightly


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchFigures:
    """How well images find their class in one gallery; ``training.retrieval`` says the terms."""

    gallery_images: int
    r_at_1: float
    precision_at_10: float
    map: float
    map_at_r: float


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldOutFigures:
    """Search for classes that training never saw."""

    classes: tuple[str, ...]
    images: int  # that were searched for
    among_held_out: SearchFigures  # the protocol of metric learning: only new classes to find
    among_all: SearchFigures  # new classes that join the gallery of the known ones


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """Figures on the test images; ratios in [0, 1]. The gallery is the training images.

    Intervals are of 95 %: Wilson's of shares, Student's of means.
    """

    model: ModelFacts
    data: DataFacts
    images: int
    gallery_images: int
    accuracy: float
    accuracy_interval: Interval
    balanced_accuracy: float  # mean recall of the classes
    mean_loss: float  # negative log-likelihood in nats, calibrated probabilities
    temperature: float
    calibration_error: float  # ECE, 15 equal bins (Guo et al. 2017, section 2)
    calibration_error_uncalibrated: float  # the same at temperature 1
    reliability: tuple[ReliabilityBin, ...]
    reliability_uncalibrated: tuple[ReliabilityBin, ...]
    r_at_1: float
    r_at_1_interval: Interval
    precision_at_10: float
    map: float
    map_interval: Interval
    map_at_r: float
    held_out: HeldOutFigures | None  # None: no classes were held out
    classes: tuple[ClassFigures, ...]
    confusion: tuple[tuple[int, ...], ...]  # images; row: the label they have, column: were given
    history: tuple[dict[str, Any], ...]  # of the training, by epoch; empty if it was not kept
    speed: Speed

    def to_json(self) -> dict[str, Any]:
        """Return the figures as JSON values."""
        figures: dict[str, Any] = json.loads(json.dumps(asdict(self), allow_nan=False))
        return figures
