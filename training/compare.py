"""Measurements of two models on the same images in, what changed and what was lost out."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from training.calibration import calibration_error
from training.data import Dataset
from training.errors import DataError
from training.evaluate import Outcome, encode_parts, find_outcome, load_encoder
from training.significance import ALPHA, PairedDifference, compare_means, compare_shares
from training.speed import median_s
from training.units import listed
from training.unlearnt import held_out_classes
from vision.manifest import Manifest

# The figures that are known image by image, and so can be tested; higher is better.
TESTED: Final = ("accuracy", "r_at_1", "precision_at_10", "map", "map_at_r")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Contender:
    """A model that is compared, and how it did."""

    folder: str
    name: str
    fingerprint: str
    outcome: Outcome
    calibration_error: float
    parameters: int
    ms_one_image: float

    def figures(self) -> dict[str, float]:
        """Return what is shown side by side, by its name."""
        retrieval = self.outcome.retrieval
        return {
            "accuracy": float(self.outcome.correct_N.mean()),
            "r_at_1": retrieval.r_at_1,
            "precision_at_10": retrieval.precision_at_10,
            "map": retrieval.map,
            "map_at_r": retrieval.map_at_r,
            "calibration_error": self.calibration_error,
            "parameters": self.parameters,
            "ms_one_image": self.ms_one_image,
        }

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
    differences: dict[str, PairedDifference]  # by the names in TESTED

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
                figure: {**asdict(paired), "interval": list(paired.interval)}
                for figure, paired in self.differences.items()
            },
        }


def measure_contender(folder: Path, dataset: Dataset, *, device: str = "auto") -> Contender:
    """Measure what is compared of a model, and nothing else of what ``measure`` does.

    Raises:
        ModelFolderError, DeviceError, DataError: as ``training.evaluate.measure``.
    """
    encoder = load_encoder(folder, dataset, device=device)
    queries, gallery = encode_parts(encoder, dataset)
    return Contender(
        folder=str(folder),
        name=encoder.manifest.name,
        fingerprint=encoder.manifest.fingerprint,
        outcome=find_outcome(queries, gallery, dataset),
        calibration_error=calibration_error(queries.probabilities_BL, dataset.test.labels_N),
        parameters=encoder.parameters,
        ms_one_image=1000 * median_s(encoder, 1),
    )


def compare(base: Contender, new: Contender, *, alpha: float = ALPHA) -> Comparison:
    """Compare two models image by image, on the files that both were measured on.

    Raises:
        DataError: there are none.
    """
    ours, theirs = _pair(base.outcome, new.outcome)
    if not len(ours):
        raise DataError(f"{base.folder} and {new.folder} were measured on no image in common")
    before, after = base.outcome.retrieval, new.outcome.retrieval

    def shares(base_N: NDArray[np.bool_], new_N: NDArray[np.bool_]) -> PairedDifference:
        return compare_shares(base_N[ours], new_N[theirs], alpha=alpha)

    def means(base_N: NDArray[np.float64], new_N: NDArray[np.float64]) -> PairedDifference:
        return compare_means(base_N[ours], new_N[theirs], alpha=alpha)

    return Comparison(
        new=new.folder,
        base=base.folder,
        images=len(ours),
        alpha=alpha,
        differences={
            "accuracy": shares(base.outcome.correct_N, new.outcome.correct_N),
            "r_at_1": shares(before.first_Q, after.first_Q),
            "precision_at_10": means(before.precision_Q, after.precision_Q),
            "map": means(before.average_precision_Q, after.average_precision_Q),
            "map_at_r": means(before.average_precision_at_r_Q, after.average_precision_at_r_Q),
        },
    )


def _pair(base: Outcome, new: Outcome) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the positions of the same images in both: equal files of the same class, one by one.

    Positions alone say nothing: a file that only one preprocessing can read shifts all others.
    """
    ours, theirs = _keys(base), _keys(new)
    common = [key for key in ours if key in theirs]
    return (
        np.array([ours[key] for key in common], np.int64),
        np.array([theirs[key] for key in common], np.int64),
    )


def _keys(outcome: Outcome) -> dict[tuple[int, str, int], int]:
    """Return the position of each image by its content, its class, and which such image it is."""
    met: Counter[tuple[int, str]] = Counter()
    positions: dict[tuple[int, str, int], int] = {}
    for position, (content, label) in enumerate(
        zip(outcome.contents_N.tolist(), outcome.labels_N.tolist(), strict=True)
    ):
        image = (content, outcome.label_names[label])
        positions[*image, met[image]] = position
        met[image] += 1
    return positions


def check_comparable(base: str, base_manifest: Manifest, new: str, manifest: Manifest) -> None:
    """Refuse models that cannot be measured on the same images; ``base`` and ``new`` name them.

    Raises:
        DataError: they know other classes, or held out other ones.
    """
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
