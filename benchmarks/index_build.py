"""Images per second of an index build, and of classifying a folder, beside the bare network.

    python -m benchmarks.index_build --model models/cnn --data fashion-mnist
    python -m benchmarks.index_build --model models/lite0 --data photos --images 300 --rounds 1

All get the same images, in turns. The bare network gets the pixels ready in memory. The
build reads, hashes and decodes files, makes thumbnails and commits all to SQLite; classifying
does the same without the last two. Where network and decoding share the cores, none of them can be
quicker than both one after the other on all cores: that is the bound.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.machine import commit, describe_machine, spread
from cli.support.image_source import open_image_source
from index.decoding.file_decoder import FileDecoder, FileToDecode
from index.decoding.file_decoder_pool import SLICE, FileDecoderPool
from index.gallery import Gallery
from index.items.source_entries import ImageEntry
from index.operations.add_images import build
from vision.image.decode import harden_pillow
from vision.image.limits import OWN_FILE_LIMITS
from vision.image.thumbnail import MAX_SIDE
from vision.inference.encoder import ImageEncoder
from vision.inference.open_encoder import open_encoder

CHECKED = 50  # vectors that are compared with the bare network's
LEAST_COSINE = 0.99  # bf16 keeps 8 bits, and rounds by the size of a batch


class Work:
    """What is measured: each method deals with all images once."""

    def __init__(self, encoder: ImageEncoder, entries: list[ImageEntry]) -> None:
        self.encoder = encoder
        self.entries = entries
        self.cores = len(os.sched_getaffinity(0))
        parts = [pixels_BCHW.copy() for pixels_BCHW in self._decoded(None)]
        self.pixels_NCHW: NDArray[np.uint8] = np.concatenate(parts)
        if len(self.pixels_NCHW) != len(entries):
            raise SystemExit("some of the images cannot be decoded: take them out first")

    def bare(self) -> None:
        """The network alone."""
        for start in range(0, len(self.pixels_NCHW), SLICE):
            self.encoder.encode(self.pixels_NCHW[start : start + SLICE])

    def decoding(self) -> None:
        """Reading, hashing, decoding and thumbnails, in processes, for nobody."""
        for _ in self._decoded(MAX_SIDE):
            pass

    def classifying(self) -> None:
        """What `lookalike classify` does with a folder."""
        for pixels_BCHW in self._decoded(None):
            self.encoder.encode(pixels_BCHW)

    def building(self) -> None:
        """What `lookalike index build` does; stops unless all vectors are the bare network's."""
        with (
            tempfile.TemporaryDirectory() as folder,
            Gallery.create(
                Path(folder) / "gallery",
                model_name="benchmark",
                fingerprint=self.encoder.manifest.fingerprint,
                width=self.encoder.manifest.architecture.width,
            ) as gallery,
        ):
            report = build(
                gallery,
                self.entries,
                source="benchmark",
                encoder=self.encoder,
                limits=OWN_FILE_LIMITS,
                processes=self.cores,
                on_progress=lambda _: None,
            )
            if report.added != len(self.entries):
                raise SystemExit(f"{report.added} of {len(self.entries)} images were added")
            for row in range(0, len(self.entries), max(1, len(self.entries) // CHECKED)):
                alone = self.encoder.encode(self.pixels_NCHW[row : row + 1]).vectors_BD[0]
                if float(gallery.vector(self.entries[row].id) @ alone) < LEAST_COSINE:
                    raise SystemExit(f"the vector of {self.entries[row].id} differs")

    def _decoded(self, side: int | None) -> Iterator[NDArray[np.uint8]]:
        decoder = FileDecoder(self.encoder.manifest.preprocessing, OWN_FILE_LIMITS, side)
        parts = (self.entries[at : at + SLICE] for at in range(0, len(self.entries), SLICE))
        slices = ((None, [FileToDecode(entry.data) for entry in part]) for part in parts)
        with FileDecoderPool(decoder, processes=self.cores) as pool:
            for _, _, pixels_BCHW in pool.decode(slices):
                yield pixels_BCHW


def main() -> None:
    """Measure, and print one table as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--data", default="fashion-mnist")
    parser.add_argument("--images", type=int, default=60_000, help="at most so many")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--runtime", default="auto", choices=("auto", "torch", "openvino"))
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    harden_pillow()
    cores = len(os.sched_getaffinity(0))
    encoder = open_encoder(
        arguments.model, device=arguments.device, runtime=arguments.runtime, threads=cores
    )
    entries = list(islice(open_image_source(arguments.data).entries, arguments.images))
    work = Work(encoder, entries)
    encoder.warm_up((SLICE,))

    kinds: dict[str, Callable[[], None]] = {
        "bare network": work.bare,
        "decoding alone": work.decoding,
        "classify a folder": work.classifying,
        "index build": work.building,
    }
    rates: dict[str, list[float]] = {name: [] for name in kinds}
    for _ in range(arguments.rounds):
        for name, run in kinds.items():
            started = time.perf_counter()
            run()
            rates[name].append(len(entries) / (time.perf_counter() - started))

    runtime = f"{encoder.runtime.name} {encoder.runtime.precision} on {encoder.device_name}"
    print(f"{describe_machine()}; {runtime}; commit {commit()}; median (range)\n")
    print(f"| {len(entries):,} images of {arguments.data}, {arguments.model.name} | images/s |")
    print("|---|---|")
    for name, values in rates.items():
        print(f"| {name} | {spread(values)} |")
    bare, decoding = rates["bare network"], rates["decoding alone"]
    both = [1 / (1 / one + 1 / other) for one, other in zip(bare, decoding, strict=True)]
    print(f"| bound: network and decoding on the same cores | {spread(both)} |")
    for name in ("classify a folder", "index build"):
        for what, against in (("bare network", bare), ("bound", both)):
            ratios = [ours / theirs for ours, theirs in zip(rates[name], against, strict=True)]
            print(f"| {name} / {what} | {spread(ratios, 2)} |")


if __name__ == "__main__":
    main()
