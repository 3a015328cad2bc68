"""A batch of pixels in, unit vectors and class scores out, as fast as one GPU does it.

Shape suffixes: B images, C channels, H x W pixels, D vector width, L labels.
"""

import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Final, Self

import numpy as np
import torch
from numpy.typing import NDArray

from vision.errors import DeviceError, DeviceLostError
from vision.inference.cuda.batch_plan import most_in_memory, most_in_time
from vision.inference.cuda.buffers import BatchBuffers, InFlight
from vision.inference.cuda.computation import Computation
from vision.inference.cuda.failures import MemoryLimit, is_out_of_memory
from vision.inference.cuda.graph_recorder import GraphRecorder
from vision.inference.cuda.remembered_choice import GpuChoice, RememberedChoice, ShortPrecision
from vision.inference.cuda.streams import CudaStreams, Event, Streams
from vision.inference.encoder import Encoding, Runtime
from vision.inference.torch_encoder import pick_device
from vision.model.manifest import Manifest
from vision.networks.fusion import with_folded_normalisation, with_fused_relu
from vision.networks.network import Network
from vision.networks.precision import fastest_precision, in_precision
from vision.networks.saved_model import load_model

logger = logging.getLogger("lookalike.vision")
UNDER_WAY: Final = 2  # batches at once: one is copied while the other is computed
SHORT: Final[dict[torch.dtype, ShortPrecision]] = {
    torch.float32: "fp32",
    torch.bfloat16: "bf16",
    torch.float16: "fp16",
}
DTYPES: Final = {short: dtype for dtype, short in SHORT.items()}


class CudaEncoder:
    """A trained network on one GPU.

    A batch passes through memory that is there once and for all: pinned memory of the host, which
    the GPU copies by itself, and the input and output of the graphs. It is computed in turns of
    sizes that were recorded, as is quickest; the last one is padded, and what its padding holds is
    never looked at. Answers are copies. Before ``warm_up``, or where recording fails, the same work
    is launched piece by piece. Where memory runs out, turns are smaller, and larger ones are tried
    again later.

    Not for several threads at once: give it one lane. A process has its own context on the GPU
    (0.3 to 0.5 GB), its own weights and its own graphs; ``warm_up`` logs the size of the last two.
    """

    def __init__(
        self,
        manifest: Manifest,
        network: Network,
        precision: torch.dtype,
        streams: Streams,
        *,
        remembered: RememberedChoice | None = None,
        is_chosen: bool = False,
    ) -> None:
        """Take a network in evaluation mode on the device of ``streams``.

        Args:
            manifest: of the model.
            network: its features in ``precision``.
            precision: what they are computed in.
            streams: where work is sent.
            remembered: where to keep what is found out to be quickest.
            is_chosen: whether ``network`` is that already.
        """
        self.manifest = manifest
        self._device = streams.device
        self.device_name = str(self._device)
        self._precision = SHORT[precision]
        self.runtime = Runtime(name="torch", precision=self._precision)
        self.batch_size = most_in_memory(int(np.prod(manifest.preprocessing.batch_shape(1))))
        self._streams = streams
        self._remembered = remembered
        self._is_chosen = is_chosen
        self._compute = Computation(manifest, precision, self._device)
        self._fixed = BatchBuffers.empty(manifest, self.batch_size, self._device)
        self._places = deque(
            InFlight.empty(manifest, self.batch_size, self._device) for _ in range(UNDER_WAY)
        )
        self._lane = threading.Lock()  # of launches on the fixed memory, also by the graphs' thread
        self._graphs = GraphRecorder(self._compute, network, streams, self._fixed, self._lane)
        self._memory = MemoryLimit()
        self._tried = 0  # images in the turn that was begun last

    @classmethod
    def load(cls, folder: Path, *, device: str = "cuda") -> Self:
        """Return the encoder of a model folder on ``cuda`` or ``cuda:N``.

        Raises:
            ModelFolderError: the folder is missing, damaged, changed or of another version.
            DeviceError: there is no such GPU here, or it has no room for the model.
        """
        chosen = pick_device(device)
        if chosen.type != "cuda":
            raise DeviceError(f"device {device!r} is not a GPU")
        try:
            with ThreadPoolExecutor(1) as beside:  # the context takes as long as the model does
                woken = beside.submit(_wake, chosen)
                manifest, network = load_model(folder)
                woken.result()
            return cls._of_network(manifest, network, chosen)
        except RuntimeError as error:
            if is_out_of_memory(error):
                raise DeviceError(
                    f"{device} has no room for the model in {folder}; what is on that GPU already?"
                ) from error
            raise

    @classmethod
    def _of_network(cls, manifest: Manifest, network: Network, device: torch.device) -> Self:
        network = network.eval().to(device).to(memory_format=torch.channels_last)
        capability = torch.cuda.get_device_capability(device)
        remembered = RememberedChoice(
            manifest.fingerprint,
            torch.cuda.get_device_name(device),
            str(capability),
            torch.__version__,
            str(torch.backends.cudnn.version()),  # type: ignore[no-untyped-call]
        )
        choice = remembered.read()
        if choice is None:
            network, precision = fastest_precision(network, manifest.preprocessing, capability)
        else:
            network, precision = _as_chosen(network, choice)
        torch.cuda.synchronize(device)  # the streams do not wait for what was done outside of them
        return cls(
            manifest,
            network,
            precision,
            CudaStreams(device),
            remembered=remembered,
            is_chosen=choice is not None,
        )

    def encode(self, pixels_BCHW: NDArray[np.uint8]) -> Encoding:
        """Return vectors (B, D) and probabilities (B, L) of pixels (B, C, H, W), B at least 1.

        A row depends on its own image only. Batches of other sizes take other algorithms, so two
        vectors of one image may differ in the last bits of ``precision``.

        Raises:
            DeviceMemoryError: there is no memory left for even one image; later there may be.
            DeviceLostError: the GPU does not answer this process any more, which has to end.
        """
        under_way: deque[Callable[[], Encoding]] = deque()
        parts: list[Encoding] = []
        for start in range(0, len(pixels_BCHW), self.batch_size):
            if len(under_way) == UNDER_WAY:
                parts.append(under_way.popleft()())
            under_way.append(self.start(pixels_BCHW[start : start + self.batch_size]))
        parts.extend(finish() for finish in under_way)
        if len(parts) == 1:
            return parts[0]
        return Encoding(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))

    @torch.inference_mode()
    def start(self, pixels_BCHW: NDArray[np.uint8]) -> Callable[[], Encoding]:
        """Begin with a batch of at most ``batch_size`` images; return what waits for its answer.

        At most two are under way at once, and they are finished in the order in which they were
        begun. The pixels must stay as they are until then: should memory run out, they are read
        again. Both calls raise what ``encode`` raises.
        """
        place = self._places[-1]
        end: Event | None = None
        try:
            end = self._launch(place, pixels_BCHW)
        except RuntimeError as error:
            self._survive(error)
        self._places.rotate()  # not where that raised: the other place may be under way
        return partial(self._finish, place, pixels_BCHW, end)

    @torch.inference_mode()
    def _finish(
        self, place: InFlight, pixels_BCHW: NDArray[np.uint8], end: Event | None
    ) -> Encoding:
        while True:  # each failure for want of memory halves what is tried, or raises
            try:
                if end is None:
                    end = self._launch(place, pixels_BCHW)
                end.synchronize()
            except RuntimeError as error:
                self._survive(error)
                end = None
                continue
            count = len(pixels_BCHW)
            return Encoding(
                place.host.vectors_BD[:count].numpy().copy(),
                place.host.probabilities_BL[:count].numpy().copy(),
            )

    @torch.inference_mode()
    def warm_up(self, batch_sizes: Sequence[int]) -> None:
        """Record graphs for batches up to the largest of these: some now, the others in a thread.

        From now on ``batch_size`` is what a batch should have by the time that images take.
        """
        wanted = min(max(batch_sizes), self.batch_size)
        self._graphs.record_first(wanted)
        self.batch_size = most_in_time(self._graphs.seconds, self.batch_size)
        wanted = min(wanted, self.batch_size)
        for size in (1, wanted):
            self.encode(np.zeros(self.manifest.preprocessing.batch_shape(size), np.uint8))
        if self._device.type == "cuda":
            mebibytes = torch.cuda.memory_reserved(self._device) / 2**20
            logger.info("%s in %s: %d MiB", self._device, self.runtime.precision, mebibytes)
        self._graphs.start_rest(wanted, choose=not self._is_chosen, on_choice=self._remember)

    @property
    def recorded(self) -> set[int]:
        """Sizes of which there is a graph."""
        return set(self._graphs.replays)

    def finish_warm_up(self) -> None:
        """Come back when all graphs are recorded; to serve, there is no need to wait for them."""
        self._graphs.wait()

    def _remember(self, fuses_relu: bool) -> None:
        self._is_chosen = True
        if self._remembered is not None:
            self._remembered.write(GpuChoice(precision=self._precision, fuses_relu=fuses_relu))

    def _launch(self, place: InFlight, pixels_BCHW: NDArray[np.uint8]) -> Event:
        """Send a batch on its way through ``place``; return the end of that work."""
        count = len(pixels_BCHW)
        place.host.pixels_BCHW[:count].numpy()[...] = pixels_BCHW
        run = self._streams.run
        uploaded = run("upload", partial(place.upload, count))
        computed = run("compute", partial(self._run, place.device, count), after=uploaded)
        return run("download", partial(place.download, count), after=computed)

    def _run(self, batch: BatchBuffers, count: int) -> None:
        """Compute a batch that lies on the device, turn by turn, and put the answers there."""
        plan = self._graphs.plan(self._memory.most(self.batch_size))
        begun = 0
        while begun < count:
            self._tried = size = plan.turn(count - begun)
            rows = slice(begun, min(begun + size, count))
            length = rows.stop - rows.start
            with self._lane:
                self._fixed.pixels_BCHW[:length].copy_(batch.pixels_BCHW[rows])
                replay = self._graphs.replays.get(size)
                if replay is None:
                    self._compute(self._graphs.network, self._fixed, length)
                else:
                    replay()
                batch.vectors_BD[rows].copy_(self._fixed.vectors_BD[:length])
                batch.probabilities_BL[rows].copy_(self._fixed.probabilities_BL[:length])
            begun = rows.stop

    def _survive(self, error: RuntimeError) -> None:
        """See to it that what is left of a batch can be tried again, or say why it cannot.

        Raises:
            DeviceMemoryError, DeviceLostError: as ``encode``.
            RuntimeError: ``error``, where it is none of these.
        """
        if is_out_of_memory(error):
            self._streams.free_memory()
            smaller = self._memory.halve(self._tried)
            logger.warning(
                "the GPU has no memory for %d images at once: going on with %d",
                self._tried,
                smaller,
            )
        elif self._streams.is_lost():
            raise DeviceLostError(
                f"{self.device_name} does not answer any more: {error}"
            ) from error
        else:
            raise error


def _as_chosen(network: Network, choice: GpuChoice) -> tuple[Network, torch.dtype]:
    """Return the network as it was found to be quickest, and its precision."""
    precision = DTYPES[choice.precision]
    if precision is not torch.float32:
        network = in_precision(with_folded_normalisation(network), precision)
    return with_fused_relu(network) if choice.fuses_relu else network, precision


def _wake(device: torch.device) -> None:
    """Make this process's context on the GPU and load the libraries that networks use."""
    images_BCHW = torch.zeros(1, 8, 8, 8, device=device)
    weights_FCHW = torch.zeros(8, 8, 3, 3, device=device)
    maps_BFHW = torch.nn.functional.conv2d(images_BCHW, weights_FCHW)
    (maps_BFHW.flatten(1) @ maps_BFHW.flatten(1).T).item()
