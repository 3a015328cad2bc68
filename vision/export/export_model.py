"""A trained model and images in, its export for OpenVINO out: the quickest variant that holds.

`vision.export.variant_selection` finds it among the variants that this machine and the data allow.
"""

import hashlib
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Final

import torch

from vision.errors import ExportError
from vision.export.onnx_export import to_onnx
from vision.export.openvino_export import Graph
from vision.export.variant_selection import ExportImages, Variant, VariantSelection
from vision.inference.openvino_encoder import RUNTIME
from vision.inference.openvino_import import has_bf16
from vision.inference.torch_encoder import TorchEncoder
from vision.model.export_accuracy import LossLimits
from vision.model.export_folder import (
    Calibration,
    Export,
    ExportManifest,
    Precision,
    PrecisionOption,
    write_export,
)
from vision.networks.saved_model import load_model

CALIBRATING_TO_TIME: Final = 2  # images: the ranges of integers do not change how quick they are


def export_model(
    folder: Path,
    images: ExportImages,
    *,
    precision: PrecisionOption,
    limits: LossLimits,
    threads: int,
    report: Callable[[str], None] = lambda _: None,
) -> ExportManifest:
    """Write a model's export into its folder, in place of an older one, and return its manifest.

    ``auto`` times every precision that this machine and the data allow, and takes the quickest of
    those that lose no more than ``limits``. ``report`` is told what is being done.

    Raises:
        ModelFolderError: the model cannot be read, or its folder not be written.
        ExportError: the model cannot be exported, or every variant lost more than ``limits``.
    """
    torch.set_num_threads(threads)
    manifest, network = load_model(folder)
    report("writing the network as a graph")
    graph = Graph(to_onnx(manifest, network))
    selection = VariantSelection(
        _variants(graph, images, precision, report),
        graph,
        TorchEncoder(manifest, network, torch.device("cpu")),
        images,
        limits,
        threads=threads,
        report=report,
    )
    chosen = selection.run()
    if chosen is None or chosen.difference is None:
        refusals = "; ".join(
            f"{one.name}: {one.refusal}: {one.difference}" for one in selection.tried
        )
        raise ExportError(
            f"{folder} is not exported as {precision}: {refusals}"
            + ("" if precision in ("auto", "fp32") else "; --precision fp32 loses nothing")
        )
    variant = selection.variants[chosen.name]
    is_int8 = variant.precision == "int8"
    export = ExportManifest(
        runtime=RUNTIME,
        runtime_version=version("openvino"),
        exporter=_exporter(variant.precision),
        precision=variant.precision,
        full_precision_layers=graph.kept_layers() if is_int8 else (),
        model_fingerprint=manifest.fingerprint,
        model_sha256=hashlib.sha256(manifest.to_bytes()).hexdigest(),
        files={name: hashlib.sha256(data).hexdigest() for name, data in variant.files.items()},
        calibration=Calibration(data=images.data, images=len(images.calibration_NCHW))
        if is_int8
        else None,
        difference=chosen.difference,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        floats=variant.floats,
        batch=chosen.best_batch,
        tried=selection.tried,
    )
    write_export(folder, Export(export, dict(variant.files)))
    return export


def _variants(
    graph: Graph, images: ExportImages, asked: PrecisionOption, report: Callable[[str], None]
) -> list[Variant]:
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
    variants: list[Variant] = []
    if asked in ("auto", "fp32"):
        variants.append(Variant("fp32", "fp32", floats))
    if bf16 and asked in ("auto", "bf16"):
        variants.append(Variant("bf16", "bf16", floats))
    calibration = len(images.calibration_NCHW)
    if asked == "int8" or (asked == "auto" and calibration):
        for_good = asked == "int8"
        few = calibration if for_good else min(calibration, CALIBRATING_TO_TIME)
        report(f"calibrating 8-bit integers with {few:,} images")
        try:
            integers = graph.quantized_files(images.calibration_NCHW[:few])
        except ExportError as error:
            if for_good:
                raise
            report(str(error))
            return variants
        variants.append(Variant("int8", "fp32", integers, for_good))
        if bf16:
            variants.append(Variant("int8", "bf16", integers, for_good))
    return variants


def _exporter(precision: Precision) -> str:
    tools = ("torch", "onnx", *(("nncf",) if precision == "int8" else ()))
    return ", ".join(f"{tool} {version(tool)}" for tool in tools)
