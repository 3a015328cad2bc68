"""Trains with several seeds, evaluates each model, and prints one table with mean and spread.

    python -m benchmarks.training --seeds 0 1 2 --jobs 2 -- --recipe cnn --data fashion-mnist

What follows `--` goes to `lookalike train`. With two jobs, two trainings run side by side with half
of the threads each: quality is that of as many threads, the seconds are not a quiet machine's.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks.machine import commit, describe_machine

FIGURES = ("accuracy", "r_at_1", "precision_at_10", "map", "map_at_r")
HELD_OUT = ("r_at_1", "precision_at_10", "map", "map_at_r")


def main() -> None:
    """Measure, and print one table as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--out", type=Path, help="keep the models here")
    parser.add_argument("options", nargs="+", help="of `lookalike train`, after --")
    arguments = parser.parse_args()
    folder = arguments.out or Path(tempfile.mkdtemp(prefix="lookalike-"))
    threads = max(1, len(os.sched_getaffinity(0)) // arguments.jobs)

    def measured(seed: int) -> dict[str, Any]:
        return run(arguments.options, folder / f"seed-{seed}", seed=seed, threads=threads)

    with ThreadPoolExecutor(arguments.jobs) as pool:
        results = list(pool.map(measured, arguments.seeds))
    options = " ".join(arguments.options)
    print(
        f"{describe_machine()}; commit {commit()}; {threads} threads, {arguments.jobs} at a time\n"
    )
    print(f"`lookalike train {options} --seed S`\n")
    columns = ["seed", *FIGURES, "calibration error before", "after", "seconds"]
    print("| " + " | ".join(columns) + " |")
    print("|" + "---|" * len(columns))
    for seed, result in zip(arguments.seeds, results, strict=True):
        print(f"| {seed} | " + " | ".join(row(result)) + " |")
    print("| mean ± deviation | " + " | ".join(summary(results)) + " |")
    for gallery in ("among_held_out", "among_all"):
        print_held_out(gallery, arguments.seeds, results)


def run(options: list[str], out: Path, *, seed: int, threads: int) -> dict[str, Any]:
    """Train and evaluate one model; return the evaluation with the training's seconds."""
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    data = options[options.index("--data") + 1] if "--data" in options else "fashion-mnist"
    trained = lookalike("train", "--out", out, "--seed", seed, "--json", *options, env=environment)
    evaluated = lookalike("evaluate", out, "--data", data, "--json", env=environment)
    evaluated["seconds"] = trained["metrics"]["train_seconds"]
    return evaluated


def lookalike(*arguments: object, env: dict[str, str]) -> dict[str, Any]:
    """Run a command of ours and return the JSON it prints."""
    done = subprocess.run(
        [sys.executable, "-m", "cli.main", *map(str, arguments)],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        env=env,
    )
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def row(result: dict[str, Any]) -> list[str]:
    """Return the cells of one model."""
    errors = (result["calibration_error_uncalibrated"], result["calibration_error"])
    cells = [f"{result[name]:.4f}" for name in FIGURES]
    return [*cells, *(f"{error:.4f}" for error in errors), f"{result['seconds']:.0f}"]


def summary(results: list[dict[str, Any]]) -> list[str]:
    """Return the cells of all models together."""
    names = (*FIGURES, "calibration_error_uncalibrated", "calibration_error")
    cells = [spread([result[name] for result in results], 4) for name in names]
    return [*cells, spread([result["seconds"] for result in results], 0)]


def spread(values: list[float], digits: int) -> str:
    """Return mean and standard deviation."""
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{statistics.fmean(values):.{digits}f} ± {deviation:.{digits}f}"


def print_held_out(gallery: str, seeds: list[int], results: list[dict[str, Any]]) -> None:
    """Print how well classes are found that were held out of training, if any were."""
    if results[0]["held_out"] is None:
        return
    found = [result["held_out"][gallery] for result in results]
    print(f"\nHeld-out classes, {gallery}, {found[0]['gallery_images']} images in the gallery\n")
    print("| seed | " + " | ".join(HELD_OUT) + " |")
    print("|" + "---|" * (len(HELD_OUT) + 1))
    for seed, figures in zip(seeds, found, strict=True):
        print(f"| {seed} | " + " | ".join(f"{figures[name]:.4f}" for name in HELD_OUT) + " |")
    cells = [spread([figures[name] for figures in found], 4) for name in HELD_OUT]
    print("| mean ± deviation | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
