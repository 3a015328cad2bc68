"""A vector and the class it was given in, whether it is one of the things a model knows out.

A model folder keeps vectors of some of the photos that were learnt from. A picture whose vector
lies farther from them than the model's own photos do is none of these things: the distance to the
k-th nearest, as in Sun et al. 2022 (arXiv:2204.06507). So is one whose nearest are of other classes
than the network says. Both limits were fitted with photos kept aside
(``training.evaluation.novelty``).
Of vectors with two parts the one that tells things apart is compared: in the other, pictures of
anything lie near some class.

Knows no torch. Shape suffixes: K references, D vector width.
"""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, NamedTuple, Self

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray
from safetensors import SafetensorError

from vision.errors import ModelFolderError
from vision.model.manifest import Architecture, Manifest, read_checked

REFERENCES_NAME: Final = "references.safetensors"
REFERENCES_SHA256: Final = "references_sha256"  # in the manifest's data
NEIGHBOURS: Final = 10  # that are looked at
LEAST_LENGTH: Final = 1e-12  # that a vector is divided by

ReasonCode = Literal["far_from_all", "neighbours_differ", "not_known"]


class Reason(NamedTuple):
    """Why a class is not sure."""

    code: ReasonCode
    detail: str  # a sentence


class Verdict(NamedTuple):
    """Whether a picture is one of the things that the model knows."""

    sure: bool | None  # None: it cannot be told
    why_not: Reason | None


UNKNOWN: Final = Verdict(
    None,
    Reason(
        "not_known",
        "this model keeps no photos to compare with (it was made by an earlier version, or has no "
        "classes), so it cannot say whether the picture is one of the things it knows",
    ),
)


class Neighborhood(NamedTuple):
    """Where a vector lies among the references."""

    distance: float  # 1 - cosine to the k-th nearest, in [0, 2]
    agreement: float  # share of the k nearest that have the class it was given, in [0, 1]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class OpenSetDetector:
    """Vectors of photos that a model has learnt from, and what counts as near to them."""

    vectors_KD: NDArray[np.float32]  # unit length, of the numbers that are compared
    labels_K: NDArray[np.int32]  # positions among the model's labels
    most_distance: float  # beyond it a picture is none of these
    least_agreement: float  # below it, too
    refused: float  # share of one's own new photos that both limits refuse, as they were fitted
    fitted_on: int  # photos

    def near(self, vector_D: NDArray[np.float32], label: int) -> Neighborhood:
        """Return where a vector lies that was given the class at position ``label``."""
        part_D = vector_D[: self.vectors_KD.shape[1]]
        scores_K = self.vectors_KD @ part_D / max(float(np.linalg.norm(part_D)), LEAST_LENGTH)
        nearest = np.argpartition(scores_K, -self._looked_at)[-self._looked_at :]
        return Neighborhood(
            1 - float(scores_K[nearest].min()), float((self.labels_K[nearest] == label).mean())
        )

    def judge(self, vector_D: NDArray[np.float32], label: int) -> Verdict:
        """Return whether a picture is one of the things the model knows; some 0.1 ms."""
        distance, agreement = self.near(vector_D, label)
        if distance > self.most_distance:
            return Verdict(
                False,
                Reason(
                    "far_from_all",
                    "none of the photos that the model has learnt from is near: the "
                    f"{self._looked_at} nearest are up to {distance:.3f} away, where at most "
                    f"{self.most_distance:.3f} is usual; it may be none of these classes",
                ),
            )
        if agreement < self.least_agreement:
            return Verdict(
                False,
                Reason(
                    "neighbours_differ",
                    f"the photos nearest to it are of other classes: {agreement:.0%} of "
                    f"{self._looked_at} have this one, where at least "
                    f"{self.least_agreement:.0%} is usual",
                ),
            )
        return Verdict(True, None)

    @property
    def _looked_at(self) -> int:
        return min(NEIGHBOURS, len(self.vectors_KD))

    def to_bytes(self) -> bytes:
        """Return the file's bytes."""
        limits = [self.most_distance, self.least_agreement, self.refused, self.fitted_on]
        return safetensors.numpy.save(
            {
                "vectors": self.vectors_KD,
                "labels": self.labels_K,
                "limits": np.array(limits, np.float64),
            }
        )

    @classmethod
    def from_bytes(cls, data: bytes, *, widths: Collection[int]) -> Self:
        """Return what ``to_bytes`` wrote, of one of these counts of numbers each.

        Raises:
            ModelFolderError: it is something else.
        """
        try:
            arrays = safetensors.numpy.load(data)
            vectors_KD, labels_K, limits = (arrays[n] for n in ("vectors", "labels", "limits"))
        except (SafetensorError, KeyError) as error:
            raise ModelFolderError(f"{REFERENCES_NAME} is damaged: no references in it") from error
        fits = vectors_KD.shape in [(len(labels_K), width) for width in widths]
        if not fits or limits.shape != (4,):
            counts = " or ".join(map(str, sorted(set(widths))))
            raise ModelFolderError(f"{REFERENCES_NAME} is damaged: {counts} numbers each expected")
        return cls(
            vectors_KD=vectors_KD.astype(np.float32, copy=False),
            labels_K=labels_K.astype(np.int32, copy=False),
            most_distance=float(limits[0]),
            least_agreement=float(limits[1]),
            refused=float(limits[2]),
            fitted_on=int(limits[3]),
        )


def judge(
    references: OpenSetDetector | None,
    vector_D: NDArray[np.float32],
    probabilities_L: NDArray[np.float32],
) -> Verdict:
    """Return whether a picture is one of the things the model knows, as far as it can tell."""
    if references is None:
        return UNKNOWN
    return references.judge(vector_D, int(probabilities_L.argmax()))


def compared_width(architecture: Architecture) -> int:
    """Return how many numbers of a vector are compared, the first ones."""
    return architecture.item_width or architecture.width


def read_detector(folder: Path, manifest: Manifest) -> OpenSetDetector | None:
    """Return the references of a model; None where it has none.

    Raises:
        ModelFolderError: the file is missing, or not the one that the manifest describes.
    """
    sha256 = manifest.data.get(REFERENCES_SHA256)
    if sha256 is None:
        return None
    data = read_checked(folder, REFERENCES_NAME, sha256)
    whole = manifest.architecture.width  # so they were compared, and written, at first
    return OpenSetDetector.from_bytes(data, widths=(compared_width(manifest.architecture), whole))
