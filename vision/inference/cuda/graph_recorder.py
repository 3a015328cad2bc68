"""CUDA graphs of a network for batches of some sizes: the first at once, the others beside serving.

A graph is one launch in place of hundreds. To record one, cuDNN's algorithms are chosen before: for
the first graphs by its rules, which is quick, and for all others by measuring, in a thread of its
own. (cuDNN's choices are kept per thread, so the first ones are measured again there.) That thread
also finds out whether convolutions that do the ReLU behind them are quicker on this GPU.
"""

import atexit
import logging
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Final

import numpy as np
import torch

from vision.inference.cuda.batch_plan import BatchPlan, padded, pays
from vision.inference.cuda.buffers import BatchBuffers
from vision.inference.cuda.computation import Computation
from vision.inference.cuda.failures import is_out_of_memory
from vision.inference.cuda.streams import Streams
from vision.networks.fusion import with_fused_relu
from vision.networks.network import Network
from vision.networks.precision import MIN_COSINE, PROBES

logger = logging.getLogger("lookalike.vision")
FIRST: Final = (1, 8, 32)  # sizes that are recorded before the first request
REST: Final = (32, 64, 128, 256, 16, 8, 4, 2, 1)  # in which order the others follow
WARM_UPS: Final = 2  # libraries choose their algorithms in the first runs; a graph keeps the choice
QUICKER: Final = 0.98  # of the time, or a variant is not taken
POISON: Final = 2**26  # numbers that are none, put where a variant's results will lie


class GraphRecorder:
    """Records graphs, and knows which there are and how long each takes."""

    def __init__(
        self,
        compute: Computation,
        network: Network,
        streams: Streams,
        fixed: BatchBuffers,
        lane: threading.Lock,
    ) -> None:
        """Take what graphs are made of.

        Args:
            compute: the work to record.
            network: what it is done with, at first.
            streams: on which it is done.
            fixed: the memory that graphs read and write.
            lane: held by whoever launches work on that memory.
        """
        self.network = network
        self.replays: dict[int, Callable[[], object]] = {}  # by number of images
        self.seconds: dict[int, float] = {}  # that each takes
        self._planned: tuple[dict[int, float], int, BatchPlan] | None = None  # the last plan
        self._compute = compute
        self._streams = streams
        self._fixed = fixed
        self._lane = lane
        self._is_recorded = threading.Event()
        self._is_recorded.set()  # nothing was begun
        self._is_stopping = False

    def plan(self, most: int) -> BatchPlan:
        """Return how batches are cut into turns of at most ``most`` images."""
        seconds = self.seconds
        if self._planned is None or self._planned[0] is not seconds or self._planned[1] != most:
            self._planned = seconds, most, BatchPlan(seconds, most=most)
        return self._planned[2]

    @torch.inference_mode()
    def record_first(self, largest: int) -> None:
        """Record what the first batches of up to ``largest`` images need; on failure, nothing."""
        top = padded(largest)
        sizes = {size for size in FIRST if size <= top} | {min(top, FIRST[-1])}
        try:
            for size in sorted(sizes):
                self._take(size, self._record(self.network, size))
        except RuntimeError as error:
            if is_out_of_memory(error) and self.replays:
                self._streams.free_memory()
                logger.warning("the GPU has no memory for more CUDA graphs: %s", error)
                return
            self.replays.clear()
            self.seconds = {}
            logger.warning("no CUDA graphs, operations are launched one by one: %s", error)

    def start_rest(self, largest: int, *, choose: bool, on_choice: Callable[[bool], None]) -> None:
        """Record the rest up to ``largest`` images in a thread, unless nothing can be recorded.

        ``on_choice`` is told whether ReLUs are fused, where ``choose`` asks to find that out.
        The thread stays as long as this recorder: cuDNN's plans, which are the thread's, may own
        the kernels in its graphs.
        """
        if not self.replays:
            return
        self._is_recorded.clear()
        work = partial(self._record_rest, padded(largest), choose, on_choice)
        may_end = threading.Event()
        weakref.finalize(self, may_end.set)
        # A thread that is inside of CUDA when the interpreter goes would take the process with it.
        atexit.register(_stop, weakref.ref(self))
        threading.Thread(
            target=_record_and_stay,
            args=([work], self._is_recorded, may_end),
            name="graphs",
            daemon=True,
        ).start()

    def wait(self) -> None:
        """Come back when everything is recorded."""
        self._is_recorded.wait()

    def stop(self) -> None:
        """Record nothing after what is being recorded now, and wait for that."""
        self._is_stopping = True
        self.wait()

    @torch.inference_mode()
    def _record_rest(self, top: int, choose: bool, on_choice: Callable[[bool], None]) -> None:
        try:
            with _search_for_algorithms():
                compared = min(top, FIRST[-1])
                self._take(compared, self._record(self.network, compared))
                fuses_relu = choose and self._choose_relu(compared)
                if choose and fuses_relu is not None:
                    on_choice(fuses_relu)
                again = bool(fuses_relu)  # what was recorded was another network
                self._record_all([n for n in REST if n <= top and (again or n != compared)])
        except RuntimeError as error:  # what was recorded before serves
            if not is_out_of_memory(error):
                logger.warning("no more CUDA graphs: %s", error)
                return
            self._streams.free_memory()
            logger.warning("the GPU has no memory for more CUDA graphs: %s", error)

    def _record_all(self, sizes: list[int]) -> None:
        """Record ``sizes``, but none that is larger than one that does not pay."""
        limit = max(sizes, default=0)
        for size in sizes:
            if self._is_stopping:
                return
            if size <= limit:
                self._take(size, self._record(self.network, size))
                if not pays(self.seconds, size):
                    limit = min(limit, max(size, FIRST[-1]))
        rates = ", ".join(f"{n}: {n / s:,.0f}" for n, s in sorted(self.seconds.items()))
        logger.info("images/s of CUDA graphs by images in a batch: %s", rates)

    def _record(self, network: Network, size: int) -> Callable[[], object]:
        """Return what replays the network on the first ``size`` images of the fixed memory."""
        scratch = self._fixed.like(size)  # batches may be using the fixed memory
        for _ in range(WARM_UPS):
            self._streams.run(
                "record", partial(self._compute, network, scratch, size)
            ).synchronize()
        return self._streams.capture(partial(self._compute, network, self._fixed, size))

    def _take(self, size: int, replay: Callable[[], object]) -> None:
        """Measure a graph, and use it from now on; the one before has ended by then."""
        with self._lane:
            self.seconds = {**self.seconds, size: self._streams.seconds(replay)}
            self.replays[size] = replay

    def _choose_relu(self, size: int) -> bool | None:
        """Use convolutions that do the ReLU behind them, if they are right and quicker here.

        Returns:
            Whether they are; ``None``: there was no memory to find out.
        """
        variant = with_fused_relu(self.network)
        if variant is self.network:
            return False
        try:
            cosine = self._cosine(variant)
            replay = self._record(variant, size)
        except RuntimeError as error:
            logger.warning("ReLUs stay apart from convolutions: %s", error)
            return None if is_out_of_memory(error) else False
        with self._lane:
            took_s = self._streams.seconds(replay)
            is_better = cosine >= MIN_COSINE and took_s < QUICKER * self.seconds[size]
            if is_better:
                self.network = variant
        logger.info(
            "convolutions with their ReLU: %.2f of the time, least cosine %.5f: %s",
            took_s / self.seconds[size],
            cosine,
            "taken" if is_better else "not taken",
        )
        return is_better

    def _cosine(self, variant: Network) -> float:
        """Return the least cosine between vectors of the network and of ``variant``; 0: not finite.

        cuDNN adds nothing times what lies where the result goes: that must not be looked at.
        """
        pixels_BCHW = self._fixed.pixels_BCHW
        shape = (PROBES, *pixels_BCHW.shape[1:])
        noise_BCHW = torch.from_numpy(np.random.default_rng(0).integers(0, 256, shape, np.uint8))
        ours, theirs = self._fixed.like(PROBES), self._fixed.like(PROBES)
        for batch in (ours, theirs):
            batch.pixels_BCHW.copy_(noise_BCHW)
        self._streams.free_memory()  # so that the next free memory is what was poisoned

        def compute_in_poison() -> None:
            if pixels_BCHW.is_cuda:
                torch.full((POISON,), torch.nan, device=pixels_BCHW.device)
            self._compute(variant, theirs, PROBES)

        self._streams.run("record", compute_in_poison).synchronize()
        self._streams.run(
            "record", partial(self._compute, self.network, ours, PROBES)
        ).synchronize()
        answers = (theirs.vectors_BD, theirs.probabilities_BL)
        if not all(bool(answer.isfinite().all()) for answer in answers):
            return 0.0
        return float((ours.vectors_BD * theirs.vectors_BD).sum(dim=1).min())


def _record_and_stay(
    work: list[Callable[[], None]], is_recorded: threading.Event, may_end: threading.Event
) -> None:
    """Do the one piece of ``work``, say so, and keep the thread without keeping the work."""
    try:
        work.pop()()
    finally:
        is_recorded.set()
    may_end.wait()


def _stop(recorder: "weakref.ref[GraphRecorder]") -> None:
    alive = recorder()
    if alive is not None:
        alive.stop()


@contextmanager
def _search_for_algorithms() -> Iterator[None]:
    """Let cuDNN measure its algorithms for every shape that is new, and keep the quickest."""
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = True
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before
