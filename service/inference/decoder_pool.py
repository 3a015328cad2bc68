"""Pictures whose headers do not prove them cheap in, pixels out: processes that can be ended.

A thread cannot be ended, and a decoder that overruns on one would keep it for ever. Each calling
thread has a process while it decodes; they start when they are first needed.
"""

import math
import mmap
import os
import threading
from typing import Final

import numpy as np
from numpy.typing import NDArray

from index.decoding.decoder_process import DecoderDiedError, DecoderProcess
from service.http.admission import MemoryLimiter
from service.inference.decoder import PictureDecoder, Question
from service.inference.task import DecodedImage, Task
from vision.errors import CostlyImageError
from vision.formats.decoding_cost import decoding_cost

# What a pixel may take: the slowest usual kind, an AVIF of 10 bits, takes a fifth of it.
PIXEL_S: Final = 400e-9
LEAST_S: Final = 1.0  # that a picture may take, however small
MOST_PICTURES: Final = 1000  # that a process decodes; what its libraries lose goes with it
TRIES: Final = 2  # of a picture whose process was ended by something else than its own work


class DecoderPool:
    """Processes that decode one picture each, for as many threads as ask."""

    def __init__(self, job: PictureDecoder, gate: MemoryLimiter, *, timeout_s: float) -> None:
        """Start nothing yet.

        Args:
            job: what the processes do.
            gate: waits until there is memory for a picture.
            timeout_s: processor time that a picture may take at most.
        """
        self._job = job
        self._gate = gate
        self._timeout_s = timeout_s
        self._lock = threading.Lock()
        self._idle: list[_Decoder] = []
        self._is_closed = False

    def decode(self, task: Task, *, thumbnail_side: int) -> DecodedImage:
        """Decode one picture; the calling thread waits.

        Raises:
            ImageError, CropError: the picture cannot be used.
            CostlyImageError: decoding it takes too much time or memory.
        """
        cpu_s = min(self._timeout_s, LEAST_S + PIXEL_S * decoding_cost(task.data))
        side = thumbnail_side if task.with_thumbnail else None
        question = Question(task.data, task.crop, side, cpu_s)
        for trial in range(TRIES):
            decoder = self._taken(anew=trial > 0)
            try:
                return self._asked(decoder, question)
            except DecoderDiedError as error:
                if error.cpu_s > cpu_s / 2:  # it is the picture, and not a busy machine
                    raise CostlyImageError(
                        f"decoding the image takes longer than {cpu_s:.1f} s of processor time, "
                        "the most that it may take: send it with fewer pixels, or in another format"
                    ) from error
            finally:
                self._put_back(decoder)
        raise CostlyImageError(
            f"decoding the image did not end within {_wall_s(cpu_s):.0f} s, or ended the process "
            "that did it: send it in another format"
        )

    def close(self) -> None:
        """End all processes; no thread is decoding any more."""
        with self._lock:
            self._is_closed = True
            idle, self._idle = self._idle, []
        for decoder in idle:
            decoder.end()

    def _asked(self, decoder: "_Decoder", question: Question) -> DecodedImage:
        decoder.left -= 1
        try:
            with self._gate.passage() as take:
                within_s = _wall_s(question.cpu_s)
                thumbnail = decoder.process.ask(question, within_s=within_s, on_need=take)
        except DecoderDiedError:
            decoder.left = 0
            raise
        return DecodedImage(pixels_CHW=decoder.pixels_CHW.copy(), thumbnail=thumbnail)

    def _taken(self, *, anew: bool) -> "_Decoder":
        """Return a process that nobody uses; ``anew``: a new one, in place of another."""
        with self._lock:
            idle = self._idle.pop() if self._idle else None
        if idle is not None and not anew:
            return idle
        if idle is not None:  # whatever ended one may have met all of them
            idle.end()
        return _Decoder(self._job)

    def _put_back(self, decoder: "_Decoder") -> None:
        with self._lock:
            if decoder.left > 0 and not self._is_closed:
                self._idle.append(decoder)
                return
        decoder.end()


class _Decoder:
    """A process, and the memory in which it leaves the pixels of a picture."""

    def __init__(self, job: PictureDecoder) -> None:
        self.left = MOST_PICTURES
        size = math.prod(job.shape)
        shared = os.memfd_create("pixels")
        try:
            os.ftruncate(shared, size)
            memory = mmap.mmap(shared, size)
            self.pixels_CHW: NDArray[np.uint8] = np.frombuffer(memory, np.uint8).reshape(job.shape)
            self.process = DecoderProcess(job, shared)
        finally:
            os.close(shared)

    def end(self) -> None:
        self.process.kill()
        self.process.close()


def _wall_s(cpu_s: float) -> float:
    """Return until when the answer must be there: others may want the same core."""
    return 2 + 2 * cpu_s
