"""A batch of pixels in, unit vectors and class probabilities out, by OpenVINO on the CPU.

Everything from scaling the pixels to the softmax is inside the exported network; but classes that
a model was given later are computed of its vectors, so that its export stays valid.

Shape suffixes: B images, C channels, H x W pixels.
"""

import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from vision.errors import ModelFolderError
from vision.inference.encoder import Encoding, Runtime
from vision.inference.openvino_import import core, has_bf16, openvino
from vision.model.export_folder import (
    ExportManifest,
    FloatPrecision,
    Precision,
    precision_name,
    read_export,
)
from vision.model.manifest import Manifest
from vision.model.vector_classifier import VectorClassifier, read_classifier

RUNTIME: Final = "openvino"  # the name of exports for it
NETWORK_SUFFIX: Final = ".xml"  # of OpenVINO's own format: the graph, and the weights
WEIGHTS_SUFFIX: Final = ".bin"
# Every batch size costs 5 to 30 ms when it is first seen. For a small network that is many times
# what the batch costs, and all sizes are seen in this time; for a large one it is nothing.
WARM_UP_S: Final = 0.5
# A `cnn` takes 60 µs an image in batches of 8, 55 of 16 and 61 of 32, a VGG-19 as long in all.
# OpenVINO keeps 1.5 to 8 MB for every size of batch that it has seen.
MOST_AT_ONCE: Final = 16
logger = logging.getLogger("lookalike.vision")


class OpenVinoEncoder:
    """An exported network, compiled for this CPU.

    Not for several threads at once: give it one lane. While it computes, other threads run.
    """

    device_name: Final = "cpu"

    def __init__(
        self,
        manifest: Manifest,
        files: Mapping[str, bytes],
        *,
        runtime: Runtime,
        floats: FloatPrecision,
        threads: int,
        batch_size: int = MOST_AT_ONCE,
        classes: VectorClassifier | None = None,
    ) -> None:
        """Compile the network that an export's ``files`` hold.

        Args:
            manifest: the model's.
            files: by name.
            runtime: as it is to be called.
            floats: in what numbers that are not small integers are computed.
            threads: that compute a batch together.
            batch_size: how many images a batch should have at most.
            classes: that answer in place of the network's own; None: there are none.

        Raises:
            ModelFolderError: they hold none that OpenVINO can run.
        """
        self.manifest = manifest
        self.runtime = runtime
        self.batch_size = batch_size
        self._classes = classes
        library, runs = openvino(), core()
        by_suffix = {Path(name).suffix: data for name, data in files.items()}
        try:
            network = runs.read_model(
                by_suffix[NETWORK_SUFFIX],
                library.Tensor(np.frombuffer(by_suffix[WEIGHTS_SUFFIX], np.uint8)),
            )
            compiled = runs.compile_model(network, "CPU", _settings(floats, threads))
        except (KeyError, RuntimeError) as error:
            raise ModelFolderError(f"OpenVINO cannot run this network: {error}") from error
        self._tensor = library.Tensor
        self._request = compiled.create_infer_request()

    @classmethod
    def load(cls, folder: Path, manifest: Manifest, *, threads: int) -> Self:
        """Return the encoder of the export that lies in a model folder, on ``threads`` threads.

        Raises:
            ModelFolderError: there is no export, it is damaged, or it is of another model.
        """
        export = read_export(folder, manifest, RUNTIME)
        runtime, floats = _as_here(export.manifest)
        if runtime.note is not None:
            logger.warning("%s: %s", folder, runtime.note)
        at_once = MOST_AT_ONCE
        if export.manifest.batch is not None:
            at_once = min(MOST_AT_ONCE, export.manifest.batch * threads)
        return cls(
            manifest,
            export.files,
            runtime=runtime,
            floats=floats,
            threads=threads,
            batch_size=at_once,
            classes=read_classifier(folder, manifest),
        )

    def encode(self, pixels_BCHW: NDArray[np.uint8]) -> Encoding:
        """Return vectors (B, D) and probabilities (B, L) of pixels (B, C, H, W), B at least 1."""
        # OpenVINO wants memory that it may write to, although it only reads.
        pixels_BCHW = np.require(pixels_BCHW, requirements=("C", "W"))
        self._request.set_input_tensor(self._tensor(pixels_BCHW, shared_memory=True))
        self._request.infer()
        # Copies: the next batch is written to the same memory.
        vectors_BD = self._request.get_output_tensor(0).data.copy()
        if self._classes is None:
            return Encoding(vectors_BD, self._request.get_output_tensor(1).data.copy())
        temperature = self.manifest.temperature
        return Encoding(vectors_BD, self._classes.probabilities(vectors_BD, temperature))

    def warm_up(self, batch_sizes: Sequence[int]) -> None:
        """Run batches of these sizes, then of those between them while half a second lasts."""
        between = range(min(batch_sizes), max(batch_sizes) + 1)
        started = time.monotonic()
        for batch_size in (*batch_sizes, *between):
            if batch_size not in batch_sizes and time.monotonic() - started > WARM_UP_S:
                break
            self.encode(np.zeros(self.manifest.preprocessing.batch_shape(batch_size), np.uint8))


def _as_here(export: ExportManifest) -> tuple[Runtime, FloatPrecision]:
    """Return what an export's network computes in on this machine."""
    if export.floats == "fp32" or has_bf16():
        runtime = Runtime(name=RUNTIME, precision=export.precision, difference=export.difference)
        return runtime, export.floats
    instead: Precision = "int8" if export.precision == "int8" else "fp32"
    measured = [one.difference for one in export.tried if one.name == instead]
    note = (
        f"exported as {precision_name(export.precision, export.floats)}, but this processor has no "
        f"bfloat16: computes in {instead}, slower and no less exactly; galleries stay valid"
    )
    difference = measured[0] if measured else None
    return Runtime(name=RUNTIME, precision=instead, difference=difference, note=note), "fp32"


def _settings(floats: FloatPrecision, threads: int) -> dict[str, object]:
    return {
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,
        "INFERENCE_NUM_THREADS": threads,
        # Workers would all choose the same core.
        "ENABLE_CPU_PINNING": False,
        # Said in any case: by itself OpenVINO takes bfloat16 wherever the processor has it, also
        # for an export that was measured in float32.
        "INFERENCE_PRECISION_HINT": "bf16" if floats == "bf16" else "f32",
    }
