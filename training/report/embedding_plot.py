"""Vectors flattened to a plane in, a map of them out: SVG, a colour, shape and number per class.

Shape suffixes: M points, L classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from training.formatting import plural

WIDTH, HEIGHT, MARGIN = 500, 400, 14
COLOURS: Final = 10  # the page's --class-0 to --class-9
MOST_NUMBERS: Final = 100  # classes whose number is written on the map
APART: Final = 24  # the least distance of two numbers' centres
PUSHES: Final = 200  # until no number covers another

# Around (0, 0), of about the same area; ten classes each, so that sixty classes differ.
SHAPES: Final = (
    "M-2.7 0a2.7 2.7 0 1 0 5.4 0a2.7 2.7 0 1 0 -5.4 0Z",  # disc
    "M-2.4-2.4h4.8v4.8h-4.8Z",  # square
    "M0-3.5L3.2 2.3H-3.2Z",  # triangle
    "M0-3.5L3.4 0L0 3.5L-3.4 0Z",  # diamond
    "M0 3.5L3.2-2.3H-3.2Z",  # triangle, point down
    "M-1.1-3.4h2.2v2.3h2.3v2.2h-2.3v2.3h-2.2v-2.3h-2.3v-2.2h2.3Z",  # cross
)


@dataclass(frozen=True, slots=True)
class Symbol:
    """How a class is drawn."""

    number: int  # 1 is the first class
    colour: int  # in [0, COLOURS)
    shape: str  # SVG path around (0, 0)


def symbol(label: int) -> Symbol:
    """Return how a class is drawn; classes 60 apart look the same but for their number."""
    shape = SHAPES[label // COLOURS % len(SHAPES)]
    return Symbol(label + 1, label % COLOURS, shape)


def embedding_plot(
    xy_M2: NDArray[np.floating],
    labels_M: NDArray[np.int64],
    predicted_M: NDArray[np.int64],
    label_names: Sequence[str],
) -> Markup:
    """Return the points (at least one) as a drawing of some 60 bytes each.

    Args:
        xy_M2: where the points lie, in any unit; both axes are drawn to the same scale.
        labels_M: the class each point has.
        predicted_M: the class each point was given; where it differs, the mark is outlined.
        label_names: one per class.
    """
    places_M2 = _fit(xy_M2)
    classes = [int(label) for label in np.unique(labels_M)]
    right_M = labels_M == predicted_M
    groups = [
        _group(label, label_names[label], places_M2[right_M & (labels_M == label)])
        for label in classes
    ]
    wrong = [
        _mark(label, place, f"{label_names[label]}, taken for {label_names[given]}")
        for label, given, place in zip(
            labels_M[~right_M].tolist(),
            predicted_M[~right_M].tolist(),
            places_M2[~right_M].tolist(),
            strict=True,
        )
    ]
    title = f"Map of {plural(len(xy_M2), 'test image')} by their vectors"
    shapes = {label // COLOURS % len(SHAPES) for label in classes}
    return Markup(
        '<svg class="chart map" viewBox="0 0 {} {}" role="img" aria-label="{}">'
        '<title>{}</title><defs>{}</defs>{}<g class="wrong">{}</g>{}</svg>'
    ).format(
        WIDTH,
        HEIGHT,
        title,
        title,
        Markup("").join(
            Markup('<path id="shape-{}" d="{}"/>').format(shape, SHAPES[shape])
            for shape in sorted(shapes)
        ),
        Markup("").join(groups),
        Markup("").join(wrong),
        _numbers(places_M2, labels_M, label_names),
    )


def _fit(xy_M2: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return the points inside the drawing's margins, centred, one scale for both axes."""
    low_2, high_2 = xy_M2.min(axis=0), xy_M2.max(axis=0)
    room = zip((WIDTH - 2 * MARGIN, HEIGHT - 2 * MARGIN), (high_2 - low_2).tolist(), strict=True)
    scale = min((inner / span for inner, span in room if span > 0), default=1.0)
    centred: NDArray[np.float64] = (xy_M2 - (low_2 + high_2) / 2) * scale * (1, -1)
    centred += np.array([WIDTH / 2, HEIGHT / 2])
    return centred


def _group(label: int, name: str, places_M2: NDArray[np.float64]) -> Markup:
    marks = Markup("").join(_mark(label, place) for place in places_M2.tolist())
    return Markup('<g class="class-{}"><title>{}</title>{}</g>').format(
        label % COLOURS, f"{label + 1} {name}", marks
    )


def _mark(label: int, place: list[float], hint: str | None = None) -> Markup:
    use = Markup('<use href="#shape-{}" x="{:.1f}" y="{:.1f}"').format(
        label // COLOURS % len(SHAPES), *place
    )
    if hint is None:
        return use + Markup("/>")
    return use + Markup(' class="class-{}"><title>{}</title></use>').format(label % COLOURS, hint)


def _numbers(
    places_M2: NDArray[np.float64], labels_M: NDArray[np.int64], label_names: Sequence[str]
) -> Markup:
    """Return each class's number where its points are densest, none covering another."""
    classes = np.unique(labels_M)
    if len(classes) > MOST_NUMBERS:
        return Markup("")
    middles_L2 = np.array([_densest(places_M2[labels_M == label]) for label in classes])
    badge = Markup(
        '<g class="number class-{}"><title>{}</title>'
        '<circle cx="{:.1f}" cy="{:.1f}" r="9.5"/>'
        '<text x="{:.1f}" y="{:.1f}" text-anchor="middle">{}</text></g>'
    )
    return Markup("").join(
        badge.format(label % COLOURS, label_names[label], x, y, x, y + 3.8, label + 1)
        for label, (x, y) in zip(classes.tolist(), declutter(middles_L2).tolist(), strict=True)
    )


def _densest(places_M2: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the point that has the nearest quarter of all points nearest."""
    apart_MM2 = places_M2[:, None] - places_M2
    distances_MM = np.hypot(apart_MM2[..., 0], apart_MM2[..., 1])
    reach_M = np.quantile(distances_MM, 0.25, axis=1)
    densest: NDArray[np.float64] = places_M2[reach_M.argmin()]
    return densest


def declutter(places_L2: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the places, those that lie too near to each other pushed apart as far as needed."""
    # A hair's breadth each way, so that equal places have a direction to part in.
    turn_L = np.arange(len(places_L2)) * 2.4
    nudge_L2 = 0.01 * np.stack([np.cos(turn_L), np.sin(turn_L)], axis=1)
    for _ in range(PUSHES):
        apart_LL2 = (places_L2 + nudge_L2)[:, None] - (places_L2 + nudge_L2)
        distance_LL = np.hypot(apart_LL2[..., 0], apart_LL2[..., 1])
        np.fill_diagonal(distance_LL, np.inf)
        near_LL = distance_LL < APART
        if not near_LL.any():
            break
        push_LL = np.where(near_LL, APART * 1.02 - distance_LL, 0) / distance_LL
        pushed_L2 = (apart_LL2 * push_LL[..., None]).sum(axis=1)
        places_L2 = places_L2 + pushed_L2 / (1 + near_LL.sum(axis=1, keepdims=True))
        places_L2 = places_L2.clip(MARGIN, (WIDTH - MARGIN, HEIGHT - MARGIN))
    return places_L2
