"""A trained model and images in, its export for OpenVINO out: the quickest form that holds.

Every form is measured on the same images: how quick it is, how exact, and whether a search finds
the same.

Shape suffixes: N images, C channels, H x W pixels, D vector width, L labels.
"""

import hashlib
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from vision.comparison import compare
from vision.difference import Limits
from vision.encoder import Encoder
from vision.encoding import ImageEncoder, Runtime, encode_all
from vision.errors import ExportError
from vision.exported import (
    Asked,
    Attempt,
    Calibration,
    Export,
    ExportManifest,
    Floats,
    Precision,
    name_of,
    write_export,
)
from vision.manifest import Manifest
from vision.model import load_model
from vision.onnx_graph import to_onnx
from vision.openvino_encoder import RUNTIME, OpenVinoEncoder
from vision.openvino_graph import Graph
from vision.openvino_library import has_bf16

BATCH: Final = 16  # images compared at once
TORCH_S: Final = 30.0  # that torch may take for the images that are compared
FEWEST: Final = 200  # images compared however long torch takes
BATCHES: Final = (1, 4, 16)  # images at once, of which times are taken
TIMED_S: Final = 0.1  # for one form and batch, or two runs if they take longer
# What a less exact form must gain: two runs of one form differ by some hundredths.
LEAST_GAIN: Final = 1.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """Images of a model's data: some to calibrate with, others, labelled, to measure with."""

    data: str  # its name
    calibration_NCHW: NDArray[np.uint8]  # of the training part
    test_NCHW: NDArray[np.uint8]
    labels_N: NDArray[np.int64]  # of the test images; not looked at where there are no classes


@dataclass(frozen=True, slots=True)
class _Form:
    """One way to compute the network."""

    precision: Precision
    floats: Floats
    files: Mapping[str, bytes]

    @property
    def name(self) -> str:
        return name_of(self.precision, self.floats)

    def encoder(self, manifest: Manifest, *, threads: int) -> OpenVinoEncoder:
        runtime = Runtime(name=RUNTIME, precision=self.precision)
        return OpenVinoEncoder(
            manifest, self.files, runtime=runtime, floats=self.floats, threads=threads
        )


def export_model(
    folder: Path,
    sample: Sample,
    *,
    precision: Asked,
    limits: Limits,
    threads: int,
    report: Callable[[str], None] = lambda _: None,
) -> ExportManifest:
    """Write a model's export into its folder, in place of an older one, and return its manifest.

    ``auto`` tries every precision that this machine and the data allow, and takes the quickest of
    those that lose no more than ``limits``. ``report`` is told what is being done.

    Raises:
        ModelFolderError: the model cannot be read, or its folder not be written.
        ExportError: the model cannot be exported, or every form lost more than ``limits``.
    """
    torch.set_num_threads(threads)
    manifest, network = load_model(folder)
    report("writing the network as a graph")
    graph = Graph(to_onnx(manifest, network))
    forms = _forms(graph, sample, precision, report)
    tried = _measured(
        forms,
        manifest,
        Encoder(manifest, network, torch.device("cpu")),
        sample,
        limits,
        threads=threads,
        report=report,
    )
    chosen = pick(tried)
    if chosen is None:
        refusals = "; ".join(f"{one.name}: {one.refusal}: {one.difference}" for one in tried)
        raise ExportError(
            f"{folder} is not exported as {precision}: {refusals}"
            + ("" if precision in ("auto", "fp32") else "; --precision fp32 loses nothing")
        )
    (form,) = [form for form in forms if form.name == chosen.name]
    is_int8 = form.precision == "int8"
    export = ExportManifest(
        runtime=RUNTIME,
        runtime_version=version("openvino"),
        exporter=_exporter(form.precision),
        precision=form.precision,
        full_precision_layers=graph.kept_layers() if is_int8 else (),
        model_fingerprint=manifest.fingerprint,
        model_sha256=hashlib.sha256(manifest.to_bytes()).hexdigest(),
        files={name: hashlib.sha256(data).hexdigest() for name, data in form.files.items()},
        calibration=Calibration(data=sample.data, images=len(sample.calibration_NCHW))
        if is_int8
        else None,
        difference=chosen.difference,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        floats=form.floats,
        batch=int(min(chosen.cpu_ms, key=lambda size: chosen.cpu_ms[size])),
        tried=tried,
    )
    write_export(folder, Export(export, dict(form.files)))
    return export


def pick(tried: Sequence[Attempt]) -> Attempt | None:
    """Return the quickest that was not refused, of attempts with the most exact first.

    A less exact one must be clearly quicker than the one it replaces.
    """
    chosen = None
    for attempt in tried:
        if attempt.refusal is None and (
            chosen is None or LEAST_GAIN * attempt.best_ms <= chosen.best_ms
        ):
            chosen = attempt
    return chosen


def _forms(
    graph: Graph, sample: Sample, asked: Asked, report: Callable[[str], None]
) -> list[_Form]:
    """Return what is to be tried, the most exact first.

    Raises:
        ExportError: this machine or the data do not allow what was asked for.
    """
    bf16 = has_bf16()
    if asked == "bf16" and not bf16:
        raise ExportError(
            "this processor does not multiply bfloat16, so that bf16 cannot be measured here; "
            "use --precision auto, or export on a machine that does"
        )
    floats = graph.files() if asked != "int8" else {}
    forms: list[_Form] = []
    if asked in ("auto", "fp32"):
        forms.append(_Form("fp32", "fp32", floats))
    if bf16 and asked in ("auto", "bf16"):
        forms.append(_Form("bf16", "bf16", floats))
    calibration = len(sample.calibration_NCHW)
    if asked == "int8" or (asked == "auto" and calibration):
        report(f"calibrating 8-bit integers with {calibration:,} images")
        try:
            integers = graph.quantized_files(sample.calibration_NCHW)
        except ExportError as error:
            if asked == "int8":
                raise
            report(str(error))
            return forms
        forms.append(_Form("int8", "fp32", integers))
        if bf16:
            forms.append(_Form("int8", "bf16", integers))
    return forms


def _measured(
    forms: Sequence[_Form],
    manifest: Manifest,
    by_torch: ImageEncoder,
    sample: Sample,
    limits: Limits,
    *,
    threads: int,
    report: Callable[[str], None],
) -> tuple[Attempt, ...]:
    """Return what every form is worth; one that gives no numbers is left out."""
    chosen = _as_many(by_torch, sample.test_NCHW)
    images_NCHW, labels_N = sample.test_NCHW[chosen], sample.labels_N[chosen]
    report(f"measuring torch on {len(images_NCHW):,} images")
    wanted = encode_all(by_torch, images_NCHW, batch=BATCH)
    times = _times([form.encoder(manifest, threads=1) for form in forms], images_NCHW)
    found = []
    for form, cpu_ms in zip(forms, times, strict=True):
        report(f"measuring {form.name} with OpenVINO")
        given = encode_all(form.encoder(manifest, threads=threads), images_NCHW, batch=BATCH)
        difference = compare(wanted, given, labels_N)
        if math.isfinite(difference.cosine_mean):
            found.append(
                Attempt(
                    precision=form.precision,
                    floats=form.floats,
                    cpu_ms=cpu_ms,
                    difference=difference,
                    refusal=limits.refuse(difference),
                )
            )
    return tuple(found)


def _as_many(by_torch: ImageEncoder, images_NCHW: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Return the places of images, spread evenly, that torch needs no more than its time for."""
    probe_BCHW = images_NCHW[: min(BATCH, len(images_NCHW))]
    by_torch.encode(probe_BCHW)
    started = time.perf_counter()
    by_torch.encode(probe_BCHW)
    rate = len(probe_BCHW) / max(time.perf_counter() - started, 1e-9)
    count = min(len(images_NCHW), max(FEWEST, int(TORCH_S * rate)))
    return np.linspace(0, len(images_NCHW) - 1, count).astype(np.int64)


def _times(
    encoders: Sequence[ImageEncoder], images_NCHW: NDArray[np.uint8]
) -> list[dict[str, float]]:
    """Return milliseconds of one core for an image, by batch; the least of runs taken in turns."""
    found: list[dict[str, float]] = [{} for _ in encoders]
    for size in BATCHES:
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


def _exporter(precision: Precision) -> str:
    tools = ("torch", "onnx", *(("nncf",) if precision == "int8" else ()))
    return ", ".join(f"{tool} {version(tool)}" for tool in tools)
