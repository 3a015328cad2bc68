"""Work for one GPU, in streams that run beside each other; work in, events of its end out."""

from collections.abc import Callable
from typing import Final, Literal, Protocol, cast, get_args

import torch

from vision.inference.cuda.failures import is_out_of_memory

TIMINGS: Final = 3
StreamName = Literal["upload", "compute", "download", "record"]
STREAM_NAMES: Final[tuple[StreamName, ...]] = get_args(StreamName)


class Event(Protocol):
    """The end of a piece of work."""

    def synchronize(self) -> None:
        """Wait for it; other threads run meanwhile."""
        ...


class Streams(Protocol):
    """Where an encoder sends its work. Within a stream, work is done in order.

    ``record`` is for another thread than the others: graphs are made there while batches run.
    """

    @property
    def device(self) -> torch.device:
        """On which the work is done."""
        ...

    def run(
        self, name: StreamName, work: Callable[[], object], *, after: Event | None = None
    ) -> Event:
        """Append ``work`` to a stream, to begin once ``after`` is reached; return its end."""
        ...

    def capture(self, work: Callable[[], object]) -> Callable[[], object]:
        """Return what does the same as ``work``, on the same memory, at less cost.

        Raises:
            RuntimeError: it cannot be done.
        """
        ...

    def seconds(self, work: Callable[[], object]) -> float:
        """Return how long ``work`` takes in the stream ``compute``."""
        ...

    def free_memory(self) -> None:
        """Wait for all that is under way, then give back memory that is kept for later.

        Raises:
            RuntimeError: the device does not answer any more.
        """
        ...

    def is_lost(self) -> bool:
        """Say whether the device does not answer this process any more, and never will."""
        ...


class CudaStreams:
    """CUDA's own streams, so that copies run beside the network; graphs replay recorded work.

    Graphs share one pool of memory, as only one of them runs at a time; the pool holds nothing that
    outlives a run.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._streams: dict[StreamName, torch.cuda.Stream] = {
            name: torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
            for name in STREAM_NAMES
        }
        with torch.cuda.device(device):
            self._pool = torch.cuda.graph_pool_handle()

    def run(
        self, name: StreamName, work: Callable[[], object], *, after: Event | None = None
    ) -> torch.cuda.Event:
        """Append ``work`` to a stream, to begin once ``after`` is reached; return its end."""
        stream = self._streams[name]
        if after is not None:
            stream.wait_event(cast(torch.cuda.Event, after))  # all events were made below
        with torch.cuda.stream(stream):
            work()
        # A thread that waits sleeps: the cores have images to decode.
        event = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
        event.record(stream)
        return event

    def capture(self, work: Callable[[], object]) -> Callable[[], object]:
        """Return the replay of a CUDA graph of ``work``: one launch in place of hundreds.

        Raises:
            RuntimeError: it waits for the device, or its course depends on what is computed.
        """
        graph = torch.cuda.CUDAGraph()
        stream = self._streams["record"]
        with (
            torch.cuda.stream(stream),  # some versions of torch stay on it when recording fails
            torch.cuda.graph(
                graph,
                pool=self._pool,
                stream=stream,
                capture_error_mode="thread_local",  # other threads may use the GPU meanwhile
            ),
        ):
            work()
        return graph.replay

    def seconds(self, work: Callable[[], object]) -> float:
        """Return how long ``work`` takes in the stream ``compute``, the best of a few times."""
        stream = self._streams["compute"]
        times = []
        for _ in range(TIMINGS):
            start, end = (
                torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
                for _ in range(2)
            )
            start.record(stream)
            with torch.cuda.stream(stream):
                work()
            end.record(stream)
            end.synchronize()
            times.append(start.elapsed_time(end) / 1000)
        return float(min(times))

    def free_memory(self) -> None:
        """Wait for all that is under way, then give back memory that is kept for later.

        Raises:
            RuntimeError: the device does not answer any more.
        """
        torch.cuda.synchronize(self.device)
        torch.cuda.empty_cache()

    def is_lost(self) -> bool:
        """Say whether the device does not answer this process any more, and never will.

        After an illegal access, a hardware error or a lost device every later call fails, too.
        """
        try:
            torch.cuda.synchronize(self.device)
            torch.zeros(1, device=self.device).item()
        except RuntimeError as error:
            return not is_out_of_memory(error)
        return False
