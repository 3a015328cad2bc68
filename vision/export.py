"""A trained model and images in, its export for OpenVINO out, measured against torch.

Shape suffixes: N images, C channels, H x W pixels, D vector width, L labels.
"""

import hashlib
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from vision.encoder import Encoder
from vision.encoding import Encoding, Runtime, encode_all
from vision.errors import ExportError
from vision.exported import (
    Calibration,
    Difference,
    Export,
    ExportManifest,
    Precision,
    named_after_content,
    write_export,
)
from vision.model import load_model
from vision.onnx_graph import quantized, sensitive_layers, to_onnx
from vision.openvino_encoder import NETWORK_SUFFIX, RUNTIME, WEIGHTS_SUFFIX, OpenVinoEncoder
from vision.openvino_library import openvino

BATCH: Final = 32  # images compared at once
LOW_PERCENTILE: Final = 1  # of the cosines, kept beside mean and minimum


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """Images of a model's data: some to calibrate with, others, labelled, to measure with."""

    data: str  # its name
    calibration_NCHW: NDArray[np.uint8]  # of the training part
    test_NCHW: NDArray[np.uint8]
    labels_N: NDArray[np.int64]  # of the test images


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What an export may lose."""

    min_cosine: float = 0.99  # mean over the images
    max_accuracy_loss: float = 0.003  # share of the images

    def refuse(self, difference: Difference) -> str | None:
        """Return why a network with this difference is refused; None: it is not."""
        if not difference.cosine_mean >= self.min_cosine:
            return f"the mean cosine is below {self.min_cosine}"
        if not difference.accuracy_loss <= self.max_accuracy_loss:
            return f"it loses more than {100 * self.max_accuracy_loss:g} points of accuracy"
        return None


def export_model(
    folder: Path,
    sample: Sample,
    *,
    precision: Precision,
    limits: Limits,
    threads: int,
    report: Callable[[str], None] = lambda _: None,
) -> ExportManifest:
    """Write a model's export into its folder, in place of an older one, and return its manifest.

    Small integers that lose too much are tried again with the most sensitive layers kept in
    floating point. ``report`` is told what is being done.

    Raises:
        ModelFolderError: the model cannot be read, or its folder not be written.
        ExportError: the model cannot be exported, or every attempt lost more than ``limits``.
    """
    torch.set_num_threads(threads)
    manifest, network = load_model(folder)
    report("writing the network as a graph")
    graph = to_onnx(manifest, network)
    report(f"measuring torch on {len(sample.test_NCHW):,} images")
    by_torch = Encoder(manifest, network, torch.device("cpu"))
    wanted = encode_all(by_torch, sample.test_NCHW, batch=BATCH)

    refusals: list[str] = []
    for attempt, kept in _attempts(graph, sample, precision):
        report(f"measuring {precision} with OpenVINO")
        files = openvino_files(attempt)
        encoder = OpenVinoEncoder(
            manifest, files, runtime=Runtime(name=RUNTIME, precision=precision), threads=threads
        )
        given = encode_all(encoder, sample.test_NCHW, batch=BATCH)
        difference = compare(wanted, given, sample.labels_N)
        refusal = limits.refuse(difference)
        if refusal is None:
            export = ExportManifest(
                runtime=RUNTIME,
                runtime_version=version("openvino"),
                exporter=_exporter(precision),
                precision=precision,
                full_precision_layers=kept,
                model_fingerprint=manifest.fingerprint,
                model_sha256=hashlib.sha256(manifest.to_bytes()).hexdigest(),
                files={name: hashlib.sha256(data).hexdigest() for name, data in files.items()},
                calibration=Calibration(data=sample.data, images=len(sample.calibration_NCHW))
                if precision == "int8"
                else None,
                difference=difference,
                created=datetime.now(UTC).isoformat(timespec="seconds"),
            )
            write_export(folder, Export(export, files))
            return export
        refusals.append(f"{refusal}: {difference}")
    raise ExportError(
        f"{folder} is not exported as {precision}, "
        + "; with its most sensitive layers in fp32, ".join(refusals)
        + ("; --precision fp32 loses nothing" if precision == "int8" else "")
    )


def compare(wanted: Encoding, given: Encoding, labels_N: NDArray[np.int64]) -> Difference:
    """Return how far ``given`` is from ``wanted``, torch's, on images with these labels."""
    cosines_N = np.einsum("nd,nd->n", wanted.vectors_BD, given.vectors_BD, dtype=np.float64)
    right_N, right_wanted_N = (
        encoding.probabilities_BL.argmax(axis=1) == labels_N for encoding in (given, wanted)
    )
    return Difference(
        images=len(labels_N),
        cosine_mean=float(cosines_N.mean()),
        cosine_low=float(np.percentile(cosines_N, LOW_PERCENTILE)),
        cosine_min=float(cosines_N.min()),
        accuracy_torch=float(right_wanted_N.mean()),
        accuracy=float(right_N.mean()),
        lost=int((right_wanted_N & ~right_N).sum()),
        won=int((right_N & ~right_wanted_N).sum()),
    )


def _attempts(
    graph: bytes, sample: Sample, precision: Precision
) -> Iterator[tuple[bytes, tuple[str, ...]]]:
    """Give networks to try, the quickest first, and the layers that they keep in fp32."""
    if precision == "fp32":
        yield graph, ()
        return
    for kept in ((), sensitive_layers(graph)):
        yield quantized(graph, sample.calibration_NCHW, kept=kept), kept


def openvino_files(graph: bytes) -> dict[str, bytes]:
    """Return an ONNX network in OpenVINO's own format, which is quicker to load."""
    library = openvino()
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "network.onnx"
        source.write_bytes(graph)
        try:
            network = library.Core().read_model(source)
            library.save_model(network, Path(folder) / "network.xml", compress_to_fp16=False)
        except RuntimeError as error:
            raise ExportError(
                f"OpenVINO cannot read the network: {str(error).splitlines()[-1]}"
            ) from error
        files = [
            ((Path(folder) / f"network{suffix}").read_bytes(), suffix)
            for suffix in (NETWORK_SUFFIX, WEIGHTS_SUFFIX)
        ]
    return {named_after_content(data, suffix): data for data, suffix in files}


def _exporter(precision: Precision) -> str:
    tools = ("torch", "onnx", *(("onnxruntime",) if precision == "int8" else ()))
    return ", ".join(f"{tool} {version(tool)}" for tool in tools)
