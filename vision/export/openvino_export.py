"""A network as ONNX in, as OpenVINO's own out: in floating point, or on 8-bit integers.

Shape suffixes: N images, C channels, H x W pixels.
"""

import logging
import os
import tempfile
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from vision.errors import ExportError
from vision.export.onnx_export import FEATURES
from vision.inference.openvino_encoder import NETWORK_SUFFIX, WEIGHTS_SUFFIX
from vision.inference.openvino_import import core, nncf, openvino
from vision.model.export_folder import content_name

# What has weights. Convolutions of one channel each are not put on integers: OpenVINO computes them
# in floating point all the same, so that they would lose exactness and gain nothing.
DEPTHWISE: Final = "GroupConvolution"
WEIGHTED: Final = ("Convolution", "MatMul", DEPTHWISE)
WITHOUT_NUMBERS: Final = ("Constant", "Parameter", "Result")


class Graph:
    """A network that OpenVINO has read, and the part of it that integers are too coarse for."""

    def __init__(self, onnx: bytes) -> None:
        """Read what ``to_onnx`` wrote.

        Raises:
            ExportError: OpenVINO cannot read it.
        """
        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder) / "network.onnx"
            source.write_bytes(onnx)
            try:
                self._network = core().read_model(source)
            except RuntimeError as error:
                raise ExportError(
                    f"OpenVINO cannot read the network: {str(error).splitlines()[-1]}"
                ) from error
        self.kept = _kept(self._network)  # by name
        for output in self._network.outputs:
            if FEATURES in output.names:
                self._network.remove_result(output.node)

    def kept_layers(self) -> tuple[str, ...]:
        """Return the layers with weights among those that stay in floating point."""
        kept = set(self.kept)
        return tuple(
            node.get_friendly_name()
            for node in self._network.get_ordered_ops()
            if node.get_type_name() in WEIGHTED and node.get_friendly_name() in kept
        )

    def files(self) -> dict[str, bytes]:
        """Return the network in OpenVINO's own format, which is quick to load."""
        return _files(self._network)

    def quantized_files(self, images_NCHW: NDArray[np.uint8]) -> dict[str, bytes]:
        """Return it with the layers that are not ``kept`` on 8-bit integers.

        The images decide the ranges of activations; biases are corrected layer by layer for what
        the weights have lost (Nagel et al. 2019, "Data-Free Quantization", section 4.2).

        Raises:
            ExportError: it cannot be quantized.
        """
        tools = nncf()
        ranges = tools.quantization.range_estimator
        data = tools.Dataset([image_CHW[np.newaxis] for image_CHW in images_NCHW])
        with Path(os.devnull).open("w") as nowhere, redirect_stdout(nowhere):  # its progress bars
            logging.disable(logging.WARNING)  # torch's, about compilers that nothing here needs
            try:
                integers = tools.quantize(
                    self._network,
                    data,
                    preset=tools.QuantizationPreset.MIXED,
                    subset_size=len(images_NCHW),
                    fast_bias_correction=False,
                    advanced_parameters=tools.AdvancedQuantizationParameters(
                        # the whole range that the images reach, not its mean over them
                        activations_range_estimator_params=ranges.RangeEstimatorParametersSet.MINMAX
                    ),
                    ignored_scope=tools.IgnoredScope(names=list(self.kept)),
                )
            except Exception as error:  # the library raises whatever it comes upon
                reason = str(error).strip().splitlines()[:1]
                raise ExportError(
                    f"the network cannot be quantized: {type(error).__name__}: {''.join(reason)}"
                ) from error
            finally:
                logging.disable(logging.NOTSET)
        return _files(integers)


def _kept(network: Any) -> tuple[str, ...]:
    """Return the nodes that stay in floating point.

    That is the head (all that reads the features), what lies between the last layers with weights
    and the features (means, scaling to unit length), and depthwise convolutions.
    """
    (features,) = [out.node for out in network.outputs if FEATURES in out.names]
    end = _name(features.input_value(0).node)
    leads_to_weights: dict[str, bool] = {}
    head: set[str] = set()
    nodes = list(network.get_ordered_ops())
    reads: dict[str, Sequence[Any]] = {_name(node): _readers(node) for node in nodes}
    waiting = list(reads[end])
    while waiting:
        node = waiting.pop()
        if _name(node) not in head:
            head.add(_name(node))
            waiting.extend(reads[_name(node)])
    for node in reversed(nodes):
        leads_to_weights[_name(node)] = any(
            reader.get_type_name() in WEIGHTED or leads_to_weights[_name(reader)]
            for reader in reads[_name(node)]
            if _name(reader) not in head
        )
    return tuple(
        _name(node)
        for node in nodes
        if node.get_type_name() not in WITHOUT_NUMBERS
        and (
            _name(node) in head
            or node.get_type_name() == DEPTHWISE
            or not (leads_to_weights[_name(node)] or node.get_type_name() in WEIGHTED)
        )
    )


def _readers(node: Any) -> Sequence[Any]:
    return [one.get_node() for output in node.outputs() for one in output.get_target_inputs()]


def _name(node: Any) -> str:
    name: str = node.get_friendly_name()
    return name


def _files(network: Any) -> dict[str, bytes]:
    with tempfile.TemporaryDirectory() as folder:
        openvino().save_model(network, Path(folder) / "network.xml", compress_to_fp16=False)
        files = [
            ((Path(folder) / f"network{suffix}").read_bytes(), suffix)
            for suffix in (NETWORK_SUFFIX, WEIGHTS_SUFFIX)
        ]
    return {content_name(data, suffix): data for data, suffix in files}
