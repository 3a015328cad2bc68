"""Measurements of two models on the same images in, what changed and what was lost out."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from training.data.dataset import Dataset
from training.data.unseen_images import held_out_classes
from training.errors import DataError
from training.evaluation.evaluate import (
    Predictions,
    check_classes,
    encode_parts,
    images_to_encode,
    predict_test_images,
)
from training.formatting import listed
from training.statistics.calibration import calibration_error
from training.statistics.latency import median_s
from training.statistics.significance import ALPHA, PairedDifference, compare_means, compare_shares
from vision.inference.bulk_encoder import fastest_encoder
from vision.inference.torch_encoder import TorchEncoder
from vision.model.manifest import Manifest

# The figures that are known image by image, and so can be tested; higher is better.
TESTED: Final = ("accuracy", "r_at_1", "precision_at_10", "map", "map_at_r", "same_item")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ComparedModel:
    """A model that is compared, and how it did."""

    folder: str
    name: str
    fingerprint: str
    predictions: Predictions
    calibration_error: float | None  # None: there are no classes
    parameters: int
    ms_one_image: float

    def figures(self) -> dict[str, float]:
        """Return what is shown side by side, by its name; what was not measured is missing."""
        means = {name: float(np.nanmean(n)) for name, n in self.predictions.per_image.items()}
        if self.calibration_error is not None:
            means["calibration_error"] = self.calibration_error
        return {**means, "parameters": self.parameters, "ms_one_image": self.ms_one_image}

    def to_json(self) -> dict[str, Any]:
        """Return which model it is and its figures, as JSON values."""
        return {
            "folder": self.folder,
            "name": self.name,
            "fingerprint": self.fingerprint,
            "figures": self.figures(),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """A new model against the base."""

    new: str  # folders
    base: str
    images: int  # that both were measured on
    alpha: float
    differences: dict[str, PairedDifference]  # by the names in TESTED, of what both have
    counts: dict[str, int]  # images that each difference is of

    def lost(self, figures: Sequence[str], *, margin: float | None = None) -> tuple[str, ...]:
        """Return which of ``figures`` are lower, and surely so: one-sided p at most ``alpha``.

        At an alpha of 1 every lower figure counts. With a margin, in [0, 1], the burden of proof is
        turned round: those are returned whose loss may be larger than it.
        """
        return tuple(
            figure
            for figure in figures
            if (
                self.differences[figure].lowest < -margin
                if margin is not None
                else self.differences[figure].difference < 0
                and self.differences[figure].p_worse <= self.alpha
            )
        )

    def to_json(self) -> dict[str, Any]:
        """Return the differences as JSON values."""
        return {
            "new": self.new,
            "base": self.base,
            "images": self.images,
            "differences": {
                figure: {
                    **asdict(paired),
                    "interval": list(paired.interval),
                    "images": self.counts[figure],
                }
                for figure, paired in self.differences.items()
            },
        }


def measure_for_comparison(
    folder: Path, dataset: Dataset, *, device: str = "auto"
) -> ComparedModel:
    """Measure what is compared of a model, and nothing else of what ``evaluate_model`` does.

    Raises:
        ModelFolderError, DeviceError, DataError: as ``training.evaluation.evaluate.measure``.
    """
    encoder = TorchEncoder.load(folder, device=device)
    check_classes(folder, encoder.manifest, dataset)
    many = fastest_encoder(encoder, images=images_to_encode(dataset))
    queries, gallery = encode_parts(many, dataset)
    return ComparedModel(
        folder=str(folder),
        name=encoder.manifest.name,
        fingerprint=encoder.manifest.fingerprint,
        predictions=(predictions := predict_test_images(many, queries, gallery, dataset)),
        calibration_error=None
        if predictions.predicted_N is None
        else calibration_error(queries.probabilities_BL, predictions.labels_N),
        parameters=encoder.parameters,
        ms_one_image=1000 * median_s(encoder, 1),
    )


def compare_models(base: ComparedModel, new: ComparedModel, *, alpha: float = ALPHA) -> Comparison:
    """Compare two models image by image, on the files that both were measured on.

    Raises:
        DataError: there are none.
    """
    ours, theirs = _pair(base.predictions, new.predictions)
    if not len(ours):
        raise DataError(f"{base.folder} and {new.folder} were measured on no image in common")
    before, after = base.predictions.per_image, new.predictions.per_image
    differences: dict[str, PairedDifference] = {}
    counts: dict[str, int] = {}
    for figure in TESTED:
        if figure not in before or figure not in after:
            continue
        base_N, new_N = before[figure][ours], after[figure][theirs]
        both_N = ~(np.isnan(base_N) | np.isnan(new_N))
        if both_N.any():
            counts[figure] = int(both_N.sum())
            differences[figure] = _difference(base_N[both_N], new_N[both_N], alpha)
    return Comparison(
        new=new.folder,
        base=base.folder,
        images=len(ours),
        alpha=alpha,
        differences=differences,
        counts=counts,
    )


def _difference(
    base_N: NDArray[np.bool_] | NDArray[np.float64],
    new_N: NDArray[np.bool_] | NDArray[np.float64],
    alpha: float,
) -> PairedDifference:
    if base_N.dtype == np.bool_:
        return compare_shares(base_N.astype(np.bool_), new_N.astype(np.bool_), alpha=alpha)
    return compare_means(base_N.astype(np.float64), new_N.astype(np.float64), alpha=alpha)


def _pair(base: Predictions, new: Predictions) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the positions of the same images in both: equal files of the same class, one by one.

    Positions alone say nothing: a file that only one preprocessing can read shifts all others.
    """
    ours, theirs = _keys(base), _keys(new)
    common = [key for key in ours if key in theirs]
    return (
        np.array([ours[key] for key in common], np.int64),
        np.array([theirs[key] for key in common], np.int64),
    )


def _keys(predictions: Predictions) -> dict[tuple[int, str, int], int]:
    """Return the position of each image by its content, its class, and which such image it is."""
    met: Counter[tuple[int, str]] = Counter()
    positions: dict[tuple[int, str, int], int] = {}
    for position, (content, label) in enumerate(
        zip(predictions.contents_N.tolist(), predictions.labels_N.tolist(), strict=True)
    ):
        image = (content, predictions.label_names[label] if predictions.label_names else "")
        positions[*image, met[image]] = position
        met[image] += 1
    return positions


def check_comparable(base: str, base_manifest: Manifest, new: str, manifest: Manifest) -> None:
    """Refuse models that cannot be measured on the same images; ``base`` and ``new`` name them.

    A model without classes is measured by what all have in common, the vectors.

    Raises:
        DataError: they know other classes, or held out other ones.
    """
    if not base_manifest.labels or not manifest.labels:
        return
    for what, ours, theirs in (
        ("know", base_manifest.labels, manifest.labels),
        ("held out", held_out_classes(base_manifest), held_out_classes(manifest)),
    ):
        odd = sorted(set(ours) ^ set(theirs))
        if odd:
            raise DataError(
                f"{base} and {new} {what} different classes (only one has {listed(odd)}): "
                "they cannot be measured on the same images"
            )
