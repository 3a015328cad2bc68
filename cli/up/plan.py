"""What `lookalike up` will do and how long that takes here: a survey and a recipe in, lines out.

The times are measured: a few photos through this machine's decoder and the recipe's network.
"""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from files.resource_limits import usable_cores
from training.formatting import HOUR_S, MINUTE_S
from training.recipes.recipe import Recipe

if TYPE_CHECKING:
    from cli.up.survey import Survey
    from training.recipes.auto_recipe import AutoRecipe

LEARNT: Final = 0.8  # share of the photos that is learnt from
LEARNING_ON: Final = 0.5  # of torch's time to look at a photo, to learn on from it once
MADE_VIEWS: Final = 1200  # that a network looks at beside the photos
OVERHEAD_S: Final = 30.0  # libraries, charts of the report, writing an export
BY_OPENVINO: Final = 0.4  # of torch's time, in float32 on a CPU; in bfloat16 half of that
MODEL_BYTES: Final = 60 * 10**6  # a model with its export and report
ITEM_BYTES: Final = 12_000  # a picture of an item, its vector and its row


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is to come, in seconds and bytes, all estimates."""

    recipe: str
    where: str  # the device, in words
    train_s: float
    rest_s: float  # export, measure, index
    bytes: int

    def in_words(self, folder: Path, *, page: str | None) -> list[str]:
        """Return three lines: training, the rest, and what there is in the end."""
        end = f"the page is at {page}" if page else "all is ready to be served"
        return [
            f"train with {self.recipe} on {self.where}: {about(self.train_s)}",
            f"export, measure, index: {about(self.rest_s)}; {_room(self.bytes)} in {folder} "
            f"({_room(_free(folder))} free)",
            f"in {about(self.train_s + self.rest_s)} {end}",
        ]


def make_plan(recipe: "AutoRecipe | Recipe", survey: "Survey", *, device: str) -> Plan:
    """Return what the recipe will cost on this machine, from a few photos' time in its network.

    Raises:
        ValueError, DeviceError: the recipe cannot be used here.
    """
    from vision.inference.torch_encoder import pick_device  # noqa: PLC0415 - torch takes seconds

    place = str(pick_device(device))
    cores = usable_cores()
    labels = len(survey.classes)
    read_s = survey.photos * survey.decode_s / cores
    quicker = BY_OPENVINO if place == "cpu" else 1.0
    train_s, forward_s = (
        _steps(recipe, survey.photos, labels, place)
        if isinstance(recipe, Recipe)
        else _trials(recipe, survey.photos, labels, place, read_s=read_s, quicker=quicker)
    )
    return Plan(
        recipe=recipe.name,
        where=f"{cores} cores" if place == "cpu" else "the GPU",
        train_s=train_s + read_s,
        rest_s=2 * read_s + 2 * survey.photos * quicker * forward_s + OVERHEAD_S,
        bytes=MODEL_BYTES + survey.photos * ITEM_BYTES,
    )


def _steps(recipe: Recipe, photos: int, labels: int, device: str) -> tuple[float, float]:
    """Return the seconds of a training by gradients, and those of a photo in its network."""
    from training.statistics.latency import forward_s, learning_s  # noqa: PLC0415 - torch takes seconds

    each_s = forward_s(recipe.architecture(labels), recipe.preprocessing, device)
    return learning_s(recipe, round(photos * LEARNT), labels, device), each_s


def _trials(
    recipe: "AutoRecipe", photos: int, labels: int, device: str, *, read_s: float, quicker: float
) -> tuple[float, float]:
    """Return the seconds of trying networks, the first one in any case, and those of a photo."""
    from training.statistics.latency import forward_s, learning_s  # noqa: PLC0415 - torch takes seconds

    looked_at = photos + MADE_VIEWS
    trials: list[float] = []
    each: list[float] = []  # seconds of a photo, with torch
    for extractor in recipe.extractors:
        architecture = recipe.architecture(extractor, num_labels=labels, item_width=8, kind_width=0)
        each.append(forward_s(architecture, extractor.preprocessing, device))
        trials.append(looked_at * each[-1] * quicker + read_s)
    first_s, *more = trials
    learnt = round(photos * LEARNT)
    if labels > 1 and recipe.scratch is not None:
        more.append(2 * learning_s(recipe.scratch.of(learnt), learnt, labels, device))
    if labels > 1 and recipe.tuning is not None and learnt >= recipe.tuning.fewest_images:
        more.append(learnt * recipe.tuning.epochs * LEARNING_ON * each[0])
    return max(first_s, min(first_s + sum(more), recipe.budget_s)), each[0]


def about(seconds: float) -> str:
    """Return a time as an estimate deserves it.

    >>> about(4), about(50), about(130), about(4000), about(40_000)
    ('some seconds', 'about a minute', 'about 2 minutes', 'about 67 minutes', 'about 11 hours')
    """
    if seconds < 20:  # noqa: PLR2004
        return "some seconds"
    minutes = round(seconds / MINUTE_S)
    if minutes <= 1:
        return "about a minute"
    if seconds < 2 * HOUR_S:
        return f"about {minutes} minutes"
    return f"about {round(seconds / HOUR_S)} hours"


def _room(size: int) -> str:
    return f"{size / 1e9:,.0f} GB" if size >= 10**10 else f"{size / 1e6:,.0f} MB"


def _free(folder: Path) -> int:
    """Return the bytes that are free where ``folder`` is, or will be."""
    folder = folder.absolute()
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free
