"""How much machine a service wants: rates, memory, start and disk by cores and stored items.

    python -m benchmarks.sizing --model demo/model --items 0 60000
    python -m benchmarks.sizing --model models/photos --items 0 10000 --rounds 3

Every row is a server of its own, with one worker for each core that it may use; wrk has the cores
that are left, or shares them where none is. The galleries are made of vectors of the model's width
around a thousand centres, as those of real images lie around kinds, with thumbnails of a made
picture.
"""

import argparse
import io
import os
import tempfile
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks.machine import commit, describe_machine, spread
from benchmarks.serving.load import Upload, put_under_load
from benchmarks.serving.pictures import photo
from benchmarks.serving.rivals.lineup import OURS
from benchmarks.serving.servers import free_port, running
from cli.support.gallery_filling import rebuild_if_due
from index.gallery import Gallery
from index.items.item import NewItem
from index.search.vectors import Parts
from vision.image.thumbnail import make_thumbnail
from vision.model.manifest import read_manifest

WARM_UP_S = 2.0
AT_ONCE = 1000  # items of a transaction
CENTRES = 1000
SPREAD = 0.6  # of the vectors around them, as a share of their length
MEGABYTE = 2**20


@dataclass
class Row:
    """What the rounds measured of one size."""

    classify: list[float] = field(default_factory=list)  # answers/s
    search: list[float] = field(default_factory=list)
    p99_ms: list[float] = field(default_factory=list)  # of searches
    start_s: list[float] = field(default_factory=list)
    idle: list[float] = field(default_factory=list)  # MiB, pages of several processes counted once
    loaded: list[float] = field(default_factory=list)
    errors: int = 0


def main() -> None:
    """Measure each size in turn, and print a table as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--items", type=int, nargs="+", default=[0, 60_000])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each run of wrk")
    parser.add_argument("--connections", type=int, default=32)
    arguments = parser.parse_args()
    arguments.model = arguments.model.resolve()
    cores = sorted(os.sched_getaffinity(0))
    counts = [2**power for power in range(len(cores).bit_length()) if 2**power <= len(cores)]
    rows = {(some, items): Row() for items in arguments.items for some in counts}
    print(f"{describe_machine()}; commit {commit()}; {arguments.model.name}")
    with tempfile.TemporaryDirectory() as folder:
        disk = {}
        for items in arguments.items:
            gallery = Path(folder) / f"{items}"
            make_gallery(gallery, arguments.model, items)
            files = (path for path in gallery.rglob("*") if path.is_file())
            disk[items] = sum(path.stat().st_size for path in files)
        for _ in range(arguments.rounds):
            for (some, items), row in rows.items():
                os.sched_setaffinity(0, cores[:some])  # the server inherits it
                try:
                    measure(row, Path(folder) / f"{items}", some, arguments)
                finally:
                    os.sched_setaffinity(0, cores)
    print(f"{arguments.rounds} rounds of {arguments.seconds:g} s, median (range)\n")
    print(
        "| cores | items | classify/s | search/s | p99 of it ms | start s | MB idle "
        "| MB after load | MB on disk | not answered |\n|---|---|---|---|---|---|---|---|---|---|"
    )
    for (some, items), row in rows.items():
        print(
            f"| {some} | {items:,} | {spread(row.classify)} | {spread(row.search)} "
            f"| {spread(row.p99_ms)} | {spread(row.start_s, 1)} | {spread(row.idle)} "
            f"| {spread(row.loaded)} | {disk[items] / MEGABYTE:,.0f} | {row.errors} |"
        )


def make_gallery(folder: Path, model: Path, items: int) -> None:
    """Make a gallery of ``items`` vectors with thumbnails, and its search structure."""
    manifest = read_manifest(model)
    width, parts = manifest.architecture.width, Parts.of(manifest.architecture)
    rng = np.random.default_rng(0)
    centres_ND = unit_rows(rng.standard_normal((CENTRES, width)))
    thumbnail = make_thumbnail(Image.open(io.BytesIO(photo(0))))
    with Gallery.create(
        folder, model_name=manifest.name, fingerprint=manifest.fingerprint, width=width
    ) as gallery:
        for first in range(0, items, AT_ONCE):
            numbers = range(first, min(first + AT_ONCE, items))
            noise_ND = unit_rows(rng.standard_normal((len(numbers), width)))
            near_ND = centres_ND[rng.integers(CENTRES, size=len(numbers))]
            vectors_ND = unit_rows(near_ND + SPREAD * noise_ND)
            if parts is not None:
                split, share = parts.item_width, parts.kind_share
                vectors_ND[:, :split] = unit_rows(vectors_ND[:, :split]) * (1 - share) ** 0.5
                vectors_ND[:, split:] = unit_rows(vectors_ND[:, split:]) * share**0.5
            gallery.put(
                [
                    NewItem(
                        id=f"item-{number}",
                        vector_D=vector_D,
                        label=f"class {number % 10}",
                        metadata={"price": number % 100},
                        thumbnail=thumbnail,
                        content_sha256=f"{number:064x}",
                    )
                    for number, vector_D in zip(numbers, vectors_ND, strict=True)
                ]
            )
        rebuild_if_due(gallery)


def unit_rows(vectors_ND: NDArray[np.floating]) -> NDArray[np.float32]:
    """Return the rows (N, D), each of length 1."""
    norms_N1 = np.linalg.norm(vectors_ND, axis=1, keepdims=True)
    return (vectors_ND / norms_N1).astype(np.float32)


def measure(row: Row, gallery: Path, workers: int, arguments: argparse.Namespace) -> None:
    """Run one server once, and add what was seen to ``row``."""
    port, picture = free_port(), Upload.raw(photo(0))
    command = OURS.command_in(OURS.install(), port=port, model=arguments.model, gallery=gallery)
    with running(
        [*command, "--workers", str(workers)],
        environment={},
        port=port,
        answers=is_ready,
        log=gallery.parent / "server.log",
    ) as server:
        os.sched_setaffinity(0, range(os.cpu_count() or 1))
        row.start_s.append(server.start_s)
        row.idle.append(server.memory().proportional)
        for path, rates in (("/v1/classify", row.classify), ("/v1/search?k=10", row.search)):
            for seconds in (WARM_UP_S, arguments.seconds):
                load = put_under_load(
                    server, path, picture, connections=arguments.connections, seconds=seconds
                )
            rates.append(load.rate)
            row.errors += load.errors
        row.p99_ms.append(load.p99_ms)
        row.loaded.append(server.memory().proportional)


def is_ready(url: str) -> bool:
    """Return whether the server at ``url`` says that it is ready."""
    with suppress(httpx.HTTPError):
        return httpx.get(f"{url}/readyz", timeout=5).is_success
    return False


if __name__ == "__main__":
    main()
