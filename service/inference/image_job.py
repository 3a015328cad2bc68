"""An image on its way through the batcher, and the call that it belongs to.

Shape suffixes: B images, C channels, H x W pixels.
"""

import asyncio
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from service.encoding.lane import EncodedBatch
from service.inference.task import DecodedImage, Encoded, Task


@dataclass(slots=True)
class ImageJob:
    """One image of a call, on its way."""

    task: Task
    call: "EncodeCall"
    place: int  # in the call's results
    submitted: float
    is_bulk: bool = False  # it has one of the places of bulk
    decode_ms: float = 0.0
    decoded: DecodedImage | None = None

    @property
    def pixels_CHW(self) -> NDArray[np.uint8]:
        """What the network takes, once it is decoded."""
        assert self.decoded is not None  # only decoded jobs join a batch
        return self.decoded.pixels_CHW


@dataclass(slots=True)
class EncodeCall:
    """The images that one caller waits for; used on the event loop alone, but for ``future``."""

    future: "asyncio.Future[list[Encoded | Exception]]"
    results: list[Encoded | Exception | None]
    left: int  # images without a result
    caller: str  # who shares decoders and the network with others


Outcome = tuple[ImageJob, Encoded | Exception | None]  # None: its caller went away


def results_of(jobs: list[ImageJob], batch: EncodedBatch, *, ended: float) -> list[Outcome]:
    """Return what the network said of each of ``jobs`` in a batch, which came back at ``ended``."""
    vectors_BD, probabilities_BL = batch.encoding
    encode_ms = batch.seconds * 1000
    results: list[Outcome] = []
    for row, job in enumerate(jobs):
        waited_ms = (ended - job.submitted) * 1000 - job.decode_ms - encode_ms
        encoded = Encoded(
            vector_D=vectors_BD[row],
            probabilities_L=probabilities_BL[row],
            thumbnail=job.decoded.thumbnail if job.decoded else None,
            queue_ms=max(0.0, waited_ms),
            decode_ms=job.decode_ms,
            encode_ms=encode_ms,
            batch_images=batch.images,
        )
        results.append((job, encoded))
    return results
