"""How much of a GPU the processes before it can use: the whole server, with a stand-in for the GPU.

    python -m benchmarks.serving.front --model demo/model --gallery demo/gallery

The stand-in (``benchmarks/serving/front/stand_in.py``) takes 5.6 ms for 32 images and does nothing
meanwhile, so all that the cores do is HTTP, decoding, and passing pixels on; wrk shares them. It
could do 5,714 images a second. ``busy`` is the share of the time in which it had a batch, by the
server's own metric. What the cores would have to spare is shown by the processor time of an image.
"""

import argparse
import re
import sys
import tempfile
import time
from pathlib import Path

import httpx

from benchmarks.machine import commit, describe_machine, spread
from benchmarks.serving.front.stand_in import IMAGE_S
from benchmarks.serving.load import Upload, put_under_load
from benchmarks.serving.pictures import small
from benchmarks.serving.servers import Server, free_port, running
from files.resource_limits import usable_cores

KINDS = {  # what is sent: the path, images a request, connections
    "alone": ("/v1/classify", 1, 1),
    "1 a request, 32": ("/v1/classify", 1, 32),
    "1 a request, 64": ("/v1/classify", 1, 64),
    "1 a request, 128": ("/v1/classify", 1, 128),
    "8 a request, 32": ("/v1/classify", 8, 32),
    "32 a request, 16": ("/v1/classify", 32, 16),
}
BUSY = re.compile(r"^lookalike_encoder_busy_seconds_total (\S+)$", re.MULTILINE)


def main() -> None:
    """Measure, and print one table as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--gallery", type=Path, required=True)
    parser.add_argument(
        "--workers", type=int, default=usable_cores(), help="processes before the GPU"
    )
    parser.add_argument("--seconds", type=float, default=5.0, help="of each run")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="+", choices=KINDS, default=list(KINDS))
    given = parser.parse_args()
    print(
        f"{describe_machine()}; commit {commit()}; {given.workers} workers; {given.rounds} rounds "
        f"of {given.seconds:g} s in turns, median (range)\n"
    )
    print(
        "| images, connections | images/s | of the most | busy | p50 ms | p99 ms "
        "| server's CPU, µs an image | wrk's | errors |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    rows: dict[str, list[tuple[float, ...]]] = {name: [] for name in given.only}
    with (
        tempfile.TemporaryDirectory() as folder,
        running(
            [
                *(
                    sys.executable,
                    "-m",
                    "benchmarks.serving.front.apart",
                    "benchmarks.serving.front.stand_in",
                ),
                *("serve", "--model", str(given.model), "--gallery", str(given.gallery)),
                *("--workers", str(given.workers), "--port", str(port := free_port())),
                *("--log-level", "warning"),
            ],
            environment={},
            port=port,
            answers=is_ready,
            log=Path(folder) / "log.txt",
        ) as server,
    ):
        for _ in range(given.rounds):
            for name, measured in rows.items():
                measured.append(measure(server, name, given.seconds))
    for name, measured in rows.items():
        rate, busy, p50, p99, cpu, wrk, errors = zip(*measured, strict=True)
        shares = [one * IMAGE_S for one in rate]
        print(
            f"| {name} | {spread(rate)} | {spread(shares, 2)} | {spread(busy, 2)} | "
            f"{spread(p50, 1)} | {spread(p99, 1)} | {spread(cpu)} | {spread(wrk)} | "
            f"{sum(errors):g} |"
        )


def measure(server: Server, name: str, seconds: float) -> tuple[float, ...]:
    """Return images/s, the busy share, p50 and p99 in ms, two times in µs an image, and errors."""
    path, images, connections = KINDS[name]
    picture = small(1)
    upload = Upload.raw(picture) if images == 1 else Upload.form([picture] * images)
    before = busy_s(server)
    load = put_under_load(server, path, upload, connections=connections, seconds=seconds)
    busy = (busy_s(server) - before) / seconds
    return (
        load.rate * images,
        busy,
        load.p50_ms,
        load.p99_ms,
        load.cpu_ms * 1000 / images,
        load.wrk_cpu_ms * 1000 / images,
        load.errors,
    )


def busy_s(server: Server) -> float:
    """Return for how long the stand-in has been busy so far; it says so once a second."""
    time.sleep(1.2)
    (value,) = BUSY.findall(httpx.get(f"{server.url}/metrics").text)
    return float(value)


def is_ready(url: str) -> bool:
    """Say whether all workers answer."""
    try:
        return httpx.get(f"{url}/readyz").status_code == httpx.codes.OK
    except httpx.TransportError:
        return False


if __name__ == "__main__":
    main()
