"""Work for one GPU, in three queues that run beside each other; work in, marks of its end out."""

from collections.abc import Callable
from typing import Final, Literal, Protocol, cast, get_args

import torch

Queue = Literal["upload", "compute", "download"]
QUEUES: Final[tuple[Queue, ...]] = get_args(Queue)


class Mark(Protocol):
    """The end of a piece of work."""

    def synchronize(self) -> None:
        """Wait for it; other threads run meanwhile."""
        ...


class Queues(Protocol):
    """Where an encoder sends its work. Within a queue, work is done in order."""

    @property
    def device(self) -> torch.device:
        """On which the work is done."""
        ...

    def run(self, queue: Queue, work: Callable[[], object], *, after: Mark | None = None) -> Mark:
        """Append ``work``, to begin once ``after`` is reached; return the mark of its end."""
        ...

    def capture(self, work: Callable[[], object]) -> Callable[[], object]:
        """Return what does the same as ``work``, on the same memory, at less cost.

        Raises:
            RuntimeError: it cannot be done.
        """
        ...


class CudaQueues:
    """A stream per queue, so that copies run beside the network; graphs replay recorded work."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._streams: dict[Queue, torch.cuda.Stream] = {
            queue: torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
            for queue in QUEUES
        }
        with torch.cuda.device(device):
            self._pool = torch.cuda.graph_pool_handle()  # one, as only one graph runs at a time

    def run(
        self, queue: Queue, work: Callable[[], object], *, after: Mark | None = None
    ) -> torch.cuda.Event:
        """Append ``work``, to begin once ``after`` is reached; return the mark of its end."""
        stream = self._streams[queue]
        if after is not None:
            stream.wait_event(cast(torch.cuda.Event, after))  # all marks were made below
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
        stream = self._streams["compute"]
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
