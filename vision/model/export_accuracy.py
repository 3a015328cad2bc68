"""How far an export is from torch, in figures, and how far it may be; knows no torch."""

import math
from dataclasses import asdict, dataclass, replace
from typing import Any, Final, Self

SIGNIFICANCE: Final = 0.05  # a loss that comes by chance this often or more is none


@dataclass(frozen=True, slots=True, kw_only=True)
class Neighbours:
    """What a search among images finds by an export, beside what it finds by torch.

    ``beside_torch`` searches torch's vectors with the export's, as in a gallery that was filled
    before; everything else searches the export's vectors. An image does not find itself.
    """

    images: int
    overlap: float  # share of torch's nearest (10, or half of all) that are among the export's
    overlap_beside_torch: float
    r_at_1_torch: float | None  # share whose nearest is of their class; None: there are no classes
    r_at_1: float | None
    r_at_1_beside_torch: float | None
    lost: int | None  # images of which only torch's nearest is of their class
    won: int | None  # images of which only the export's is


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """How far an export is from torch, measured on the same images with both."""

    images: int
    cosine_mean: float  # of an image's two vectors
    cosine_low: float  # that 1 % of the images do not reach
    cosine_min: float
    accuracy_torch: float | None  # in [0, 1], on images that are labelled; None: no classes
    accuracy: float | None  # likewise, of the export
    lost: int | None = None  # images that only torch is right of; None in exports of up to 0.4.0
    won: int | None = None  # images that only the export is right of
    neighbours: Neighbours | None = None  # None: one image, or an export of up to 0.5.0

    def to_json(self) -> dict[str, Any]:
        """Return the figures as JSON values, without those that are not known."""
        always = ("accuracy_torch", "accuracy")
        return {
            name: value
            for name, value in asdict(self).items()
            if value is not None or name in always
        }

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> Self:
        """Return what ``to_json`` gave; TypeError: it did not give that."""
        found = fields.get("neighbours")
        return cls(**(fields | ({"neighbours": Neighbours(**found)} if found else {})))

    def without_classes(self) -> Self:
        """Return the figures of the vectors alone."""
        return replace(self, accuracy_torch=None, accuracy=None, lost=None, won=None)

    def __str__(self) -> str:
        accuracy, found = "", ""
        if self.accuracy is not None and self.accuracy_torch is not None:
            accuracy = f", accuracy {self.accuracy:.2%}, with torch {self.accuracy_torch:.2%}"
        if self.neighbours is not None:
            found = f", {self.neighbours.overlap:.1%} of the nearest are the same"
        return (
            f"mean cosine {self.cosine_mean:.5f} (99 % above {self.cosine_low:.5f}, lowest "
            f"{self.cosine_min:.5f}){accuracy}{found}, on {self.images:,} images"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class LossLimits:
    """What an export may lose."""

    min_overlap: float = 0.85  # share of the nearest images that must stay
    max_accuracy_loss: float = 0.003  # share of the images; of r@1 as well

    def refuse(self, difference: Difference) -> str | None:
        """Return why a network with this difference is refused; None: it is not.

        A loss counts that is larger than the limit and than chance explains.
        """
        if not difference.cosine_mean > 0:  # also what is no number
            return "its vectors have nothing to do with torch's"
        most = f"more than {100 * self.max_accuracy_loss:g} points of"
        if self._loses(difference.lost, difference.won, difference.images):
            return f"it loses {most} accuracy"
        found = difference.neighbours
        if found is None:
            return None
        for overlap, among in (
            (found.overlap, "searching its own vectors"),
            (found.overlap_beside_torch, "searching torch's vectors"),
        ):
            if not overlap >= self.min_overlap:
                return f"{among}, it finds less than {self.min_overlap:.0%} of the nearest"
        if self._loses(found.lost, found.won, found.images):
            return f"it loses {most} r@1"
        return None

    def _loses(self, lost: int | None, won: int | None, images: int) -> bool:
        if lost is None or won is None:
            return False
        return lost - won > self.max_accuracy_loss * images and sign_test(lost, won) < SIGNIFICANCE


def sign_test(lost: int, won: int) -> float:
    """Return how often chance alone takes ``lost`` or more of all changes (exact sign test)."""
    changed = lost + won
    as_bad: int = sum(math.comb(changed, one) for one in range(lost, changed + 1))
    return float(as_bad / 2**changed)
