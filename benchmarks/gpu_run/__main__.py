"""Everything that wants a GPU: encoder, server, start, full memory, training; the table comes last.

    python -m benchmarks.gpu_run --out FOLDER [--fashion-mnist FOLDER] [--seconds 600]
    python -m benchmarks.gpu_run --out FOLDER --only encoder http
    python -m benchmarks.gpu_run --dry-run --out FOLDER     # all of it, tiny, on a CPU: a minute

Every section runs in a process of its own within a budget, and is ended when that is used up;
results are appended to FOLDER/results.jsonl as they come. All sections together take no longer than
--seconds; `best` (three trainings of `cnn-best`) has what is left of it, or --best-seconds.

For a machine without a network, take along (from a checkout, with the same Python, here 3.12):

1. the checkout itself;
2. wheels of `requirements.lock` but for torch, torchvision, triton and nvidia-*, which are there
   (torch 2.11 and torchvision 0.26 or newer), and what training and tests want beside it:

       grep -vE '^(torch|torchvision|triton|nvidia|cuda)' requirements-dev.lock \
           | grep -oE '^[a-z0-9_.-]+==[^ ;]+' > build/gpu-wheels.txt
       pip download --no-deps --only-binary :all: --python-version 3.12 \
           --platform manylinux_2_28_x86_64 --dest build/gpu-wheels -r build/gpu-wheels.txt

   and there: python -m venv --system-site-packages build/gpu
              build/gpu/bin/pip install --no-index --no-deps build/gpu-wheels/*.whl
              build/gpu/bin/pip install --no-index --no-deps --no-build-isolation --editable .
3. wrk and its library, which must be on PATH and LD_LIBRARY_PATH:
   /usr/bin/wrk, /usr/lib/x86_64-linux-gnu/libluajit-5.1.so.2 (packages wrk, libluajit-5.1-2);
4. Fashion-MNIST's four files, /usr/share/datasets/fashion-mnist of the package
   dataset-fashion-mnist, for --fashion-mnist.
"""

import argparse
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import torch

from benchmarks.gpu_run.encoder import measure_encoders, measure_layouts, measure_memory
from benchmarks.gpu_run.results import Results
from benchmarks.gpu_run.serving import measure_http, measure_start
from benchmarks.gpu_run.training import measure_best, measure_training, use_fashion_mnist
from benchmarks.machine import commit, describe_machine
from benchmarks.serving.rivals.environments import ROOT

# Budgets in seconds, in this order.
BUDGETS = {
    "encoder": 90,
    "start": 100,
    "http": 190,
    "training": 60,
    "layouts": 20,
    "memory": 20,
    "tests": 90,
    "best": 0,  # what is left, or --best-seconds
}
LEAST_S = 5.0  # a section with less is not begun


def main() -> None:
    """Run the sections one after another, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path(os.environ.get("OUT", "build/gpu-run")))
    parser.add_argument("--only", nargs="+", choices=BUDGETS, default=list(BUDGETS))
    parser.add_argument("--seconds", type=float, default=570.0, help="for everything")
    parser.add_argument("--best-seconds", type=float, help="for `best`, beside --seconds")
    parser.add_argument("--fashion-mnist", type=Path, help="folder of the four files")
    parser.add_argument("--dry-run", action="store_true", help="tiny, on a CPU")
    parser.add_argument("--section", choices=BUDGETS, help=argparse.SUPPRESS)
    given = parser.parse_args()
    given.out = given.out.resolve()
    given.out.mkdir(parents=True, exist_ok=True)
    if given.section is not None:
        run_section(given)
        return
    if not (given.dry_run or torch.cuda.is_available()):
        raise SystemExit("this needs a CUDA device; --dry-run does without")
    results = Results(given.out)
    print(describe(dry=given.dry_run), flush=True)
    ends = time.monotonic() + given.seconds
    for section, most_s in BUDGETS.items():
        if section in given.only and not (given.dry_run and section == "tests"):
            left_s = ends - time.monotonic()
            budget_s = min(most_s or left_s, left_s)
            if section == "best" and given.best_seconds:
                budget_s = given.best_seconds
            reason = run_within(section, budget_s) if budget_s >= LEAST_S else "no time was left"
            if reason:
                results.add(section, "ended early", None, note=reason)
    print(f"\n{describe(dry=given.dry_run)}\n\n{results.table()}", flush=True)


def describe(*, dry: bool) -> str:
    """Return what was measured, and on what."""
    card = "no GPU: a dry run, whose figures mean nothing"
    if not dry:
        card = f"{torch.cuda.get_device_name()}, CUDA {torch.version.cuda}"
    try:
        measured = commit()
    except (OSError, subprocess.CalledProcessError):
        measured = "unknown"  # a checkout without its history
    return f"{card}; {describe_machine()}; commit {measured}"


def run_within(section: str, seconds: float) -> str | None:
    """Run a section in a process group of its own; return why it did not end well, if so."""
    command = [sys.executable, "-m", "benchmarks.gpu_run", *sys.argv[1:], "--section", section]
    process = subprocess.Popen(command, cwd=ROOT, start_new_session=True)
    try:
        code = process.wait(timeout=seconds)
    except subprocess.TimeoutExpired:
        # Servers that it started are ended by it, if it is given the time.
        for number, grace_s in ((signal.SIGTERM, 10.0), (signal.SIGKILL, 10.0)):
            with suppress(ProcessLookupError):
                os.killpg(process.pid, number)
            with suppress(subprocess.TimeoutExpired):
                process.wait(timeout=grace_s)
                break
        return f"its {seconds:.0f} s were used up"
    return None if code == 0 else f"it ended with status {code}"


def run_section(given: argparse.Namespace) -> None:
    """Do the work of one section in this process."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    results, folder = Results(given.out), given.out / "work"
    folder.mkdir(exist_ok=True)
    use_fashion_mnist(given.fashion_mnist, folder)
    os.environ.setdefault("XDG_CACHE_HOME", str(folder / "cache"))
    sections: dict[str, Callable[..., None]] = {
        "encoder": measure_encoders,
        "layouts": measure_layouts,
        "start": measure_start,
        "http": measure_http,
        "memory": measure_memory,
        "training": measure_training,
        "tests": run_tests,
        "best": measure_best,
    }
    sections[given.section](results, folder, dry=given.dry_run)


def run_tests(results: Results, folder: Path, *, dry: bool) -> None:
    """Run the tests marked `gpu`."""
    del dry
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider", "tests"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    (folder / "tests.log").write_text(done.stdout + done.stderr)
    last = (done.stdout.strip().splitlines() or ["no output"])[-1]
    results.add("tests", "marked gpu", float(done.returncode), "exit status", note=last)


if __name__ == "__main__":
    main()
