"""Pixels in, a frozen backbone's features out, as quickly as this machine can compute them.

On a CPU many images go through OpenVINO, in float32: the same numbers as torch's up to rounding, in
a fraction of the time.

Shape suffixes: N images, B of them in a batch, C channels, H x W pixels, F features, W
ways to look at each.
"""

import logging
import warnings
from collections.abc import Callable, Iterator
from typing import Any, Final, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from files.resource_limits import usable_cores
from vision.image.preprocessing import Preprocessing
from vision.inference.openvino_import import core, openvino
from vision.networks.backbone import Backbone
from vision.networks.normalization import Normalization

# Tracing and compiling take OpenVINO some seconds, in which torch is through with so many images of
# 224 x 224 pixels.
FEW_PIXELS: Final = 150 * 224 * 224
PIXELS_AT_ONCE: Final = 400_000  # in a batch; more only leave the processor's caches
MOST_AT_ONCE: Final = 64

Progress = Callable[[int], None]  # images done


class FeatureEncoder(Protocol):
    """A backbone, ready to compute features of many images."""

    def encode(
        self, images_NCHW: NDArray[np.uint8], report: Progress = lambda _: None
    ) -> NDArray[np.float32]:
        """Return features (N, F) of pixels (N, C, H, W), in order; ``report`` is told how many."""
        ...


def feature_encoder(
    backbone: Backbone, preprocessing: Preprocessing, device: torch.device, *, images: int
) -> FeatureEncoder:
    """Return the quickest way to compute features of about so many ``images``."""
    quick = openvino_features(backbone, preprocessing, device, images=images)
    return quick or _TorchFeatures(backbone, preprocessing, device)


def openvino_features(
    backbone: Backbone, preprocessing: Preprocessing, device: torch.device, *, images: int
) -> FeatureEncoder | None:
    """Return OpenVINO's way to compute features of about so many ``images``.

    None where torch is quicker: on a GPU, for few images, and for what OpenVINO does not take.
    """
    if device.type != "cpu" or images * preprocessing.size**2 < FEW_PIXELS:
        return None
    try:
        return _OpenVinoFeatures(backbone, preprocessing)
    except Exception as error:  # of a tracer and a compiler anything may come
        logging.getLogger(__name__).info("OpenVINO does not take this network: %s", error)
        return None


class _TorchFeatures:
    def __init__(
        self, backbone: Backbone, preprocessing: Preprocessing, device: torch.device
    ) -> None:
        self._backbone = backbone.eval().to(device).to(memory_format=torch.channels_last)
        self._normalise = Normalization(preprocessing, device)
        self._device = device

    @torch.inference_mode()
    def encode(
        self, images_NCHW: NDArray[np.uint8], report: Progress = lambda _: None
    ) -> NDArray[np.float32]:
        features = [np.empty((0, self._backbone.width), np.float32)]
        done = 0
        for pixels_BCHW in _batches(images_NCHW):
            pixels = torch.from_numpy(pixels_BCHW).to(self._device)
            features.append(self._backbone(self._normalise(pixels)).float().cpu().numpy())
            done += len(pixels_BCHW)
            report(done)
        return np.concatenate(features)


class _OpenVinoFeatures:
    """Several requests at once, one for each core."""

    def __init__(self, backbone: Backbone, preprocessing: Preprocessing) -> None:
        self._width = backbone.width
        self._mirrored = backbone.mirrored
        cores = usable_cores()
        settings = {
            "PERFORMANCE_HINT": "THROUGHPUT",
            "NUM_STREAMS": cores,
            "INFERENCE_NUM_THREADS": cores,
            "INFERENCE_PRECISION_HINT": "f32",
        }
        compiled = core().compile_model(_graph(backbone, preprocessing), "CPU", settings)
        self._requests = openvino().AsyncInferQueue(compiled, cores)

    def encode(
        self, images_NCHW: NDArray[np.uint8], report: Progress = lambda _: None
    ) -> NDArray[np.float32]:
        ways = (1, -1) if self._mirrored else (1,)  # of reading a row of pixels
        features_WNF = np.empty((len(ways), len(images_NCHW), self._width), np.float32)
        done = 0

        def keep(request: Any, place: tuple[int, slice]) -> None:
            nonlocal done
            way, rows = place
            features_WNF[way, rows] = request.get_output_tensor(0).data  # a place of its own
            done += rows.stop - rows.start
            report(done // len(ways))

        self._requests.set_callback(keep)
        start = 0
        for pixels_BCHW in _batches(images_NCHW):
            rows = slice(start, start + len(pixels_BCHW))
            for way, step in enumerate(ways):
                pixels = np.ascontiguousarray(pixels_BCHW[..., ::step])
                self._requests.start_async({0: pixels}, (way, rows))
            start = rows.stop
        self._requests.wait_all()
        mean_NF: NDArray[np.float32] = features_WNF.mean(axis=0)
        return mean_NF


class _PixelFeatures(nn.Module):
    """A backbone from pixels on, of pictures as they are."""

    def __init__(self, backbone: Backbone, preprocessing: Preprocessing) -> None:
        super().__init__()
        self.backbone = backbone.without_mirroring()
        self.normalise = Normalization(preprocessing, torch.device("cpu"))

    def forward(self, pixels_BCHW: Tensor) -> Tensor:
        features_BF: Tensor = self.backbone(self.normalise(pixels_BCHW))
        return features_BF


def _graph(backbone: Backbone, preprocessing: Preprocessing) -> Any:
    """Return OpenVINO's graph of a backbone on the CPU, for batches of any size."""
    library = openvino()
    from openvino.frontend.pytorch.ts_decoder import (  # noqa: PLC0415 - only where it is used
        TorchScriptPythonDecoder,
    )

    side = preprocessing.size
    pixels = torch.zeros((2, preprocessing.channels, side, side), dtype=torch.uint8)
    frontend = library.frontend.FrontEndManager().load_by_framework("pytorch")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the tracer's, about constants
        decoder = TorchScriptPythonDecoder(
            _PixelFeatures(backbone.cpu(), preprocessing).eval(), example_input=(pixels,)
        )
        graph = frontend.convert(frontend.load(decoder))
    graph.reshape({0: library.PartialShape([-1, preprocessing.channels, side, side])})
    return graph


def _batches(images_NCHW: NDArray[np.uint8]) -> Iterator[NDArray[np.uint8]]:
    side = images_NCHW.shape[-1]
    size = max(1, min(MOST_AT_ONCE, PIXELS_AT_ONCE // side**2))
    for start in range(0, len(images_NCHW), size):
        yield np.ascontiguousarray(images_NCHW[start : start + size])
