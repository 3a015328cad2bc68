"""Trainings as users start them: seconds, accuracy, and how long an epoch takes."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.gpu_run.results import Results
from benchmarks.serving.rivals.environments import ROOT

LINES = 20  # of a failed training's output that may hold the reason


def measure_training(results: Results, folder: Path, *, dry: bool) -> None:
    """Train `cnn` for its 12 epochs, and `cnn-fast`."""
    for recipe, reach in (("cnn", "8 s for 12 epochs"), ("cnn-fast", "94 % in 10 s")):
        train(results, folder, recipe, seed=0, reach=reach, dry=dry)


def measure_best(results: Results, folder: Path, *, dry: bool) -> None:
    """Train `cnn-best` with three seeds, as far as the time goes."""
    for seed in range(1 if dry else 3):
        reach = "96.9 % in 10 minutes"
        train(results, folder, "cnn" if dry else "cnn-best", seed=seed, reach=reach, dry=dry)


def train(results: Results, folder: Path, recipe: str, *, seed: int, reach: str, dry: bool) -> None:
    """Train one model in a process of its own, and add what is said of it."""
    section = f"train {recipe}"
    out = folder / f"trained-{recipe}-{seed}-{time.time_ns()}"
    data = str(tiny_pictures(folder / "pictures")) if dry else "fashion-mnist"
    command = [sys.executable, "-m", "cli.main", "train", "--recipe", recipe, "--data", data]
    command += ["--out", str(out), "--seed", str(seed), "--json", *(["--epochs", "1"] * dry)]
    started = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    wall_s = time.perf_counter() - started
    (folder / f"{section.replace(' ', '-')}-{seed}.log").write_text(done.stderr)
    if done.returncode:
        reason = " ".join(done.stderr.split("\n")[-LINES:])
        results.add(section, f"seed {seed}", None, note=reason[:300], reach=reach)
        return
    metrics: dict[str, Any] = json.loads(done.stdout)["metrics"]
    epochs, learnt_s = metrics["epochs"], metrics["train_seconds"]
    note = f"{epochs:.0f} epochs of {learnt_s / epochs:.2f} s; whole command {wall_s:.1f} s"
    results.add(section, f"seed {seed}, epochs", learnt_s, "s", reach=reach, note=note)
    accuracy = metrics.get("test_accuracy")
    results.add(section, f"seed {seed}, accuracy", accuracy, reach=reach)


def use_fashion_mnist(files: Path | None, folder: Path) -> None:
    """Let trainings find Fashion-MNIST's four files in ``files``; without it, as they do."""
    if files is None:
        return
    home = folder / "home"
    cache = home / ".cache" / "lookalike"
    cache.mkdir(parents=True, exist_ok=True)
    link = cache / "fashion-mnist"
    if not link.is_symlink():
        link.symlink_to(files.resolve())
    os.environ["HOME"] = str(home)


def tiny_pictures(folder: Path) -> Path:
    """Return a folder of a few gray pictures of two classes, for a dry run."""
    rng = np.random.default_rng(0)
    for label, base in (("dark", 40), ("light", 200)):
        (folder / label).mkdir(parents=True, exist_ok=True)
        for number in range(60):
            pixels = (base + rng.integers(-30, 30, (28, 28))).astype(np.uint8)
            Image.fromarray(pixels).save(folder / label / f"{number}.png")
    return folder
