"""Memory of an index build, by the number of images: made JPEGs of 32 x 32, all different.

    python -m benchmarks.many_images --model demo/model --images 100000

What is kept of each image until the end of a build is printed as bytes: of the listing, and, from
the growth between a fifth of the build and its end, of the build itself. What a million takes
follows: it is the line at the end.
"""

import argparse
import gc
import io
import os
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.machine import commit, describe_machine
from cli.support.image_source import open_image_source
from index.gallery import Gallery
from index.operations.add_images import build
from vision.image.decode import harden_pillow
from vision.image.limits import OWN_FILE_LIMITS
from vision.inference.open_encoder import open_encoder

PER_FOLDER = 10_000
SIDE = 32  # pixels
EARLY = 0.2  # share of the build after which everything that is allocated once has been
MILLION = 1_000_000


def main() -> None:
    """Build, and print where the memory went."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--images", type=int, default=100_000)
    arguments = parser.parse_args()
    harden_pillow()
    cores = len(os.sched_getaffinity(0))
    encoder = open_encoder(arguments.model, device="cpu", runtime="auto", threads=cores)
    with tempfile.TemporaryDirectory() as folder:
        images = Path(folder) / "images"
        write_images(images, arguments.images)
        before = resident()
        source = open_image_source(str(images))
        listed = resident()
        sizes: list[tuple[int, int]] = []  # images done, bytes resident
        done = 0

        def note(count: int) -> None:
            nonlocal done
            done += count
            sizes.append((done, resident()))

        with Gallery.create(
            Path(folder) / "gallery",
            model_name="benchmark",
            fingerprint=encoder.manifest.fingerprint,
            width=encoder.manifest.architecture.width,
        ) as gallery:
            started = time.perf_counter()
            report = build(
                gallery,
                source.entries,
                source="made",
                encoder=encoder,
                limits=OWN_FILE_LIMITS,
                processes=cores,
                on_progress=note,
            )
            seconds = time.perf_counter() - started
            if report.added != arguments.images or gallery.count != arguments.images:
                raise SystemExit(f"{report.added} of {arguments.images} images were added")
    early, at_early = next(one for one in sizes if one[0] >= EARLY * arguments.images)
    last, at_last = sizes[-1]
    listing = (listed - before) / arguments.images
    growth = (at_last - at_early) / (last - early)
    vectors = 4 * encoder.manifest.architecture.width
    print(f"{describe_machine()}; commit {commit()}; {arguments.images / seconds:,.0f} images/s\n")
    print("| resident bytes per image | |\n|---|---|")
    print(f"| listing | {listing:,.0f} |")
    print(f"| growth of the build, from {early:,} to {last:,} images | {growth:,.0f} |")
    print(f"| of it the vector, in memory for searches | {vectors:,} |")
    print(f"| resident after {early:,} images, MB | {at_early / 1e6:,.0f} |")
    total = at_early + (MILLION - early) * growth + (MILLION - arguments.images) * listing
    print(f"| so resident after {MILLION:,} images, MB | {total / 1e6:,.0f} |")


def write_images(folder: Path, count: int) -> None:
    """Write so many small JPEGs, told apart by a comment in each."""
    rng = np.random.default_rng(0)
    data = b""
    for number in range(count):
        if number % PER_FOLDER == 0:
            place = folder / f"class{number // PER_FOLDER}"
            place.mkdir(parents=True)
            colours = Image.fromarray(rng.integers(0, 256, (4, 4, 3), np.uint8))
            buffer = io.BytesIO()
            colours.resize((SIDE, SIDE)).save(buffer, "JPEG", quality=70)
            data = buffer.getvalue()
        comment = b"\xff\xfe" + (10).to_bytes(2, "big") + number.to_bytes(8, "big")
        (place / f"photo_{number:07d}.jpg").write_bytes(data[:2] + comment + data[2:])


def resident() -> int:
    """Return how many bytes of this process are in memory."""
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    main()
