"""A batch of pixels in, unit vectors and class scores out, as fast as one GPU does it.

Shape suffixes: B images, C channels, H x W pixels, D vector width, L labels.
"""

import logging
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray

from vision.errors import DeviceError
from vision.inference.cuda_streams import CudaStreams, Event, Streams
from vision.inference.encoder import Encoding, Runtime
from vision.inference.torch_encoder import pick_device
from vision.model.manifest import Manifest
from vision.networks.network import Network
from vision.networks.normalization import Normalization
from vision.networks.precision import fastest_precision, run_network
from vision.networks.saved_model import load_model

logger = logging.getLogger("lookalike.vision")
SIZES: Final = (1, 2, 4, 8, 16, 32)  # batches that are recorded as graphs
LARGEST: Final = SIZES[-1]  # more images than this go in turns
TURNS: Final = 2  # under way at once: one is copied while the other is computed
SHORT: Final = {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}
WARM_UPS: Final = 3  # libraries choose their algorithms in the first runs; a graph keeps the choice


class CudaEncoder:
    """A trained network on one GPU.

    A batch passes through memory that is there once and for all: pinned memory of the host, which
    the GPU copies by itself, and the input and output of the graphs. It is padded to the next size
    that was recorded; what the rows after its own hold is never looked at. Answers are copies.
    Before ``warm_up``, or where recording fails, the same work is launched piece by piece.

    Not for several threads at once: give it one lane. A process has its own context on the GPU
    (0.3 to 0.5 GB), its own weights and its own graphs; ``warm_up`` logs the size of the last two.
    """

    batch_size: Final = LARGEST

    def __init__(
        self, manifest: Manifest, network: Network, precision: torch.dtype, streams: Streams
    ) -> None:
        """Take a network in evaluation mode on the device of ``streams``."""
        self.manifest = manifest
        self._device = streams.device
        self.device_name = str(self._device)
        self.runtime = Runtime(name="torch", precision=SHORT[precision])
        self._precision = precision
        self._network = network
        self._streams = streams
        self._normalise = Normalization(manifest.preprocessing, self._device)
        self._fixed = _Batch.empty(manifest, self._device)  # what graphs read and write
        self._turns = [_InFlight.empty(manifest, self._device) for _ in range(TURNS)]
        self._replays: dict[int, Callable[[], object]] = {}  # by number of images

    @classmethod
    def load(cls, folder: Path, *, device: str = "cuda") -> Self:
        """Return the encoder of a model folder on ``cuda`` or ``cuda:N``.

        Raises:
            ModelFolderError: the folder is missing, damaged, changed or of another version.
            DeviceError: there is no such GPU here.
        """
        chosen = pick_device(device)
        if chosen.type != "cuda":
            raise DeviceError(f"device {device!r} is not a GPU")
        manifest, network = load_model(folder)
        network = network.eval().to(chosen).to(memory_format=torch.channels_last)
        capability = torch.cuda.get_device_capability(chosen)
        network, precision = fastest_precision(network, manifest.preprocessing, capability)
        torch.cuda.synchronize(chosen)  # the streams do not wait for what was done outside of them
        return cls(manifest, network, precision, CudaStreams(chosen))

    @torch.inference_mode()
    def encode(self, pixels_BCHW: NDArray[np.uint8]) -> Encoding:
        """Return vectors (B, D) and probabilities (B, L) of pixels (B, C, H, W), B at least 1.

        A row depends on its own image only. Batches of other sizes take other algorithms, so two
        vectors of one image may differ in the last bits of ``precision``.
        """
        count = len(pixels_BCHW)
        vectors_BD = np.empty((count, self.manifest.architecture.width), np.float32)
        probabilities_BL = np.empty((count, len(self.manifest.labels)), np.float32)
        under_way: deque[tuple[slice, _Batch, Event]] = deque()

        def collect() -> None:
            rows, host, end = under_way.popleft()
            end.synchronize()
            length = rows.stop - rows.start
            vectors_BD[rows] = host.vectors_BD[:length].numpy()
            probabilities_BL[rows] = host.probabilities_BL[:length].numpy()

        for number, start in enumerate(range(0, count, LARGEST)):
            if len(under_way) == TURNS:
                collect()
            rows = slice(start, min(start + LARGEST, count))
            turn = self._turns[number % TURNS]
            under_way.append((rows, turn.host, self._start(turn, pixels_BCHW[rows])))
        while under_way:
            collect()
        return Encoding(vectors_BD, probabilities_BL)

    @torch.inference_mode()
    def warm_up(self, batch_sizes: Sequence[int]) -> None:
        """Record a graph for every size that batches up to the largest of these are padded to."""
        largest = padded(min(max(batch_sizes), LARGEST))
        with _search_for_algorithms():
            try:
                for size in reversed([size for size in SIZES if size <= largest]):
                    work = partial(self._compute, size)
                    for _ in range(WARM_UPS):
                        self._streams.run("compute", work).synchronize()
                    self._replays[size] = self._streams.capture(work)
            except RuntimeError as error:
                self._replays.clear()
                logger.warning("no CUDA graphs, operations are launched one by one: %s", error)
        for size in (1, largest):
            self.encode(np.zeros((size, *self._fixed.pixels_BCHW.shape[1:]), np.uint8))
        if self._device.type == "cuda":
            mebibytes = torch.cuda.memory_reserved(self._device) / 2**20
            logger.info("%s in %s: %d MiB", self._device, self.runtime.precision, mebibytes)

    def _start(self, turn: "_InFlight", pixels_BCHW: NDArray[np.uint8]) -> Event:
        """Send up to ``LARGEST`` images on their way; return the end of that work."""
        count = len(pixels_BCHW)
        turn.host.pixels_BCHW[:count].numpy()[...] = pixels_BCHW
        run = self._streams.run
        uploaded = run("upload", partial(turn.upload, count))
        computed = run("compute", partial(self._run, turn.device, count), after=uploaded)
        return run("download", partial(turn.download, count), after=computed)

    def _run(self, batch: "_Batch", count: int) -> None:
        """Compute a batch that lies on the device, and put the answer there."""
        self._fixed.pixels_BCHW[:count].copy_(batch.pixels_BCHW[:count])
        replay = self._replays.get(padded(count))
        if replay is None:
            self._compute(count)
        else:
            replay()
        batch.vectors_BD[:count].copy_(self._fixed.vectors_BD[:count])
        batch.probabilities_BL[:count].copy_(self._fixed.probabilities_BL[:count])

    def _compute(self, count: int) -> None:
        """Fill the first rows of the fixed answer from those of the fixed input."""
        normalised_BCHW = self._normalise(self._fixed.pixels_BCHW[:count])
        vectors_BD, logits_BL = run_network(self._network, normalised_BCHW, self._precision)
        self._fixed.vectors_BD[:count] = vectors_BD
        self._fixed.probabilities_BL[:count] = torch.softmax(
            logits_BL / self.manifest.temperature, dim=1
        )


def padded(count: int) -> int:
    """Return the recorded size for ``count`` images, 1 to ``LARGEST``."""
    return next(size for size in SIZES if size >= count)


class _Batch(NamedTuple):
    """Room for ``LARGEST`` images and their answers."""

    pixels_BCHW: torch.Tensor  # uint8
    vectors_BD: torch.Tensor  # float32
    probabilities_BL: torch.Tensor  # float32

    @classmethod
    def empty(cls, manifest: Manifest, device: torch.device, *, pinned: bool = False) -> Self:
        def room(shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
            return torch.empty(shape, dtype=dtype, device=device, pin_memory=pinned)

        return cls(
            room(manifest.preprocessing.batch_shape(LARGEST), torch.uint8),
            room((LARGEST, manifest.architecture.width), torch.float32),
            room((LARGEST, len(manifest.labels)), torch.float32),
        )


class _InFlight(NamedTuple):
    """What belongs to one batch under way: the same on the host and on the device."""

    host: _Batch
    device: _Batch

    @classmethod
    def empty(cls, manifest: Manifest, device: torch.device) -> Self:
        host = _Batch.empty(manifest, torch.device("cpu"), pinned=device.type == "cuda")
        return cls(host, _Batch.empty(manifest, device))

    def upload(self, count: int) -> None:
        self.device.pixels_BCHW[:count].copy_(self.host.pixels_BCHW[:count], non_blocking=True)

    def download(self, count: int) -> None:
        self.host.vectors_BD[:count].copy_(self.device.vectors_BD[:count], non_blocking=True)
        self.host.probabilities_BL[:count].copy_(
            self.device.probabilities_BL[:count], non_blocking=True
        )


@contextmanager
def _search_for_algorithms() -> Iterator[None]:
    """Let cuDNN measure its algorithms for every shape that is new, and keep the quickest."""
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = True
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before
