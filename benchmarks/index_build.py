"""Images per second of an index build beside the bare network on the same images.

    python -m benchmarks.index_build --model demo/model

The build decodes 60,000 PNGs, embeds them, makes thumbnails and commits everything to SQLite; the
bare network gets the same pixels, ready in memory, in the same batches. In turns, three times each.
"""

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks.machine import commit, describe_machine, spread
from cli.sources import open_source
from index.build import build
from index.gallery import Gallery
from vision.encoder import Encoder
from vision.image import DEFAULT_LIMITS, harden_pillow

BATCH = 256


def main() -> None:
    """Measure, and print one table as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    harden_pillow()
    encoder = Encoder.load(arguments.model, device=arguments.device)
    entries = list(open_source("fashion-mnist").entries)
    preprocessing = encoder.manifest.preprocessing
    pixels_NCHW = np.stack(
        [preprocessing.pixels(preprocessing.decode(entry.data)) for entry in entries]
    )
    encoder.warm_up((BATCH,))

    rates: dict[str, list[float]] = {"index build": [], "bare network": []}
    for _ in range(arguments.rounds):
        with (
            tempfile.TemporaryDirectory() as folder,
            Gallery.create(
                Path(folder) / "gallery",
                model_name="benchmark",
                fingerprint=encoder.manifest.fingerprint,
                width=encoder.width,
            ) as gallery,
        ):
            started = time.perf_counter()
            build(
                gallery,
                entries,
                source="fashion-mnist",
                encoder=encoder,
                limits=DEFAULT_LIMITS,
                on_progress=lambda _: None,
            )
            rates["index build"].append(len(entries) / (time.perf_counter() - started))
            check_same_vectors(gallery, encoder, pixels_NCHW, [entry.id for entry in entries])
        started = time.perf_counter()
        for start in range(0, len(pixels_NCHW), BATCH):
            encoder.encode(pixels_NCHW[start : start + BATCH])
        rates["bare network"].append(len(entries) / (time.perf_counter() - started))

    print(f"{describe_machine()}; device {encoder.device}; commit {commit()}; median (range)\n")
    print("| 60,000 images of 28 x 28 | images/s |")
    print("|---|---|")
    for name, values in rates.items():
        print(f"| {name} | {spread(values)} |")
    pairs = zip(rates["index build"], rates["bare network"], strict=True)
    print(f"| ratio | {spread([ours / bare for ours, bare in pairs], 2)} |")


def check_same_vectors(
    gallery: Gallery, encoder: Encoder, pixels_NCHW: np.ndarray, ids: list[str]
) -> None:
    """Stop unless the gallery holds all images, and the vectors that the network gives alone."""
    if gallery.count != len(ids):
        raise SystemExit(f"the gallery holds {gallery.count} images, not {len(ids)}")
    for row in range(0, len(ids), 6007):
        alone = encoder.encode(pixels_NCHW[row : row + 1]).vectors_BD[0]
        if not np.allclose(gallery.vector(ids[row]), alone, atol=1e-4):
            raise SystemExit(f"the vector of {ids[row]} differs from the network's")


if __name__ == "__main__":
    main()
