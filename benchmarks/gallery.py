"""How fast a gallery takes writes and starts again, and what its interface costs beyond FAISS.

    python -m benchmarks.gallery --folder build/galleries adds
    python -m benchmarks.gallery --folder build/galleries restart --rows 100000 1000000
    python -m benchmarks.gallery --folder build/galleries interface

`adds`: threads that each put one item at a time (a vector of 512 numbers, a thumbnail of 2 KB, two
members of metadata) and wait until it is on the disk and found. The model is left out. `restart`: a
new process opens the gallery and answers one search, with the files in the page cache and without
(the latter as root). `interface`: one thread, one core; the same structure through FAISS's Python
interface, through a snapshot (keys and scores), and through the gallery (items).

Galleries are built once, below --folder, and kept.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import faiss
import numpy as np

from benchmarks.machine import commit, describe_machine, spread
from benchmarks.search.datasets import fashion
from benchmarks.search.galleries import FINGERPRINT, built, clustered_gallery
from index.gallery import Gallery
from index.items.item import NewItem
from vision.image.thumbnail import Thumbnail

OPEN = """
import sys, time
started = time.perf_counter()
from pathlib import Path
import numpy as np
from index.gallery import Gallery
imported = time.perf_counter()
gallery = Gallery.open(Path(sys.argv[1]), fingerprint=None)
hits = gallery.search(np.eye(1, gallery.binding.width, dtype=np.float32), k=10).hits[0]
assert len(hits) == 10 and gallery.count == int(sys.argv[2])
ready = time.perf_counter()
rss = [int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("Rss")]
print(imported - started, ready - imported, gallery.info().generation, *rss)
"""


def main() -> None:
    """Measure what the command line names, and print a table as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, required=True, help="on the disk to measure")
    commands = parser.add_subparsers(required=True)
    adds = commands.add_parser("adds")
    adds.add_argument("--writers", type=int, nargs="+", default=[1, 8, 32])
    adds.add_argument("--seconds", type=float, default=5.0)
    adds.add_argument("--rounds", type=int, default=3)
    adds.set_defaults(run=measure_adds)
    restart = commands.add_parser("restart")
    restart.add_argument("--rows", type=int, nargs="+", default=[100_000, 1_000_000])
    restart.add_argument("--rounds", type=int, default=3)
    restart.set_defaults(run=measure_restart)
    interface = commands.add_parser("interface")
    interface.add_argument("--rounds", type=int, default=7)
    interface.set_defaults(run=measure_interface)
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    print(f"{describe_machine()}, commit {commit()}\n")
    arguments.run(arguments)


def measure_adds(arguments: argparse.Namespace) -> None:
    """Print durable adds per second and how long each waited."""
    print("| writers | adds/s | acknowledged after ms, median | p99 |\n|---|---|---|---|")
    for writers in arguments.writers:
        rates, medians, worst = [], [], []
        for _ in range(arguments.rounds):
            waits_s = put_for(arguments.folder, writers, arguments.seconds)
            rates.append(len(waits_s) / arguments.seconds)
            medians.append(statistics.median(waits_s) * 1000)
            worst.append(float(np.percentile(waits_s, 99)) * 1000)
        print(f"| {writers} | {spread(rates)} | {spread(medians, 2)} | {spread(worst, 1)} |")


def put_for(folder: Path, writers: int, seconds: float) -> list[float]:
    """Put items from so many threads; return how long each put took, in seconds."""
    vectors_ND = np.random.default_rng(0).normal(size=(4096, 512)).astype(np.float32)
    vectors_ND /= np.linalg.norm(vectors_ND, axis=1, keepdims=True)
    thumbnail = Thumbnail("image/jpeg", os.urandom(2048))
    waits_s: list[float] = []
    with tempfile.TemporaryDirectory(dir=folder) as place:
        gallery = Gallery.create(
            Path(place) / "g", model_name="benchmark", fingerprint=FINGERPRINT, width=512
        )
        end = time.perf_counter() + seconds

        def write(writer: int) -> None:
            number = 0
            while (started := time.perf_counter()) < end:
                number += 1
                item = NewItem(
                    id=f"{writer}-{number}",
                    vector_D=vectors_ND[number % len(vectors_ND)],
                    label="shoe",
                    metadata={"price": number, "shop": f"s{number % 50}"},
                    thumbnail=thumbnail,
                    content_sha256=f"{writer:032x}{number:032x}",
                )
                gallery.put([item])
                waits_s.append(time.perf_counter() - started)

        threads = [threading.Thread(target=write, args=(writer,)) for writer in range(writers)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        gallery.close()
    return waits_s


def measure_restart(arguments: argparse.Namespace) -> None:
    """Print how long a new process takes until it has answered a search."""
    print("| items | files | opened and searched s | imports s | resident MB, of it mapped files |")
    print("|---|---|---|---|---|")
    for rows in arguments.rows:
        folder = clustered_gallery(arguments.folder, rows)
        for cached in (True, False):
            if not cached and os.geteuid():
                continue
            runs = [open_once(folder, rows, cached=cached) for _ in range(arguments.rounds)]
            imports, ready, memory, mapped = zip(*runs, strict=True)
            files = "in the page cache" if cached else "on the disk"
            print(
                f"| {rows:,} | {files} | {spread(ready, 2)} | {spread(imports, 2)} | "
                f"{max(memory):,.0f}, {max(mapped):,.0f} |"
            )


def open_once(folder: Path, rows: int, *, cached: bool) -> tuple[float, float, float, float]:
    """Return seconds to import, seconds to be ready, and megabytes resident and mapped."""
    if not cached:
        os.sync()
        Path("/proc/sys/vm/drop_caches").write_text("3")
    done = subprocess.run(
        [sys.executable, "-c", OPEN, str(folder), str(rows)],
        capture_output=True,
        text=True,
        check=True,
    )
    imported, ready, generation, anonymous, mapped, _ = map(float, done.stdout.split())
    if not generation:
        raise SystemExit(f"{folder} was opened without a generation")
    return imported, ready, (anonymous + mapped) / 1024, mapped / 1024


def measure_interface(arguments: argparse.Namespace) -> None:
    """Print microseconds per query through each layer, one by one and batched."""
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    faiss.omp_set_num_threads(1)
    base_ND, queries_QD = fashion("fashion-unit")
    queries_QD = np.ascontiguousarray(queries_QD[:3000])
    folder = built(arguments.folder / "fashion-unit", base_ND)
    with Gallery.open(folder, fingerprint=None) as gallery:
        snapshot = gallery._follower.snapshot
        assert snapshot.immutable is not None
        ann_index = snapshot.immutable.segment.ann_index
        assert ann_index is not None
        parameters = ann_index._search_parameters(10, None, 1.0)
        ways: dict[str, Callable[[np.ndarray], object]] = {
            "FAISS": lambda q: ann_index._refined.search(q, 10, params=parameters),
            "snapshot: keys and scores": lambda q: snapshot.search(q, k=10),
            "gallery: items": lambda q: gallery.search(q, k=10),
        }
        gallery.search(queries_QD, k=10)
        print(f"{ann_index.spec}\n")
        print("| through | µs one by one | ratio | µs batched | ratio |\n|---|---|---|---|---|")
        singles: dict[str, list[float]] = {name: [] for name in ways}
        batches: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(arguments.rounds):
            for name, search in ways.items():
                singles[name].append(one_by_one(search, queries_QD))
                batches[name].append(timed(partial(search, queries_QD)) / len(queries_QD) * 1e6)
        bare, bare_batch = min(singles["FAISS"]), min(batches["FAISS"])
        for name in ways:
            single, batch = min(singles[name]), min(batches[name])
            print(
                f"| {name} | {spread(singles[name], 1)} | {single / bare:.3f} | "
                f"{spread(batches[name], 1)} | {batch / bare_batch:.3f} |"
            )
        print("\nRatios are of the least of each.")


def one_by_one(search: Callable[[np.ndarray], object], queries_QD: np.ndarray) -> float:
    """Return microseconds per query, each asked alone."""
    queries = [queries_QD[row : row + 1] for row in range(len(queries_QD))]

    def ask() -> None:
        for query in queries:
            search(query)

    return timed(ask) / len(queries) * 1e6


def timed(work: Callable[[], object]) -> float:
    """Return the seconds that ``work`` takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
