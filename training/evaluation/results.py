"""The figures of a model on a dataset, as they are printed, written and compared."""

import json
from dataclasses import asdict, dataclass, fields
from typing import Any

from training.data.measured_images import ImageSelection
from training.statistics.calibration import ReliabilityBin
from training.statistics.latency import Speed
from training.statistics.same_item import Setup
from training.statistics.significance import Interval


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelInfo:
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
class DataInfo:
    """What it was measured on."""

    name: str
    train_images: int  # that were searched
    test_images: int
    test_fingerprint: str  # SHA-256 of the test images' pixels and labels, hexadecimal
    selection: ImageSelection | None  # why these images; None: they are the data's test part


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
    """How well images find their class in one gallery (see ``training.statistics.retrieval``)."""

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
class KindFigures:
    """Both kinds of search at one turn of the knob; see ``vision.inference.query_weighting``."""

    kind: float  # the share of the kind, in [0, 1]
    own: bool  # whether the model's vectors have this share themselves
    same_item: float  # R@1
    same_class: float | None  # R@1; None: the data have no labels


@dataclass(frozen=True, slots=True, kw_only=True)
class SameItemFigures:
    """How well the very same things are found; ``training.statistics.same_item`` says the terms."""

    setup: Setup
    in_words: str  # what a query is to find, and among what
    photos: int
    queries: int  # of one photo there may be several
    gallery_images: int
    r_at_1: float
    r_at_1_interval: Interval
    r_at_10: float
    r_at_10_interval: Interval
    by_kind: tuple[KindFigures, ...]  # of vectors with two parts; else empty


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassificationFigures:
    """How well the model names classes."""

    accuracy: float
    accuracy_interval: Interval
    noticed_drop: float | None  # the smallest that `compare` would show with 80 %; None: none
    balanced_accuracy: float  # mean recall of the classes that have images
    mean_loss: float  # negative log-likelihood in nats, calibrated probabilities
    calibration_error: float  # ECE, 15 equal bins (Guo et al. 2017, section 2)
    calibration_error_honest: float  # what true probabilities would have on so many images
    calibration_error_honest_high: float  # and a twentieth of them would exceed
    calibration_error_beyond_chance: float
    calibration_error_beyond_chance_interval: Interval
    calibration_error_uncalibrated: float  # ECE at temperature 1
    reliability: tuple[ReliabilityBin, ...]
    reliability_uncalibrated: tuple[ReliabilityBin, ...]
    classes: tuple[ClassFigures, ...]
    confusion: tuple[tuple[int, ...], ...]  # images; row: the label they have, column: were given


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassSearchFigures:
    """How well images find others of their class (see ``training.statistics.retrieval``)."""

    r_at_1: float
    r_at_1_interval: Interval
    precision_at_10: float
    map: float
    map_interval: Interval
    map_at_r: float


@dataclass(frozen=True, slots=True, kw_only=True)
class OutOfDistributionFigures:
    """What a model says of made pictures of one kind, none of which is of its classes."""

    kind: str
    images: int
    certain: float  # share that is given some class with a probability of 90 % or more
    certain_and_sure: float  # and is not refused
    refused: float
    auroc: float  # of their distances against those of the test images; 0.5 is chance, 1 perfect


@dataclass(frozen=True, slots=True, kw_only=True)
class NoveltyFigures:
    """What is refused as none of the model's things; ``vision.model.open_set`` says how."""

    stated: float  # share of one's own new photos, as the limits were fitted
    fitted_on: int  # photos
    most_distance: float  # 1 - cosine
    least_agreement: float
    refused: float  # share of the test images
    refused_interval: Interval
    refused_right: int  # of them, that were given their class
    refused_wrong: int  # and that were given another
    strangers: tuple[OutOfDistributionFigures, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """Figures on the measured images; ratios in [0, 1]. ``data.selection`` says what was searched.

    Intervals are of 95 %: Wilson's of shares, of means as ``training.statistics.significance``
    says.
    """

    model: ModelInfo
    data: DataInfo
    images: int
    gallery_images: int
    classification: ClassificationFigures | None  # None: the model has no classes, or the data
    class_search: ClassSearchFigures | None  # None: the data have no labels
    same_item: SameItemFigures
    novelty: NoveltyFigures | None  # None: the model keeps no references, or has no classes
    held_out: HeldOutFigures | None  # None: no classes were held out
    temperature: float
    history: tuple[dict[str, Any], ...]  # of the training, by epoch; empty if it was not kept
    tried: dict[str, Any] | None  # what was tried and why the best was taken; None: one recipe
    in_words: tuple[str, ...]  # how much the figures can be believed, for people
    computed_by: str  # the runtime and its precision
    speed: Speed

    def to_json(self) -> dict[str, Any]:
        """Return the figures as JSON values, those of classes on one level with all others.

        What was not measured is null.
        """
        figures: dict[str, Any] = json.loads(json.dumps(asdict(self), allow_nan=False))
        for part, kind in (
            ("classification", ClassificationFigures),
            ("class_search", ClassSearchFigures),
        ):
            nothing = dict.fromkeys(one.name for one in fields(kind))
            figures |= figures.pop(part) or nothing
        return figures
