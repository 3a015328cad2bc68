"""Requests per second and latency of POST /v1/classify beside a bare uvicorn app.

    python -m benchmarks.serving --model demo/model --gallery demo/gallery

Both serve the same model in one process each, started anew; wrk sends the same image over 1 and
over 32 connections, in turns (ours, theirs, ours, ...), after a warm-up that is not counted. Before
anything is timed the two must give the same answer. About four minutes with the defaults.
"""

import argparse
import io
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
from PIL import Image

from benchmarks.machine import commit, describe_machine, spread

OUR_PORT, THEIR_PORT = 3901, 3902
CONNECTIONS = (1, 32)
TOLERANCE = 1e-4  # of a probability; batches of other sizes round differently
TO_MS = {"us": 0.001, "ms": 1.0, "s": 1000.0}


@dataclass(frozen=True)
class Run:
    """What wrk says of one run."""

    rate: float  # requests per second
    p50_ms: float
    p99_ms: float
    errors: int


def main() -> None:
    """Measure, and print one table as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--gallery", type=Path, required=True)
    parser.add_argument("--seconds", type=int, default=8, help="of each run of wrk")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    print(f"{describe_machine()}; commit {commit()}; {arguments.rounds} rounds, median (range)\n")
    with (
        our_server(arguments.model, arguments.gallery) as ours,
        bare_server(arguments.model) as theirs,
    ):
        print(f"start to ready: {ours.start_s:.1f} s; resident: {ours.memory()}\n")
        print("| image | connections | | requests/s | p50 ms | p99 ms | errors |")
        print("|---|---|---|---|---|---|---|")
        for name, body in images().items():
            check_same_answers(ours.url, theirs.url, body)
            for connections in CONNECTIONS:
                compare(
                    name,
                    body,
                    connections=connections,
                    ours=ours.url,
                    theirs=theirs.url,
                    arguments=arguments,
                )
        print(f"\nresident after the load: {ours.memory()}")


def compare(
    name: str,
    body: bytes,
    *,
    connections: int,
    ours: str,
    theirs: str,
    arguments: argparse.Namespace,
) -> None:
    """Measure both in turns and print two rows and their ratio."""
    runs: dict[str, list[Run]] = {ours: [], theirs: []}
    for url in (ours, theirs):
        wrk(url, body, connections, seconds=2)
    for _ in range(arguments.rounds):
        for url, done in runs.items():
            done.append(wrk(url, body, connections, seconds=arguments.seconds))
    for title, url in (("Lookalike", ours), ("bare uvicorn", theirs)):
        rows = runs[url]
        print(
            f"| {name} | {connections} | {title} | {spread([run.rate for run in rows])} | "
            f"{spread([run.p50_ms for run in rows], 2)} | "
            f"{spread([run.p99_ms for run in rows], 1)} | {sum(run.errors for run in rows)} |"
        )
    pairs = zip(runs[ours], runs[theirs], strict=True)
    ratios = [our.rate / their.rate for our, their in pairs]
    added = statistics.median(run.p50_ms for run in runs[ours]) - statistics.median(
        run.p50_ms for run in runs[theirs]
    )
    print(
        f"| {name} | {connections} | **ratio** | **{spread(ratios, 2)}** | **{added:+.2f}** | | |",
        flush=True,
    )


def images() -> dict[str, bytes]:
    """Return the uploads: a 28 x 28 PNG as Fashion-MNIST's, and a JPEG of about 12 kB."""
    rng = np.random.default_rng(0)
    small = Image.fromarray(rng.integers(0, 256, (7, 7), np.uint8)).resize((28, 28))
    coarse = Image.fromarray(rng.integers(0, 256, (24, 18, 3), np.uint8))
    photo = coarse.resize((300, 400), Image.Resampling.BICUBIC)
    return {
        "28 x 28 PNG": encoded(small, "PNG"),
        "300 x 400 JPEG": encoded(photo, "JPEG", quality=80),
    }


def encoded(image: Image.Image, image_format: str, **settings: int) -> bytes:
    """Return the bytes of a file."""
    buffer = io.BytesIO()
    image.save(buffer, image_format, **settings)
    return buffer.getvalue()


def check_same_answers(ours: str, theirs: str, body: bytes) -> None:
    """Stop unless both give the same labels and, within rounding, probabilities."""
    headers = {"Content-Type": "image/png"}
    answers = [
        httpx.post(f"{url}/v1/classify", content=body, headers=headers).json()["predictions"]
        for url in (ours, theirs)
    ]
    for our, their in zip(*answers, strict=True):
        if (
            our["label"] != their["label"]
            or abs(our["probability"] - their["probability"]) > TOLERANCE
        ):
            raise SystemExit(f"the answers differ: {our} and {their}")


def wrk(url: str, body: bytes, connections: int, *, seconds: int) -> Run:
    """Run wrk on one thread and return what it measured."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "body").write_bytes(body)
        script = Path(folder) / "post.lua"
        script.write_text(
            f'local file = io.open("{folder}/body", "rb")\n'
            'wrk.method, wrk.body = "POST", file:read("*a")\n'
            'wrk.headers["Content-Type"] = "image/png"\n'
        )
        load = ("-t1", f"-c{connections}", f"-d{seconds}", "--latency", "-s", str(script))
        text = subprocess.run(
            ["wrk", *load, f"{url}/v1/classify"], capture_output=True, text=True, check=True
        ).stdout
    errors = sum(map(int, re.findall(r"Non-2xx or 3xx responses: (\d+)", text)))
    for kind in re.findall(r"Socket errors: (.*)", text):
        errors += sum(map(int, re.findall(r"\d+", kind)))
    return Run(
        rate=float(re.findall(r"Requests/sec:\s+([\d.]+)", text)[0]),
        p50_ms=_milliseconds(text, "50%"),
        p99_ms=_milliseconds(text, "99%"),
        errors=errors,
    )


def _milliseconds(text: str, percentile: str) -> float:
    value, unit = re.findall(rf"{percentile}\s+([\d.]+)(us|ms|s)", text)[0]
    return float(value) * TO_MS[unit]


@dataclass(frozen=True)
class Process:
    """A started server."""

    url: str
    pid: int
    start_s: float

    def memory(self) -> str:
        """Return the resident memory of each of its processes, MB."""
        pids = [self.pid, *children(self.pid)]
        sizes = [resident_mb(pid) for pid in pids]
        return " + ".join(f"{size:.0f}" for size in sizes) + f" = {sum(sizes):.0f} MB"


def children(pid: int) -> list[int]:
    """Return the processes that ``pid`` started."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def resident_mb(pid: int) -> float:
    """Return the resident memory of one process, MB (2**20 bytes)."""
    text = Path(f"/proc/{pid}/status").read_text()
    return int(re.findall(r"VmRSS:\s+(\d+)", text)[0]) / 1024


@contextmanager
def our_server(model: Path, gallery: Path) -> Iterator[Process]:
    """Run `lookalike serve`."""
    command = [sys.executable, "-m", "cli.main", "serve", "--model", str(model)]
    command += ["--gallery", str(gallery), "--port", str(OUR_PORT)]
    with _running(command, f"http://127.0.0.1:{OUR_PORT}", {}) as process:
        yield process


@contextmanager
def bare_server(model: Path) -> Iterator[Process]:
    """Run benchmarks/bare_app.py on uvicorn, with the same loop and parser as ours."""
    command = [sys.executable, "-m", "uvicorn", "--factory", "benchmarks.bare_app:create_app"]
    command += ["--port", str(THEIR_PORT), "--no-access-log", "--loop", "uvloop"]
    command += ["--http", "httptools", "--log-level", "warning"]
    url = f"http://127.0.0.1:{THEIR_PORT}"
    with _running(command, url, {"MODEL": str(model)}) as process:
        yield process


@contextmanager
def _running(command: list[str], url: str, environment: dict[str, str]) -> Iterator[Process]:
    started = time.perf_counter()
    process = subprocess.Popen(
        command,
        env={**os.environ, **environment},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        while not _is_ready(url):
            if process.poll() is not None:
                raise SystemExit(f"the server ended: {json.dumps(command)}")
            time.sleep(0.02)
        yield Process(url, process.pid, time.perf_counter() - started)
    finally:
        process.terminate()
        process.wait(timeout=60)


def _is_ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/readyz", timeout=5).status_code == httpx.codes.OK
    except httpx.TransportError:
        return False


if __name__ == "__main__":
    main()
