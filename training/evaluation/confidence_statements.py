"""Figures in, what can be believed of them at this size out: sentences for people."""

from collections.abc import Sequence
from typing import Final

from training.evaluation.results import ClassFigures
from training.formatting import listed, percent, plural
from training.statistics.calibration import CalibrationFigures
from training.statistics.significance import Interval, PairedDifference, noticed_drop

WON_BACK: Final = 0.5  # of one model's errors, those that another one is right on
FEW: Final = 30  # images of a class, below which its figures are said to rest on little


def accuracy_statement(accuracy: float, images: int, bounds: Interval) -> str:
    """Return how well an accuracy is known, and which drop `compare` would show.

    Of another model that is supposed to be right on half of the images that this one gets wrong:
    models that agree more would show smaller drops.
    """
    low, high = bounds
    noticed = noticed_drop(images, won=WON_BACK * (1 - accuracy))
    unseen = (
        "no drop at all would be noticed"
        if noticed is None
        else f"a drop of less than {points(noticed)} would hardly be noticed"
    )
    return (
        f"With {plural(images, 'test image')}, the true accuracy may lie between {percent(low)} "
        f"and {percent(high)}; {unseen}."
    )


def points(share: float) -> str:
    """Return a difference of shares in percentage points.

    >>> points(0.3133), points(0.0196), points(0.01)
    ('31 points', '2.0 points', '1.0 points')
    """
    return f"{100 * share:.{0 if share >= 0.095 else 1 if share >= 0.00095 else 2}f} points"  # noqa: PLR2004


def calibration_statement(calibration: CalibrationFigures) -> str:
    """Return how much of a calibration error is luck."""
    error, honest = percent(calibration.error), percent(calibration.honest)
    if not calibration.shown:
        highest = percent(calibration.honest_high)
        return (
            f"The calibration error of {error} shows nothing: on this many images even honest "
            f"probabilities have one of {honest}, by chance up to {highest}."
        )
    low, high = calibration.interval
    return (
        f"Of the calibration error of {error}, {percent(calibration.beyond_chance)} are beyond "
        f"chance ({percent(low)} to {percent(high)}); honest probabilities would have {honest} on "
        "this many images."
    )


def class_statements(classes: Sequence[ClassFigures]) -> tuple[str, ...]:
    """Return which classes were measured on few images, or on none."""
    said: list[str] = []
    measured = [one for one in classes if one.images]
    smallest = min(measured, key=lambda one: one.images)
    if smallest.images < FEW and smallest.recall_interval is not None:
        low, high = smallest.recall_interval
        few = sum(one.images < FEW for one in measured)
        said.append(
            f"{plural(few, 'class has', 'classes have')} fewer than {FEW} test images: the recall "
            f"of {smallest.label!r}, with {plural(smallest.images, 'image')}, may lie between "
            f"{percent(low)} and {percent(high)}."
        )
    without = [one.label for one in classes if not one.images]
    if without:
        said.append(
            f"{plural(len(without), 'class has', 'classes have')} no test image and "
            f"{'is' if len(without) == 1 else 'are'} not measured: {listed(without)}."
        )
    return tuple(said)


def guard_statement(figure: str, paired: PairedDifference, images: int, alpha: float) -> str:
    """Return what a gate that let a figure pass could have seen of it."""
    seen = (
        "no drop would have been noticed"
        if paired.noticed is None
        else f"a drop of less than {points(paired.noticed)} would hardly have been noticed"
    )
    change = (
        f" It is {points(-paired.difference)} lower here, which does not exclude chance "
        f"(p = {paired.p_worse:.3f}, alpha {alpha:g})."
        if paired.difference < 0
        else ""
    )
    return f"{figure}: with {plural(images, 'image')}, {seen}.{change}"
