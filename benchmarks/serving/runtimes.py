"""One model over HTTP by torch and by its export, in one run: requests, latency, what is lost.

    python -m benchmarks.serving.runtimes --model models/photos
    python -m benchmarks.serving.runtimes --model models/photos --photos photos/validation

Needs wrk, and a model that was exported. In each round every server is started, put under load with
a JPEG of 12 kB and stopped, one after the other and in the opposite order in every other round.
torch also runs with a worker for each core, in case its default is not what suits it best; ratios
are to the better of the two, round by round. ``--photos`` is a folder with a folder for each class:
all of them are sent to each server once, and counted where the answer is their class.
"""

import argparse
import os
import signal
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from benchmarks.machine import commit, describe_machine, installed, spread
from benchmarks.serving.load import Load, Upload, put_under_load
from benchmarks.serving.pictures import photo
from benchmarks.serving.servers import Server, free_port, running

WARM_UP_S = 3.0
ROOT = Path(__file__).parents[2]
PATH = "/v1/classify"


@dataclass(frozen=True)
class Way:
    """One way to serve the model."""

    title: str
    options: tuple[str, ...]


CORES = str(len(os.sched_getaffinity(0)))
TORCH = Way("torch", ("--runtime", "torch"))
WIDE_TORCH = Way(f"torch, {CORES} workers", ("--runtime", "torch", "--workers", CORES))
EXPORT = Way("export", ("--runtime", "openvino"))
WAYS = (TORCH, WIDE_TORCH, EXPORT)


def main() -> None:
    """Measure, and print tables as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--photos", type=Path, help="a folder with a folder for each class")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=10.0, help="of each run of wrk")
    parser.add_argument("--connections", type=int, default=32)
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))  # and stop the server, too
    versions = ", ".join(installed(("openvino", "nncf")))
    print(f"{describe_machine()}, {versions}; commit {commit()}; {arguments.model.name}")
    print(
        f"{arguments.rounds} rounds of {arguments.seconds:g} s, {arguments.connections} "
        "connections, a JPEG of 12 kB, median (range)\n",
        flush=True,
    )
    loads: dict[Way, list[Load]] = defaultdict(list)
    said: dict[Way, dict[str, Any]] = {}
    right: dict[Way, str] = {}
    for number in range(arguments.rounds):
        for way in WAYS if number % 2 == 0 else reversed(WAYS):
            print(f"round {number + 1}: {way.title}", file=sys.stderr)
            with served(way, arguments.model.resolve()) as server:
                if way not in said:
                    said[way] = httpx.get(f"{server.url}/v1/model").json()["runtime"]
                    right[way] = counted(server, arguments.photos)
                loads[way].append(loaded(server, arguments))
    print_table(loads, said, right)


def loaded(server: Server, arguments: argparse.Namespace) -> Load:
    """Return what wrk says of a server, after a warm-up."""
    upload = Upload.raw(photo(0))
    put_under_load(server, PATH, upload, connections=arguments.connections, seconds=WARM_UP_S)
    return put_under_load(
        server, PATH, upload, connections=arguments.connections, seconds=arguments.seconds
    )


def counted(server: Server, photos: Path | None) -> str:
    """Return how many photos are answered with the name of their folder."""
    if photos is None:
        return ""
    files = sorted(path for path in photos.glob("*/*") if path.is_file())
    right = 0
    with httpx.Client(timeout=60) as client:
        for file in files:
            reply = client.post(server.url + PATH, content=file.read_bytes())
            right += reply.raise_for_status().json()["label"] == file.parent.name
    return f"{right:,} of {len(files):,} ({right / len(files):.2%})"


@contextmanager
def served(way: Way, model: Path) -> Iterator[Server]:
    """Serve the model in one way until the end of the block."""
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        command = [
            *(sys.executable, "-m", "cli.main", "serve", "--port", str(port)),
            *("--model", str(model), "--gallery", f"{folder}/gallery", "--create"),
            *("--max-wait-s", "60"),  # every request is answered, however slow a runtime is
            *("--log-level", "warning", *way.options),
        ]
        with running(
            command,
            environment={"PYTHONPATH": str(ROOT)},
            port=port,
            answers=is_ready,
            log=Path(folder) / "log.txt",
        ) as server:
            yield server


def is_ready(url: str) -> bool:
    """Say whether the server at ``url`` answers."""
    with suppress(httpx.HTTPError):
        return httpx.get(f"{url}/readyz", timeout=5).status_code == httpx.codes.OK
    return False


def print_table(
    loads: dict[Way, list[Load]], said: dict[Way, dict[str, Any]], right: dict[Way, str]
) -> None:
    """Print a row for each way, and what the export differs in."""
    torchs = [
        max(one.rate, other.rate)
        for one, other in zip(loads[TORCH], loads[WIDE_TORCH], strict=True)
    ]
    print("| | precision | requests/s | times torch | p50 ms | p99 ms | CPU ms | errors | right |")
    print("|---|---|---|---|---|---|---|---|---|")
    for way in WAYS:
        runs = loads[way]
        times = [run.rate / base for run, base in zip(runs, torchs, strict=True)]
        print(
            f"| {way.title} | {said[way]['precision']} | {spread([run.rate for run in runs], 1)} "
            f"| {spread(times, 2)} | {spread([run.p50_ms for run in runs])} "
            f"| {spread([run.p99_ms for run in runs])} "
            f"| {spread([run.cpu_ms for run in runs], 1)} "
            f"| {sum(run.errors for run in runs)} | {right[way]} |"
        )
    print(f"\nthe export, as it was measured when it was written: {said[EXPORT]}")


if __name__ == "__main__":
    main()
