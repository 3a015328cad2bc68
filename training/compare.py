"""Measurements of two models on the same images in, what changed and what was lost out."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from training.calibration import calibration_error
from training.data import Dataset
from training.errors import DataError
from training.evaluate import Outcome, encode_all, find_outcome, load_encoder
from training.significance import PairedDifference, compare_means, compare_shares
from training.speed import median_s
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
    differences: dict[str, PairedDifference]  # by the names in TESTED

    def lost(self, figures: Sequence[str], *, alpha: float) -> tuple[str, ...]:
        """Return which of ``figures`` are lower, and surely so: one-sided p at most ``alpha``.

        At an alpha of 1 every lower figure counts.
        """
        return tuple(
            figure
            for figure in figures
            if self.differences[figure].difference < 0 and self.differences[figure].p_worse <= alpha
        )

    def to_json(self) -> dict[str, Any]:
        """Return the differences as JSON values."""
        return {
            "new": self.new,
            "base": self.base,
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
    gallery = encode_all(encoder, dataset.train.images_NCHW)
    queries = encode_all(encoder, dataset.test.images_NCHW)
    return Contender(
        folder=str(folder),
        name=encoder.manifest.name,
        fingerprint=encoder.manifest.fingerprint,
        outcome=find_outcome(queries, gallery, dataset),
        calibration_error=calibration_error(queries.probabilities_BL, dataset.test.labels_N),
        parameters=encoder.parameters,
        ms_one_image=1000 * median_s(encoder, 1),
    )


def compare(base: Contender, new: Contender) -> Comparison:
    """Compare two models image by image.

    Raises:
        DataError: they were not measured on the same images.
    """
    if not np.array_equal(base.outcome.labels_N, new.outcome.labels_N):
        raise DataError(
            f"{base.folder} and {new.folder} were not measured on the same images: "
            f"{len(base.outcome.labels_N)} and {len(new.outcome.labels_N)} of them, "
            "or in another order"
        )
    before, after = base.outcome.retrieval, new.outcome.retrieval
    return Comparison(
        new=new.folder,
        base=base.folder,
        differences={
            "accuracy": compare_shares(base.outcome.correct_N, new.outcome.correct_N),
            "r_at_1": compare_shares(before.first_Q, after.first_Q),
            "precision_at_10": compare_means(before.precision_Q, after.precision_Q),
            "map": compare_means(before.average_precision_Q, after.average_precision_Q),
            "map_at_r": compare_means(
                before.average_precision_at_r_Q, after.average_precision_at_r_Q
            ),
        },
    )


def held_out_classes(manifest: Manifest) -> tuple[str, ...]:
    """Return the classes of its data that the model never saw, in order."""
    return tuple(manifest.data.get("held_out_classes", []))


def check_comparable(base: str, base_manifest: Manifest, new: str, manifest: Manifest) -> None:
    """Refuse models that cannot be measured on the same images; ``base`` and ``new`` name them.

    Raises:
        DataError: they know other classes, or held out other ones.
    """
    for what, ours, theirs in (
        ("know", base_manifest.labels, manifest.labels),
        ("held out", held_out_classes(base_manifest), held_out_classes(manifest)),
    ):
        if ours != theirs:
            odd = sorted(set(ours) ^ set(theirs))
            detail = f"only one has {', '.join(odd[:5])}" if odd else "their order differs"
            raise DataError(
                f"{base} and {new} {what} different classes ({detail}): "
                "they cannot be measured on the same images"
            )
