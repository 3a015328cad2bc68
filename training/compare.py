"""Measurements of two models on the same images in, what changed and what was lost out."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np

from training.errors import DataError
from training.evaluate import Outcome
from training.evaluation import Evaluation
from training.significance import PairedDifference, compare_means, compare_shares
from vision.manifest import Manifest

# The figures that are known image by image, and so can be tested; higher is better.
TESTED: Final = ("accuracy", "r_at_1", "precision_at_10", "map", "map_at_r")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Contender:
    """A model that is compared, and how it did."""

    folder: str
    evaluation: Evaluation
    outcome: Outcome

    def figures(self) -> dict[str, float]:
        """Return what is shown side by side, by its name."""
        evaluation = self.evaluation
        return {
            "accuracy": evaluation.accuracy,
            "r_at_1": evaluation.r_at_1,
            "precision_at_10": evaluation.precision_at_10,
            "map": evaluation.map,
            "map_at_r": evaluation.map_at_r,
            "calibration_error": evaluation.calibration_error,
            "parameters": evaluation.model.parameters,
            "ms_one_image": evaluation.speed.ms_one_image,
        }

    def to_json(self) -> dict[str, Any]:
        """Return which model it is and its figures, as JSON values."""
        model = self.evaluation.model
        return {
            "folder": self.folder,
            "name": model.name,
            "fingerprint": model.fingerprint,
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
    before, after = base.outcome, new.outcome
    return Comparison(
        new=new.folder,
        base=base.folder,
        differences={
            "accuracy": compare_shares(before.correct_N, after.correct_N),
            "r_at_1": compare_shares(before.first_N, after.first_N),
            "precision_at_10": compare_means(before.precision_N, after.precision_N),
            "map": compare_means(before.average_precision_N, after.average_precision_N),
            "map_at_r": compare_means(
                before.average_precision_at_r_N, after.average_precision_at_r_N
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
