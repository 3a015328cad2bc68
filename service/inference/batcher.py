"""Encoded images in, vectors out: threads for the network, decoders beside them, greedy batches.

    one light image ───────────► waiting ──decoded by the network thread──┐
                                   ▲   │                                  ├──► batch ──► event loop
    several ──► turns ──► 2 batches┘   └──decoding threads──► ready ──────┤
    heavy ────► turns ──► threads of their own ──► ready ─────────────────┘

A batch is whatever waited while the network was busy: it grows under load and costs no wait when
idle. A network in this process has one lane and one thread; to one in another process there are
two, so that one batch is decoded while the other is computed.

An image is decoded, and refused if broken, before it joins a batch, so it never spoils one.
Results return to the event loop once per batch.

In a worker of one core the network's thread decodes everything but heavy images, which would make
others wait; in one of several it decodes only when it has nothing else to do. A lone image of a
quick network takes no thread at all: to wake one takes longer than the network does. Heavy images
have threads of their own, and their callers take turns; so they do at the places for those images
that came with others.
"""

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial

from service.encoding.lane import Lane
from service.encoding.priority_queue import PriorityQueue
from service.inference.fair_queue import FairQueue
from service.inference.image_job import EncodeCall, ImageJob, Outcome, results_of
from service.inference.task import DecodedImage, Encoded, HeavyImage, Task
from service.inference.worker_thread import WorkerThread
from service.telemetry.watchdog import Watchdog
from vision.formats.decoding_cost import decoding_cost


class Batcher:
    """Decoding threads and network threads behind two queues.

    Made and called on one event loop. The number of callers is bounded by whoever admits requests.
    """

    def __init__(
        self,
        *,
        decode: Callable[[Task, bool], DecodedImage],
        lanes: Sequence[Lane],
        watchdog: Watchdog,
        decode_threads: int,
        heavy_threads: int,
        decodes_itself: bool,
        is_quick: bool,
        max_batch: int,
    ) -> None:
        # Told whether to raise HeavyImage rather than take long; if not, it only waits for others.
        self._decode = decode
        self._watchdog = watchdog
        self._max_batch = max_batch
        # Up to so many images of a batch the network's thread decodes by itself.
        self._own_decodes = max_batch if decodes_itself else 1
        self._is_quick = is_quick
        self._loop = asyncio.get_running_loop()
        self._under_way = 0  # submitted and not delivered; the event loop's alone
        self._waiting: PriorityQueue[ImageJob] = PriorityQueue()
        self._heavy: FairQueue[ImageJob] = FairQueue()
        self._bulk: FairQueue[ImageJob] = FairQueue()
        self._bulk_waiting = 0  # in turns; the event loop's alone, as is the next
        self._bulk_under_way = 0
        self._ready: PriorityQueue[ImageJob] = PriorityQueue()
        self._thread = threading.get_ident()
        self._networks = [  # a thread for each lane to the network
            WorkerThread(f"network-{number}", partial(self._run_batch, lane))
            for number, lane in enumerate(lanes)
        ]
        self._first_lane = lanes[0]
        self._decoders = [  # of light images
            WorkerThread(f"decode-{number}", self._decode_light)
            for number in range(0 if decodes_itself else decode_threads)
        ]
        self._heavy_decoders = [
            WorkerThread(f"heavy-{number}", self._decode_heavy) for number in range(heavy_threads)
        ]
        for thread in self._threads:
            thread.start()

    async def encode(self, tasks: Sequence[Task], *, caller: str) -> list[Encoded | Exception]:
        """Return what became of each task of ``caller``, in order; a broken image fails alone.

        At most two batches of images that came with others are under way, whoever sent them, so
        that those who send one need not wait for more.
        """
        if not tasks:
            return []
        call = EncodeCall(self._loop.create_future(), [None] * len(tasks), len(tasks), caller)
        now = time.perf_counter()
        for place, task in enumerate(tasks):
            job = ImageJob(task, call, place, now)
            if not task.is_cheap:
                self._under_way += 1
                self._put_heavy(job)
            elif len(tasks) == 1:
                self._submit(job)
            else:
                self._bulk_waiting += 1
                self._bulk.put(job, caller=call.caller, price=1, call=id(call))
        self._submit_bulk()
        return await call.future

    @property
    def under_way(self) -> int:
        """How many images wait or are worked on."""
        return self._under_way

    async def close(self) -> None:
        """Finish every job that was submitted, then end the threads."""
        await self._loop.run_in_executor(None, self._join)

    def _join(self) -> None:
        for thread in self._threads:  # each leaves its work to those behind it
            thread.join()

    @property
    def _threads(self) -> tuple[WorkerThread, ...]:
        return (*self._decoders, *self._heavy_decoders, *self._networks)

    def _submit(self, job: ImageJob) -> None:
        self._under_way += 1
        self._waiting.put(job, is_bulk=job.is_bulk)
        if self._is_quick and self._under_way == 1:
            self._loop.call_soon(self._run_alone)
        elif not _wake_one(self._networks):
            _wake_one(self._decoders)

    def _submit_bulk(self) -> None:
        """Submit images that came with others, as long as there are places for them."""
        while self._bulk_waiting and self._bulk_under_way < 2 * self._max_batch:
            job = self._bulk.pop()
            assert job is not None  # it was counted
            self._bulk_waiting -= 1
            if not job.call.future.done():
                self._bulk_under_way += 1
                job.is_bulk = True
                self._submit(job)

    def _leave_bulk(self, job: ImageJob) -> None:
        """Give the place of ``job`` to another."""
        job.is_bulk = False
        self._bulk_under_way -= 1
        self._submit_bulk()

    def _put_heavy(self, job: ImageJob) -> None:
        price, call = decoding_cost(job.task.data), id(job.call)
        self._heavy.put(job, caller=job.call.caller, price=price, call=call)
        _wake_one(self._heavy_decoders)

    def _run_alone(self) -> None:
        """Do a lone job here and now, unless others have come; the thread sleeps meanwhile."""
        if self._under_way == 1:
            self._run_batch(self._first_lane)
        else:
            _wake_one(self._networks)

    def _decode_light(self) -> bool:
        return self._decode_one(self._waiting.pop(), light_only=True)

    def _decode_heavy(self) -> bool:
        return self._decode_one(self._heavy.pop(), light_only=False)

    def _decode_one(self, job: ImageJob | None, *, light_only: bool) -> bool:
        if job is None:
            return False
        if self._decoded(job, light_only=light_only):
            self._ready.put(job, is_bulk=job.is_bulk)
            _wake_one(self._networks)
        return True

    def _decoded(self, job: ImageJob, *, light_only: bool) -> bool:
        """Decode ``job``, and return whether there is anything to encode."""
        if self._is_abandoned(job):
            return False
        started = time.perf_counter()
        try:
            with self._watchdog.track("decode"):
                job.decoded = self._decode(job.task, light_only)
        except HeavyImage:
            if job.is_bulk:  # this call comes before the one that delivers it
                self._loop.call_soon_threadsafe(self._leave_bulk, job)
            self._put_heavy(job)
            return False
        except Exception as error:  # the thread's edge: it goes to the caller
            self._hand_over([(job, error)])
            return False
        job.decode_ms = _ms_since(started)
        return True

    def _run_batch(self, lane: Lane) -> bool:
        jobs = self._next_batch(min(self._max_batch, lane.most))
        if not jobs:
            return False
        results: list[Outcome]
        try:
            with self._watchdog.track("network"):
                is_bulk = all(job.is_bulk for job in jobs)
                batch = lane([job.pixels_CHW for job in jobs], is_bulk=is_bulk)
        except Exception as error:
            results = [(job, error) for job in jobs]
        else:
            results = results_of(jobs, batch, ended=time.perf_counter())
        self._hand_over(results)
        return True

    def _next_batch(self, most: int) -> list[ImageJob]:
        """Return what is ready, or else what this thread decodes now; at most ``most``."""
        jobs: list[ImageJob] = []
        while len(jobs) < most and (job := self._ready.pop()) is not None:
            if not self._is_abandoned(job):
                jobs.append(job)
        while len(jobs) < min(most, self._own_decodes) and (job := self._waiting.pop()) is not None:
            if self._decoded(job, light_only=True):
                jobs.append(job)
        return jobs

    def _is_abandoned(self, job: ImageJob) -> bool:
        """Return whether nobody waits for ``job`` any more, which then ends here."""
        if not job.call.future.done():
            return False
        self._hand_over([(job, None)])
        return True

    def _hand_over(self, results: "list[Outcome]") -> None:
        if threading.get_ident() == self._thread:
            self._deliver(results)
        else:
            self._loop.call_soon_threadsafe(self._deliver, results)

    def _deliver(self, results: "list[Outcome]") -> None:
        self._under_way -= len(results)
        for job, result in results:
            if job.is_bulk:
                self._leave_bulk(job)
            call = job.call
            if call.future.done():  # cancelled meanwhile
                continue
            call.results[job.place] = result
            call.left -= 1
            if not call.left:
                call.future.set_result([result for result in call.results if result is not None])


def _wake_one(threads: list[WorkerThread]) -> bool:
    return any(thread.wake() for thread in threads)


def _ms_since(started: float) -> float:
    return (time.perf_counter() - started) * 1000
