"""What `auto` tried, what each was worth, and why one of it was chosen: in JSON and in words."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, Self

from training.formatting import count, duration, listed, percent
from training.heads.cross_validation import FittedHeads, ValidationFigures
from training.progress import Event

SAME_ITEM_SLACK: Final = 0.01  # that a better one may find the very thing less often
KINDS_GAIN: Final = 0.005  # that makes up for finding the very thing less often


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate(Event):
    """One candidate, measured or passed over."""

    name: str
    seconds: float  # of computing features, learning and fitting
    head: str | None = None  # that was best on it
    held_out_images: int = 0  # that the figures are of
    accuracy: float | None = None  # in [0, 1], as the others
    r_at_1: float | None = None  # search for the same class
    same_item: float | None = None  # search for the very thing
    not_tried: str | None = None  # why

    @classmethod
    def with_figures(
        cls, name: str, figures: ValidationFigures, *, seconds: float, head: str
    ) -> Self:
        """Return a candidate that was measured."""
        known = figures._asdict()
        return cls(
            name=name, seconds=seconds, head=head, held_out_images=known.pop("images"), **known
        )

    def __str__(self) -> str:
        """Return the candidate in a line."""
        if self.not_tried:
            return f"{self.name}: not tried, {self.not_tried}"
        figures = [
            f"{word} {percent(value)}"
            for word, value in (
                ("accuracy", self.accuracy),
                ("same class", self.r_at_1),
                ("same item", self.same_item),
            )
            if value is not None
        ]
        return f"{self.name}: {', '.join(figures)}, {duration(self.seconds)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class SelectionResult:
    """All candidates, in the order in which they were tried."""

    tried: tuple[Candidate, ...]
    winner: str  # its name
    why: str  # a sentence

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return {
            "candidates": [asdict(one) for one in self.tried],
            "winner": self.winner,
            "why": self.why,
        }


def describe_head(fitted: FittedHeads) -> str:
    """Return what kind of head was best, in words."""
    if fitted.shrinkage is None:
        return "principal components of what views do not change"
    last = "" if fitted.emphasis == 1 else f", last layer times {fitted.emphasis:.1f}"
    return f"linear discriminants, shrinkage {fitted.shrinkage:g}{last}"


def is_better(one: ValidationFigures, than: ValidationFigures) -> bool:
    """Return whether a candidate is to be taken in place of one that was there before.

    It must be better with classes, by the mean of accuracy and search for the same class, and
    hardly worse at finding the very thing; without classes, better at that.
    """
    if one.accuracy is None:
        return (one.same_item or 0.0) > (than.same_item or 0.0)
    worse = (than.same_item or 0.0) - (one.same_item or 0.0)
    return one.of_classes > than.of_classes and worse <= SAME_ITEM_SLACK


def is_clearly_better(one: ValidationFigures, than: ValidationFigures) -> bool:
    """Return whether one more pretrained network is to be taken in place of an earlier one.

    They are tried in the order of what they are worth on photos at large. Of few photos that says
    more than a difference that may be chance: one standard error decides (Breiman, Friedman,
    Olshen & Stone 1984, section 3.4.3).
    """
    share = than.of_classes
    error = (share * (1 - share) / max(one.images, 1)) ** 0.5
    return is_better(one, than) and (one.accuracy is None or one.of_classes > share + error)


def is_better_at_classes(one: ValidationFigures, than: ValidationFigures) -> bool:
    """Return whether a network that learnt from small pictures alone is to be taken.

    What such pictures show is a class, a letter say, rather than a thing: one that tells kinds
    apart clearly better may find the very picture less often.
    """
    return is_better(one, than) or one.of_classes > than.of_classes + KINDS_GAIN


def explain_choice(
    tried: Sequence[Candidate], winner: str, *, small: bool = False
) -> SelectionResult:
    """Return the comparison with the reason in words.

    Args:
        tried: all candidates.
        winner: the name of the one that is taken.
        small: whether that is a network that learnt from small pictures alone.
    """
    measured = [one for one in tried if one.not_tried is None]
    others = [one for one in measured if one.name != winner]
    (won,) = [one for one in measured if one.name == winner]
    images = (
        f"on {count(won.held_out_images)} training images, each held out of what it was judged by"
    )
    if not others:
        why = f"{winner} is all that was tried {images}."
    elif won.accuracy is None:
        why = f"{winner} finds the very thing most often, {percent(won.same_item)}, {images}."
    elif small:
        why = (
            f"{winner} has the best mean of accuracy ({percent(won.accuracy)}) and search for the "
            f"same class ({percent(won.r_at_1)}) {images}. Of small gray pictures the class is "
            f"what counts, more than how often the very same is found "
            f"({percent(won.same_item)})."
        )
    elif ahead := [one for one in others if _is_ahead(one, won)]:
        names = listed([one.name for one in ahead])
        why = (
            f"{winner} is taken, with an accuracy of {percent(won.accuracy)} and search for the "
            f"same class of {percent(won.r_at_1)} {images}: {names} had more, but by less than one "
            "standard error, or found the very thing less often, and came later since it is worth "
            "less on photos at large."
        )
    else:
        why = (
            f"{winner} has the best mean of accuracy ({percent(won.accuracy)}) and search for the "
            f"same class ({percent(won.r_at_1)}) {images}, among those that do not lose more than "
            f"{percent(SAME_ITEM_SLACK)} at finding the very thing."
        )
    return SelectionResult(tried=tuple(tried), winner=winner, why=why)


def _is_ahead(one: Candidate, won: Candidate) -> bool:
    """Return whether a candidate told kinds apart better, on the same images."""
    mean, best = ((each.accuracy or 0.0) + (each.r_at_1 or 0.0) for each in (one, won))
    return mean > best and one.held_out_images == won.held_out_images


def candidate_rows(comparison: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Return a row of text for each candidate of ``to_json``'s values, after a row of titles."""
    rows: list[tuple[str, ...]] = [
        ("Candidate", "Head", "Accuracy", "Same class", "Same item", "Time")
    ]
    for one in comparison["candidates"]:
        if one["not_tried"]:
            rows.append((one["name"], f"not tried: {one['not_tried']}", "", "", "", ""))
            continue
        rows.append(
            (
                one["name"] + (" (chosen)" if one["name"] == comparison["winner"] else ""),
                one["head"] or "",
                *(percent(one[figure]) for figure in ("accuracy", "r_at_1", "same_item")),
                duration(one["seconds"]),
            )
        )
    return rows
