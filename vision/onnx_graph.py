"""A trained network in, the same network as ONNX out, and with its layers on small integers.

The graph goes from pixels as they come to vectors and calibrated probabilities: scaling before and
softmax behind the network are part of it.

Shape suffixes: N images, B of them in a batch, C channels, H x W pixels.
"""

import logging
import os
import tempfile
import warnings
from pathlib import Path
from types import ModuleType
from typing import Any, Final, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from vision.errors import ExportError
from vision.manifest import Manifest
from vision.network import Network
from vision.normalisation import Normalisation

INPUT: Final = "pixels"
OUTPUTS: Final = ("vectors", "probabilities")
TRACED: Final = 2  # images of the batch that is traced; 1 would be taken for a constant
WEIGHTED: Final = ("Conv", "Gemm", "MatMul")
# What lies between convolutions and is as exact on small integers; where it is not quantized too,
# every one of these goes to floating point and back.
BETWEEN: Final = (
    "Add",
    "MaxPool",
    "AveragePool",
    "GlobalAveragePool",
    "ReduceMean",
    "Relu",
    "Clip",
)


def to_onnx(manifest: Manifest, network: Network) -> bytes:
    """Return ``network`` (on the CPU) from pixels (B, C, H, W) to vectors and probabilities.

    Raises:
        ExportError: torch cannot write it as ONNX.
    """
    preprocessing = manifest.preprocessing
    shape = (TRACED, preprocessing.channels, preprocessing.size, preprocessing.size)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the exporter's, about itself
            program: Any = torch.onnx.export(
                _Whole(manifest, network).eval(),
                (torch.zeros(shape, dtype=torch.uint8),),
                input_names=[INPUT],
                output_names=list(OUTPUTS),
                dynamic_shapes=[{0: "batch"}],
                dynamo=True,
                verbose=False,
            )
        with tempfile.TemporaryDirectory() as folder:
            program.save(Path(folder) / "network.onnx")
            return (Path(folder) / "network.onnx").read_bytes()
    except Exception as error:  # of torch's many compilers anything may come
        raise ExportError(
            f"{manifest.architecture.network} cannot be exported: {_first_line(error)}"
        ) from error


def quantized(network: bytes, images_NCHW: NDArray[np.uint8], *, kept: tuple[str, ...]) -> bytes:
    """Return an ONNX network whose layers compute with 8-bit integers, but those named ``kept``.

    Weights get a scale per channel, activations one per tensor, from the least to the greatest
    number that they reach on ``images_NCHW``.

    Raises:
        ExportError: it cannot be quantized.
    """
    tools = _quantization()
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "source.onnx", Path(folder) / "target.onnx"
        source.write_bytes(network)
        logging.disable(logging.WARNING)  # advice to shrink the graph, which OpenVINO does
        try:
            tools.quantize_static(
                source,
                target,
                _Images(images_NCHW),
                quant_format=tools.QuantFormat.QDQ,
                op_types_to_quantize=[*WEIGHTED, *BETWEEN],
                nodes_to_exclude=list(kept),
                per_channel=True,
                activation_type=tools.QuantType.QUInt8,
                weight_type=tools.QuantType.QInt8,
            )
        except Exception as error:  # the library raises whatever it comes upon
            raise ExportError(f"the network cannot be quantized: {_first_line(error)}") from error
        finally:
            logging.disable(logging.NOTSET)
        return target.read_bytes()


def sensitive_layers(network: bytes) -> tuple[str, ...]:
    """Return the nodes to keep in floating point first: the first convolution and dense layers."""
    import onnx  # noqa: PLC0415 - slow, and for exports only

    nodes = onnx.load_from_string(network).graph.node
    convolutions = [node.name for node in nodes if node.op_type == "Conv"]
    return (*convolutions[:1], *(node.name for node in nodes if node.op_type in ("Gemm", "MatMul")))


class _Whole(nn.Module):
    """Everything between an image's pixels and what is said of it."""

    def __init__(self, manifest: Manifest, network: Network) -> None:
        super().__init__()
        self.network = network
        self.normalise = Normalisation(manifest.preprocessing, torch.device("cpu"))
        self.temperature = manifest.temperature

    def forward(self, pixels_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        vectors_BD, logits_BL = self.network(self.normalise(pixels_BCHW))
        return vectors_BD, torch.softmax(logits_BL / self.temperature, dim=1)


class _Images:
    """Gives the calibration one image after the other, as ONNX Runtime asks for them."""

    def __init__(self, images_NCHW: NDArray[np.uint8]) -> None:
        self._images = iter(images_NCHW)

    def get_next(self) -> dict[str, NDArray[np.uint8]] | None:
        image_CHW = next(self._images, None)
        return None if image_CHW is None else {INPUT: np.ascontiguousarray(image_CHW[np.newaxis])}


def _quantization() -> ModuleType:
    """Return ONNX Runtime's tools, told not to report their use to their makers."""
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # it is read when the library is loaded
    import onnxruntime.quantization as tools  # noqa: PLC0415 - for exports only

    return cast(ModuleType, tools)


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error) else ''}"
