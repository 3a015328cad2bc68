"""Files in, decoded in processes ahead of their use; slices of pixels out, in order.

Memory is bounded: only so many slices are in work, and their pixels lie in memory shared with the
processes, which has no name and goes with the last of them. A process that dies is replaced, and
the file that it died of is reported as one that cannot be decoded.

Shape suffixes: B images of a slice, C channels, H x W pixels.
"""

import hashlib
import math
import mmap
import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain, islice
from queue import SimpleQueue
from typing import Final, Generic, NamedTuple, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from index.decoding.decoder_process import DecoderDiedError, DecoderProcess
from index.decoding.file_decoder import DecodeResult, FileDecoder, FileToDecode, read_content

SLICE: Final = 64  # files that are decoded together, and that the network sees at once
MAX_PROCESSES: Final = 16
SLICES_AHEAD: Final = 2  # in work for each process: one is decoded, one waits for its turn
ENDED_PROCESS: Final = (
    "decoding it ended the decoding process; it may need more memory than there is"
)

T = TypeVar("T")


class DecodedFiles(NamedTuple, Generic[T]):
    """A slice of files, decoded."""

    part: T  # what was given with them
    results: list[DecodeResult]  # in their order
    pixels_BCHW: NDArray[np.uint8]  # of those that could be decoded; only until the next slice


class FileDecoderPool:
    """Processes that decode ahead, started when a second slice comes, ended with the block.

    A single slice is decoded here: a process would take longer to start. For one thread.
    """

    def __init__(self, decoder: FileDecoder, *, processes: int) -> None:
        self._decoder = decoder
        self._shape = decoder.preprocessing.batch_shape
        self._size = math.prod(self._shape(1))  # bytes of an image
        self._processes = max(1, min(processes, MAX_PROCESSES))
        self._slots = self._processes * SLICES_AHEAD + 1  # the one more is being looked at
        self._pool: ThreadPoolExecutor | None = None  # a thread for each process, to wait for it
        self._workers: list[DecoderProcess] = []
        self._idle: SimpleQueue[DecoderProcess] = SimpleQueue()
        self._shared = -1
        self._pixels: NDArray[np.uint8] = np.empty(0, np.uint8)
        self._is_closing = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """End all processes at once; what they are at is lost."""
        self._is_closing = True
        for worker in tuple(self._workers):
            worker.kill()
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
            os.close(self._shared)
            self._pixels = np.empty(0, np.uint8)  # unmapped with the last view of it
        for worker in self._workers:
            worker.close()

    def decode(
        self, slices: Iterable[tuple[T, Sequence[FileToDecode]]]
    ) -> Iterator[DecodedFiles[T]]:
        """Give slice after slice of at most ``SLICE`` files each, as they came.

        Args:
            slices: each with what is given back with it; read a few ahead.

        Raises:
            RuntimeError: no decoding process can be started.
            Whatever ``slices`` raises.
        """
        coming = iter(slices)
        first = list(islice(coming, 2))
        if len(first) == 1:
            part, files = first[0]
            pixels_BCHW = np.empty(self._shape(len(files)), np.uint8)
            results = self._decoder.decode(files, pixels_BCHW)
            yield DecodedFiles(part, results, pixels_BCHW[: _decoded_count(results)])
            return
        pool = self._start()
        working: deque[tuple[T, int, Future[list[DecodeResult]]]] = deque()
        for number, (part, files) in enumerate(chain(first, coming)):
            if len(working) == self._slots - 1:
                yield self._collect(*working.popleft())
            slot = number % self._slots
            working.append((part, slot, pool.submit(self._decode, slot, files)))
        while working:
            yield self._collect(*working.popleft())

    def _collect(self, part: T, slot: int, future: Future[list[DecodeResult]]) -> DecodedFiles[T]:
        results = future.result()
        start = slot * SLICE * self._size
        rows = _decoded_count(results)
        pixels = self._pixels[start : start + rows * self._size]
        return DecodedFiles(part, results, pixels.reshape(self._shape(rows)))

    def _start(self) -> ThreadPoolExecutor:
        if self._pool is None:
            self._shared = os.memfd_create("pixels")
            os.ftruncate(self._shared, self._slots * SLICE * self._size)
            self._pixels = np.frombuffer(mmap.mmap(self._shared, 0), np.uint8)
            self._pool = ThreadPoolExecutor(self._processes, thread_name_prefix="decode")
            for _ in range(self._processes):
                self._idle.put(self._start_worker())
        return self._pool

    def _start_worker(self) -> DecoderProcess:
        worker = DecoderProcess(self._decoder, self._shared)
        self._workers.append(worker)
        if self._is_closing:
            worker.kill()
        return worker

    def _decode(self, slot: int, files: Sequence[FileToDecode]) -> list[DecodeResult]:
        """Have a slice decoded; one after the other where a process died of them."""
        worker = self._idle.get()
        results: list[DecodeResult] = []
        try:
            results = worker.ask((list(files), slot * SLICE))
        except DecoderDiedError:
            worker = self._replace(worker)
            for one in files:
                row = _decoded_count(results)
                try:
                    (result,) = worker.ask(([one], slot * SLICE + row))
                    results.append(result._replace(row=None if result.row is None else row))
                except DecoderDiedError:
                    worker = self._replace(worker)
                    data, problem = read_content(one.content, limits=self._decoder.limits)
                    digest = hashlib.sha256(data).hexdigest()
                    results.append(DecodeResult(digest, None, None, problem or ENDED_PROCESS))
        finally:
            self._idle.put(worker)
        return results

    def _replace(self, worker: DecoderProcess) -> DecoderProcess:
        self._workers.remove(worker)
        worker.kill()
        worker.close()
        if self._is_closing:
            raise DecoderDiedError
        return self._start_worker()


def _decoded_count(results: Sequence[DecodeResult]) -> int:
    return sum(one.row is not None for one in results)
