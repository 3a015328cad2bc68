"""`auto` beside every other recipe that needs no download, on small sets of other pictures.

    python -m benchmarks.picture_sets --seeds 0 1 2 --sets digits textures

Every set is drawn anew for each seed; its part ``test`` is looked at once a model, at the end. Fine-tuning takes
minutes a model, so it must be asked for (`--recipes`).
"""

import argparse
import os
import tempfile
from pathlib import Path
from typing import Any, Final

from benchmarks.machine import commit, describe_machine
from benchmarks.made_pictures import SETS, write_set
from benchmarks.training import run, spread

LITE0: Final = "timm:tf_efficientnet_lite0"
LITE2: Final = "timm:tf_efficientnet_lite2"
AUTO: Final = "auto"
RECIPES: Final[dict[str, list[str]]] = {
    AUTO: ["--recipe", "auto"],
    "cnn": ["--recipe", "cnn"],
    "deck-cnn": ["--recipe", "deck-cnn"],
    "lite0, frozen": ["--recipe", "backbone-frozen", "--backbone", LITE0],
    "lite2, frozen": ["--recipe", "backbone-frozen", "--backbone", LITE2],
    "lite0, fine-tuned": ["--recipe", "backbone-finetune", "--backbone", LITE0],
}
FIGURES: Final = ("accuracy", "r_at_1")


def main() -> None:
    """Measure, and print one table as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--recipes", nargs="+", choices=RECIPES, default=list(RECIPES)[:-1])
    parser.add_argument("--budget", default="2m", help="of auto")
    arguments = parser.parse_args()
    threads = len(os.sched_getaffinity(0))
    print(f"{describe_machine()}; commit {commit()}; --budget {arguments.budget}\n")
    print("| set | recipe | accuracy | r@1 | seconds | auto less this one |")
    print("|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as temporary:
        for name in arguments.sets:
            results: dict[str, list[dict[str, Any]]] = {recipe: [] for recipe in arguments.recipes}
            for seed in arguments.seeds:
                folder = Path(temporary) / str(seed)
                data = write_set(name, folder, seed=seed)
                for recipe in arguments.recipes:
                    options = [*RECIPES[recipe], "--data", str(data)]
                    if recipe == AUTO:
                        options += ["--budget", arguments.budget]
                    out = folder / f"{name} {recipe}"
                    results[recipe].append(run(options, out, seed=seed, threads=threads))
            for recipe, rows in results.items():
                print(f"| {name} | {recipe} | {' | '.join(cells(rows, results.get(AUTO)))} |")


def cells(rows: list[dict[str, Any]], auto: list[dict[str, Any]] | None) -> list[str]:
    """Return the figures of one recipe on one set, over all seeds."""
    figures = [spread([row[figure] for row in rows], 3) for figure in FIGURES]
    seconds = spread([row["seconds"] for row in rows], 0)
    if auto is None or auto is rows:
        return [*figures, seconds, ""]
    less = [
        f"{sum(a[figure] - b[figure] for a, b in zip(auto, rows, strict=True)) / len(rows):+.3f}"
        for figure in FIGURES
    ]
    return [*figures, seconds, " / ".join(less)]


if __name__ == "__main__":
    main()
