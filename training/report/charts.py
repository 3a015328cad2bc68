"""Figures in, drawings out: SVG that takes its colours from the page it stands in.

Every drawing has a title, a role and a text per mark; lengths are SVG user units, y goes down.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from markupsafe import Markup

from training.formatting import count, percent, plural

FEW_EPOCHS: Final = 40  # up to here each epoch gets a mark
STEPS: Final = (1, 2, 5, 10)  # times a power of ten: distances of grid lines
FINEST: Final = 1e-9  # of a value's own size: nearer than that is the same grid line


@dataclass(frozen=True, slots=True)
class Frame:
    """The part of a drawing that values are mapped to: x0 to x1 and y0 (bottom) to y1 (top)."""

    x: tuple[float, float]  # values at the left and right edge
    y: tuple[float, float]  # values at the bottom and top edge
    x0: float
    x1: float
    y0: float
    y1: float

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Return where a point is drawn."""
        return (
            self.x0 + (x - self.x[0]) / (self.x[1] - self.x[0]) * (self.x1 - self.x0),
            self.y0 + (y - self.y[0]) / (self.y[1] - self.y[0]) * (self.y1 - self.y0),
        )


# -- learning curves


@dataclass(frozen=True, slots=True)
class Line:
    """One value per epoch, or None where there is none."""

    name: str
    style: str  # CSS class: "training" (solid, round marks) or "held-out" (dashed, square marks)
    values: tuple[float | None, ...]


def line_chart(
    title: str,
    epochs: Sequence[int],
    lines: Sequence[Line],
    *,
    say: Callable[[float], str],
    from_zero: bool,
    highest: float = math.inf,
) -> Markup:
    """Return values over epochs (at least one).

    Args:
        title: what the values are, with their unit.
        epochs: ascending.
        lines: one value per epoch each, and at least one that is not None among them.
        say: how a value is written at its mark.
        from_zero: whether the axis must begin at 0.
        highest: what no value can exceed, and the axis therefore neither.
    """
    values = [value for line in lines for value in line.values if value is not None]
    grid = grid_values(0 if from_zero else min(values), max(values))
    y_high = min(grid[-1], highest)
    grid = [value for value in grid if value <= y_high * (1 + FINEST)]
    one_epoch = 0.5 if len(epochs) == 1 else 0.0  # its mark stands in the middle
    frame = Frame(
        (epochs[0] - one_epoch, epochs[-1] + one_epoch), (grid[0], y_high), 46, 300, 178, 12
    )
    label = _axis_labels(grid, in_percent=math.isfinite(highest))
    parts = [
        *(_grid_line(frame, value, label(value)) for value in grid),
        *(_below(frame, epoch, str(epoch)) for epoch in _some(epochs)),
        _note((frame.x0 + frame.x1) / 2, 212, "epoch"),
        *(_line(frame, epochs, line, say) for line in lines),
    ]
    return _drawing(title, 310, 220, parts)


def _line(frame: Frame, epochs: Sequence[int], line: Line, say: Callable[[float], str]) -> Markup:
    points = [
        (*frame.at(epoch, value), epoch, value)
        for epoch, value in zip(epochs, line.values, strict=True)
        if value is not None
    ]
    path = Markup('<polyline class="line {}" points="{}"/>').format(
        line.style, " ".join(f"{x:.1f},{y:.1f}" for x, y, _, _ in points)
    )
    if len(epochs) > FEW_EPOCHS:
        return path
    mark = Markup('<rect class="mark {}" x="{:.1f}" y="{:.1f}" width="6" height="6" rx="{}">{}')
    return path + Markup("").join(
        mark.format(
            line.style,
            x - 3,
            y - 3,
            0 if line.style == "held-out" else 3,
            _hint(f"{line.name}, epoch {epoch}: {say(value)}") + Markup("</rect>"),
        )
        for x, y, epoch, value in points
    )


def _axis_labels(grid: Sequence[float], *, in_percent: bool) -> Callable[[float], str]:
    """Return how grid values are written: with the decimals that tell them apart, and no more."""
    factor, unit = (100, "%") if in_percent else (1, "")
    step = (grid[1] - grid[0]) * factor if len(grid) > 1 else 1
    decimals = max(0, -math.floor(math.log10(step) + FINEST))
    return lambda value: f"{value * factor:.{decimals}f}{unit}"


def _some(epochs: Sequence[int]) -> Sequence[int]:
    """Return all of a few epochs, or round ones of many."""
    if len(epochs) <= 10:  # noqa: PLR2004 - as many labels as find room
        return epochs
    grid = grid_values(epochs[0], epochs[-1], about=5)
    return [epoch for epoch in epochs if epoch in grid]


def grid_values(low: float, high: float, about: int = 4) -> list[float]:
    """Return round numbers, evenly spaced, the first at or below ``low``, the last not below high.

    >>> grid_values(0, 0.66), grid_values(0.846, 0.93)
    ([0.0, 0.2, 0.4, 0.6, 0.8], [0.84, 0.86, 0.88, 0.9, 0.92, 0.94])
    """
    if high <= low:
        high = low + (abs(low) or 1.0) / 10
    rough = (high - low) / about
    power = 10.0 ** math.floor(math.log10(rough))
    step = min((power * factor for factor in STEPS), key=lambda wide: abs(wide - rough))
    first, last = math.floor(low / step + FINEST), math.ceil(high / step - FINEST)
    return [float(f"{number * step:.9g}") for number in range(first, last + 1)]


# -- calibration


def reliability_diagram(title: str, bins: Sequence[dict[str, Any]]) -> Markup:
    """Return accuracy over stated probability, one bar per bin, and below the images in each.

    Args:
        title: which probabilities these are.
        bins: low, high, images, confidence and accuracy each; the last two None without images.
    """
    upper = Frame((0, 1), (0, 1), 46, 326, 290, 10)
    most = max(1, *(bin_["images"] for bin_ in bins))
    lower = Frame((0, 1), (0, most), 46, 326, 392, 348)
    corners = (*upper.at(0, 0), *upper.at(1, 1))
    parts = [
        *(_grid_line(upper, value, f"{value:.0%}") for value in (0, 0.25, 0.5, 0.75, 1)),
        *(_below(upper, value, f"{value:.0%}") for value in (0, 0.25, 0.5, 0.75, 1)),
        _note((upper.x0 + upper.x1) / 2, 326, "stated probability"),
        *(_bin(upper, lower, bin_) for bin_ in bins if bin_["images"]),
        Markup('<line class="honest" x1="{:.1f}" y1="{:.1f}" x2="{:.1f}" y2="{:.1f}"/>').format(
            *corners
        ),
        _note((lower.x0 + lower.x1) / 2, 410, f"images per bar, at most {count(most)}"),
    ]
    return _drawing(title, 340, 420, parts)


def _bin(upper: Frame, lower: Frame, bin_: dict[str, Any]) -> Markup:
    left, top = upper.at(bin_["low"], bin_["accuracy"])
    right, stated = upper.at(bin_["high"], bin_["confidence"])
    _, tall = lower.at(0, bin_["images"])
    tall = min(tall, lower.y0 - 1)  # few images are still some
    hint = _hint(
        f"stated {percent(bin_['low'])} to {percent(bin_['high'])}, "
        f"{percent(bin_['confidence'])} on average; right {percent(bin_['accuracy'])}; "
        f"{plural(bin_['images'], 'image')}"
    )
    bar = Markup(
        '<rect class="{}" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}">{}</rect>'
    ).format
    wide = right - left - 2
    return (
        bar("bar", left + 1, top, wide, upper.y0 - top, hint)
        + bar("images", left + 1, tall, wide, lower.y0 - tall, hint)
        + Markup('<line class="stated" x1="{:.1f}" y1="{:.1f}" x2="{:.1f}" y2="{:.1f}"/>').format(
            left + 1, stated, right - 1, stated
        )
    )


# -- pieces


def _grid_line(frame: Frame, value: float, label: str) -> Markup:
    _, y = frame.at(frame.x[0], value)
    return Markup(
        '<line class="grid" x1="{}" x2="{}" y1="{:.1f}" y2="{:.1f}"/>'
        '<text class="tick" x="{}" y="{:.1f}" text-anchor="end">{}</text>'
    ).format(frame.x0, frame.x1, y, y, frame.x0 - 7, y + 4, label)


def _below(frame: Frame, value: float, label: str) -> Markup:
    x, _ = frame.at(value, frame.y[0])
    return _note(x, frame.y0 + 17, label)


def _note(x: float, y: float, text: str) -> Markup:
    note = Markup('<text class="tick" x="{:.1f}" y="{:.1f}" text-anchor="middle">{}</text>')
    return note.format(x, y, text)


def _hint(text: str) -> Markup:
    return Markup("<title>{}</title>").format(text)


def _drawing(title: str, width: int, height: int, parts: Sequence[Markup]) -> Markup:
    drawing = Markup('<svg class="chart" viewBox="0 0 {} {}" role="img" aria-label="{}">{}{}</svg>')
    return drawing.format(width, height, title, _hint(title), Markup("").join(parts))
