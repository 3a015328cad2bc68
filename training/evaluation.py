"""The figures of a model on a dataset, as they are printed, written and compared."""

import json
from dataclasses import asdict, dataclass
from typing import Any

from training.calibration import ReliabilityBin
from training.selection import Selection
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
    train_images: int  # that were searched
    test_images: int
    test_fingerprint: str  # SHA-256 of the test images' pixels and labels, hexadecimal
    selection: Selection | None  # why these images; None: they are the data's test part


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassFigures:
    """One class of the test images. A figure is None where there is nothing to divide by."""

    label: str
    images: int  # may be 0: not measured
    precision: float | None  # of the images given this label, the share that has it
    precision_interval: Interval | None
    recall: float | None  # of the images that have this label, the share given it
    recall_interval: Interval | None
    f1: float | None  # harmonic mean of both; 0 where no image was given its label rightly


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
    """Figures on the measured images; ratios in [0, 1]. ``data.selection`` says what was searched.

    Intervals are of 95 %: Wilson's of shares, of means as ``training.significance`` says.
    """

    model: ModelFacts
    data: DataFacts
    images: int
    gallery_images: int
    accuracy: float
    accuracy_interval: Interval
    noticed_drop: float | None  # the smallest that `compare` would show with 80 %; None: none
    balanced_accuracy: float  # mean recall of the classes that have images
    mean_loss: float  # negative log-likelihood in nats, calibrated probabilities
    temperature: float
    calibration_error: float  # ECE, 15 equal bins (Guo et al. 2017, section 2)
    calibration_error_honest: float  # what true probabilities would have on so many images
    calibration_error_honest_high: float  # and a twentieth of them would exceed
    calibration_error_beyond_chance: float
    calibration_error_beyond_chance_interval: Interval
    calibration_error_uncalibrated: float  # ECE at temperature 1
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
    in_words: tuple[str, ...]  # how much the figures can be believed, for people
    speed: Speed

    def to_json(self) -> dict[str, Any]:
        """Return the figures as JSON values."""
        figures: dict[str, Any] = json.loads(json.dumps(asdict(self), allow_nan=False))
        return figures
