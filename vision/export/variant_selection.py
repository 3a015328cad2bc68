"""Variants of one network in, the quickest out that finds what torch finds.

Every variant is timed; then the quickest, and while that loses too much the next, is compared with
torch on the same images: how exact it is, and whether a search finds the same.

Shape suffixes: N images, B of them in a batch, C channels, H x W pixels, D vector width.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from vision.errors import ExportError
from vision.export.encoding_comparison import compare_encodings
from vision.export.openvino_export import Graph
from vision.inference.bulk_encoder import fastest_encoder
from vision.inference.encoder import ImageEncoder, Runtime, encode_all
from vision.inference.openvino_encoder import RUNTIME, OpenVinoEncoder
from vision.inference.torch_encoder import TorchEncoder
from vision.model.export_accuracy import LossLimits
from vision.model.export_folder import FloatPrecision, MeasuredVariant, Precision, precision_name
from vision.model.manifest import Manifest

REFERENCE_S: Final = 20.0  # that the reference may take for the images that are compared
FEWEST: Final = 200  # images compared however long that takes
PROBED: Final = 16  # images by which the reference is timed, and compared with torch itself
EXACT: Final = 0.9999  # cosine to torch's vectors that the reference must have
BATCHES: Final = (1, 4, 16)  # images at once, of which times are taken
MOST_PIXELS: Final = 16 * 224**2  # at once: more only leave the processor's caches, and fill memory
TIMED_S: Final = 0.1  # for one variant and batch, or two runs if they take longer
# What a less exact variant must gain. Two runs of one differ by some hundredths; and integers
# cost twice as many neighbours as bfloat16, for 1.5 times the speed of a small network and for 1.1
# times that of one whose depthwise convolutions stay in floating point.
LEAST_GAIN: Final = 1.25


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportImages:
    """Images of a model's data: some to calibrate with, others, labelled, to measure with."""

    data: str  # its name
    calibration_NCHW: NDArray[np.uint8]  # of the training part
    test_NCHW: NDArray[np.uint8]
    labels_N: NDArray[np.int64]  # of the test images; not looked at where there are no classes


@dataclass(frozen=True, slots=True)
class Variant:
    """One way to compute the network."""

    precision: Precision
    floats: FloatPrecision
    files: Mapping[str, bytes]
    calibrated: bool = True  # False: integers are good for timing only

    @property
    def name(self) -> str:
        """The precision, and that of the rest of the numbers where it is another one."""
        return precision_name(self.precision, self.floats)

    def encoder(self, manifest: Manifest, *, threads: int) -> OpenVinoEncoder:
        """Return it, compiled for this CPU."""
        runtime = Runtime(name=RUNTIME, precision=self.precision)
        return OpenVinoEncoder(
            manifest, self.files, runtime=runtime, floats=self.floats, threads=threads
        )


class VariantSelection:
    """All variants timed, and as many compared with torch as it takes until one holds."""

    def __init__(
        self,
        variants: Sequence[Variant],
        graph: Graph,
        by_torch: TorchEncoder,
        images: ExportImages,
        limits: LossLimits,
        *,
        threads: int,
        report: Callable[[str], None],
    ) -> None:
        self.variants = {variant.name: variant for variant in variants}
        self._graph, self._by_torch = graph, by_torch
        self._images, self._limits = images, limits
        self._threads, self._report = threads, report
        self._measured: dict[str, MeasuredVariant] = {}

    @property
    def tried(self) -> tuple[MeasuredVariant, ...]:
        """What there is, the most exact first; what gives no numbers is left out."""
        return tuple(self._measured.values())

    def run(self) -> MeasuredVariant | None:
        """Return the quickest that holds; None: nothing does."""
        manifest = self._by_torch.manifest
        variants = list(self.variants.values())
        self._report(f"timing {', '.join(self.variants)} with OpenVINO")
        encoders = [variant.encoder(manifest, threads=1) for variant in variants]
        for timed, cpu_ms in zip(
            variants, _measure_cpu_ms(encoders, self._images.test_NCHW), strict=True
        ):
            self._measured[timed.name] = MeasuredVariant(
                precision=timed.precision, floats=timed.floats, cpu_ms=cpu_ms
            )
        del encoders
        reference = _reference(self._by_torch, self._images.test_NCHW)
        chosen = _compared_positions(reference, self._images.test_NCHW)
        images_NCHW, labels_N = self._images.test_NCHW[chosen], self._images.labels_N[chosen]
        self._report(f"measuring {len(images_NCHW):,} images in full precision")
        expected = encode_all(reference, images_NCHW, batch=reference.batch_size)
        while (one := pick_variant(self.tried)) is not None and one.difference is None:
            variant = self._calibrated(one.name)
            if variant is None:
                continue
            self._report(f"measuring {variant.name}")
            encoder = variant.encoder(manifest, threads=self._threads)
            computed = encode_all(encoder, images_NCHW, batch=one.best_batch * self._threads)
            difference = compare_encodings(expected, computed, labels_N)
            if not math.isfinite(difference.cosine_mean):
                del self._measured[variant.name]
                continue
            self._measured[variant.name] = replace(
                one, difference=difference, refusal=self._limits.refuse(difference)
            )
        return one

    def _calibrated(self, name: str) -> Variant | None:
        """Return a variant with the files to be written; None: integers fail, and are left out."""
        if not self.variants[name].calibrated:
            images_NCHW = self._images.calibration_NCHW
            self._report(f"calibrating 8-bit integers with {len(images_NCHW):,} images")
            integers = [variant for variant in self.variants.values() if not variant.calibrated]
            try:
                files = self._graph.quantized_files(images_NCHW)
            except ExportError as error:
                self._report(str(error))
                for variant in integers:
                    del self._measured[variant.name]
                return None
            for one in integers:
                self.variants[one.name] = replace(one, files=files, calibrated=True)
        return self.variants[name]


def _reference(by_torch: TorchEncoder, images_NCHW: NDArray[np.uint8]) -> ImageEncoder:
    """Return what stands for torch: itself, or what gives its numbers sooner."""
    quick = fastest_encoder(by_torch, images=len(images_NCHW))
    if quick is by_torch:
        return by_torch
    probe_BCHW = images_NCHW[:PROBED]
    torchs_BD, ours_BD = (
        encode_all(one, probe_BCHW, batch=PROBED // 4).vectors_BD for one in (by_torch, quick)
    )
    return quick if np.einsum("bd,bd->b", torchs_BD, ours_BD).min() > EXACT else by_torch


def _compared_positions(
    reference: ImageEncoder, images_NCHW: NDArray[np.uint8]
) -> NDArray[np.int64]:
    """Return the places of images, spread evenly, that it needs no more than its time for."""
    probe_BCHW = images_NCHW[:PROBED]
    reference.encode(probe_BCHW)
    started = time.perf_counter()
    reference.encode(probe_BCHW)
    rate = len(probe_BCHW) / max(time.perf_counter() - started, 1e-9)
    count = min(len(images_NCHW), max(FEWEST, int(REFERENCE_S * rate)))
    return np.linspace(0, len(images_NCHW) - 1, count).astype(np.int64)


def _measure_cpu_ms(
    encoders: Sequence[ImageEncoder], images_NCHW: NDArray[np.uint8]
) -> list[dict[str, float]]:
    """Return milliseconds of one core for an image, by batch; the least of runs taken in turns."""
    found: list[dict[str, float]] = [{} for _ in encoders]
    pixels = images_NCHW.shape[-1] ** 2
    for size in [size for size in BATCHES if size == 1 or size * pixels <= MOST_PIXELS]:
        pixels_BCHW = np.resize(images_NCHW, (size, *images_NCHW.shape[1:]))
        for encoder in encoders:
            encoder.encode(pixels_BCHW)
        runs, ends = 0, time.perf_counter() + TIMED_S * len(encoders)
        while runs < 2 or time.perf_counter() < ends:  # noqa: PLR2004 - one may be disturbed
            runs += 1
            for encoder, times in zip(encoders, found, strict=True):
                started = time.process_time()
                encoder.encode(pixels_BCHW)
                took = 1000 * (time.process_time() - started) / size
                times[str(size)] = round(min(took, times.get(str(size), math.inf)), 4)
    return found


def pick_variant(tried: Sequence[MeasuredVariant]) -> MeasuredVariant | None:
    """Return the quickest that is not refused, of variants with the most exact first.

    A less exact one must be clearly quicker than the one it replaces.
    """
    chosen = None
    for variant in tried:
        if variant.refusal is None and (
            chosen is None or LEAST_GAIN * variant.best_ms <= chosen.best_ms
        ):
            chosen = variant
    return chosen
