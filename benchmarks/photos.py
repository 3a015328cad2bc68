"""Trains on photos with a budget alone, measures on photos kept aside, and prints a table.

    python -m benchmarks.photos --data clothing/train --kept-aside clothing/validation \\
        --budget 6m --per-class 10,30,100 --seeds 3
    python -m benchmarks.photos --data signs --kept-last 0.3 --budget 6m

Both folders hold class folders. Every case is a folder of links with the parts `train` and `test`;
`lookalike train` is given that folder and the budget, `lookalike evaluate` measures the test part.
Of the photos without classes, one flat folder is learnt from; classes only measure. All cases learn
from all photos, except for the draws of so many a class, of which mean and spread are printed.
"""

import argparse
import json
import random
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.machine import commit, describe_machine

Classes = Mapping[str, Sequence[Path]]  # photos by the name of their class

COLUMNS = (
    "learnt from",
    "photos",
    "kept aside",
    "accuracy",
    "R@1, same class",
    "R@1, same item",
    "minutes",
    "chosen",
)


class Measured(NamedTuple):
    """What became of one training."""

    photos: int  # learnt from
    kept_aside: int  # measured
    accuracy: float | None  # None: no classes were learnt
    same_class: float
    same_item: float
    minutes: float  # of `train`, with all that it does
    chosen: str


def main() -> None:
    """Measure case after case, and print one row of Markdown for each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="class folders to learn from")
    aside = parser.add_mutually_exclusive_group(required=True)
    aside.add_argument("--kept-aside", type=Path, help="class folders to measure with")
    aside.add_argument("--kept-last", type=float, help="or so much of each class, its last photos")
    parser.add_argument("--budget", default="6m")
    parser.add_argument("--per-class", type=numbers, default=[], help="such as 10,30,100")
    parser.add_argument("--seeds", type=int, default=3, help="draws of so many a class")
    parser.add_argument("--cases", default="classes,draws,none", help="of these three")
    parser.add_argument("--scratch", type=Path, help="keep links and models in this new folder")
    parser.add_argument("options", nargs="*", help="of `lookalike train`, after --")
    arguments = parser.parse_args()
    learnt = read_classes(arguments.data)
    if arguments.kept_aside:
        aside_photos = read_classes(arguments.kept_aside)
    else:
        learnt, aside_photos = split_last(learnt, arguments.kept_last)
    if arguments.scratch:
        arguments.scratch.mkdir(parents=True)
    scratch = arguments.scratch or Path(tempfile.mkdtemp(prefix="lookalike-"))
    options = ["--budget", arguments.budget, *arguments.options]
    print(f"{describe_machine()}; commit {commit()}\n")
    name = "/".join(arguments.data.resolve().parts[-2:])
    print(f"{name}: `lookalike train --data PHOTOS {' '.join(options)}`\n")
    print("| " + " | ".join(COLUMNS) + " |\n|" + "---|" * len(COLUMNS), flush=True)
    cases = arguments.cases.split(",")
    if "classes" in cases:
        print_row("all, with classes", [run(learnt, aside_photos, scratch / "all", options)])
    for count in arguments.per_class if "draws" in cases else []:
        draws = [
            run(draw(learnt, count, seed), aside_photos, scratch / f"{count}-{seed}", options)
            for seed in range(arguments.seeds)
        ]
        print_row(f"{count} a class, {arguments.seeds} draws", draws)
    if "none" in cases:
        folder = scratch / "none"
        print_row("all, no classes", [run(learnt, aside_photos, folder, options, flat=True)])


def numbers(text: str) -> list[int]:
    """Return numbers that stand with commas between them."""
    return [int(part) for part in text.split(",")]


def read_classes(folder: Path) -> dict[str, list[Path]]:
    """Return the photos of each class folder, in the order of the numbers in their names."""
    return {
        place.name: sorted((path for path in place.iterdir() if path.is_file()), key=by_number)
        for place in sorted(folder.iterdir())
        if place.is_dir()
    }


def by_number(path: Path) -> list[tuple[int, str]]:
    """Return what sorts `IMG_2` before `IMG_10`."""
    return [
        (int(part), "") if part.isdecimal() else (-1, part)
        for part in re.split(r"(\d+)", path.name)
    ]


def split_last(classes: Classes, share: float) -> tuple[dict[str, list[Path]], ...]:
    """Return the first photos of each class, and the last ones that are kept aside."""
    firsts = {name: round(len(photos) * (1 - share)) for name, photos in classes.items()}
    return (
        {name: list(photos[: firsts[name]]) for name, photos in classes.items()},
        {name: list(photos[firsts[name] :]) for name, photos in classes.items()},
    )


def draw(classes: Classes, count: int, seed: int) -> dict[str, list[Path]]:
    """Return so many photos of each class, or all where there are fewer."""
    chance = random.Random(seed)
    return {
        name: sorted(chance.sample(list(photos), min(count, len(photos))))
        for name, photos in sorted(classes.items())
    }


def link(photos: Iterable[Path], folder: Path, prefix: str = "") -> None:
    """Make links to photos in a folder, their names beginning with ``prefix``."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in photos:
        (folder / f"{prefix}{path.name}").symlink_to(path.resolve())


def lay_out(learnt: Classes, aside: Classes, folder: Path, *, flat: bool) -> Path:
    """Make folders of links, ``folder/parts`` to measure with; return the one to learn from."""
    parts = folder / "parts"
    for part, classes in (("train", learnt), ("test", aside)):
        for name, photos in classes.items():
            link(photos, parts / part / name)
    if not flat:
        return parts
    for name, photos in learnt.items():
        link(photos, folder / "flat", f"{name}-")
    return folder / "flat"


def run(
    learnt: Classes, aside: Classes, folder: Path, options: Sequence[str], *, flat: bool = False
) -> Measured:
    """Train one model and measure it."""
    source, model = lay_out(learnt, aside, folder, flat=flat), folder / "model"
    began = time.perf_counter()
    lookalike("train", "--data", source, "--out", model, "--json", *options)
    minutes = (time.perf_counter() - began) / 60
    figures = lookalike("evaluate", model, "--data", folder / "parts", "--json")
    tried = json.loads((model / "training.json").read_bytes()).get("tried", {})
    measured = Measured(
        photos=sum(map(len, learnt.values())),
        kept_aside=figures["images"],
        accuracy=figures["accuracy"],
        same_class=figures["r_at_1"],
        same_item=figures["same_item"]["r_at_1"],
        minutes=minutes,
        chosen=tried.get("winner", "?"),
    )
    print(folder.name, measured, file=sys.stderr, flush=True)  # rows come when all draws are done
    return measured


def lookalike(*arguments: object) -> dict[str, Any]:
    """Run a command of ours and return the JSON it prints; its progress is of no interest."""
    command = [sys.executable, "-m", "cli.main", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"lookalike {arguments[0]} ended with {done.returncode}:\n{done.stderr}")
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def print_row(what: str, measured: Sequence[Measured]) -> None:
    """Print one row, with mean and spread where there are several trainings."""
    chosen = ", ".join(sorted({one.chosen for one in measured}))
    cells = [
        what,
        spread([one.photos for one in measured], 0),
        spread([one.kept_aside for one in measured], 0),
        *(
            spread([getattr(one, name) for one in measured], 3)
            for name in ("accuracy", "same_class", "same_item")
        ),
        spread([one.minutes for one in measured], 1),
        chosen,
    ]
    print("| " + " | ".join(cells) + " |", flush=True)


def spread(values: Sequence[float | None], digits: int) -> str:
    """Return mean and standard deviation, the mean alone if all are equal, or `-`."""
    known = [value for value in values if value is not None]
    if not known:
        return "-"
    mean = f"{statistics.fmean(known):,.{digits}f}"
    return mean if len(set(known)) == 1 else f"{mean} ± {statistics.stdev(known):.{digits}f}"


if __name__ == "__main__":
    main()
