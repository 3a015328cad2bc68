"""What a request writes down of itself: times once and by each image's share, and its problems."""

import asyncio
import time
from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import pytest

from index.errors import UnknownIdError
from service.api.application import create_router
from service.config import ServiceSettings
from service.encoding.lane import OwnNetwork
from service.inference.batcher import Batcher
from service.inference.engine import Engine
from service.inference.task import DecodedImage, Task
from service.request.context import RequestContext
from service.request.worker_context import WorkerContext
from service.telemetry.watchdog import Watchdog
from vision.errors import CorruptImageError
from vision.inference.encoder import Encoding

BATCH_S = 0.02


class EncodingEngine:
    """Of an engine no more than what encodes, a batch in ``BATCH_S``."""

    def __init__(self) -> None:
        self.batcher = Batcher(
            decode=lambda task, light_only: DecodedImage(
                pixels_CHW=np.zeros((1, 1, 1), np.uint8), thumbnail=None
            ),
            lanes=[OwnNetwork(self._encode, lambda *_: None)],
            watchdog=Watchdog(),
            decode_threads=1,
            heavy_threads=1,
            decodes_itself=False,
            is_quick=False,
            max_batch=8,
        )

    def _encode(self, pixels_BCHW: Any) -> Encoding:
        time.sleep(BATCH_S)
        values_B1 = np.zeros((len(pixels_BCHW), 1), np.float32)
        return Encoding(values_B1, values_B1)


def request_to(engine: EncodingEngine | None = None) -> RequestContext:
    async def nothing(*_: object) -> Any:
        raise AssertionError("nothing is received or sent")

    worker = WorkerContext(
        settings=ServiceSettings(), router=create_router(), engine=cast(Engine, engine)
    )
    scope = {"type": "http", "method": "POST", "path": "/", "headers": []}
    return RequestContext(scope, nothing, nothing, worker)


def encoded(requests_of: Sequence[int]) -> list[RequestContext]:
    """Return requests of so many images each, encoded at the same time."""

    async def scenario() -> list[RequestContext]:
        engine = EncodingEngine()
        requests = [request_to(engine) for _ in requests_of]
        task = Task(data=b"image", is_cheap=True)
        await asyncio.gather(
            *(
                request.encode([task] * count)
                for request, count in zip(requests, requests_of, strict=True)
            )
        )
        await engine.batcher.close()
        return requests

    return asyncio.run(scenario())


def encode_ms(request: RequestContext) -> list[float]:
    return [1000 * seconds for stage, _, seconds in request.record.stages if stage == "encode"]


def test_several_images_are_booked_their_shares_of_each_batch() -> None:
    begun = time.perf_counter()
    (request,) = encoded([40])
    elapsed_ms = (time.perf_counter() - begun) * 1000

    booked = encode_ms(request)
    assert len(booked) == request.record.images == 40
    assert 5 * BATCH_S * 1000 <= sum(booked) <= elapsed_ms, "not each image its whole batch"
    assert request.timings()["encode"] == pytest.approx(sum(booked), abs=0.01)
    request.record.seconds = 1.0
    assert request.record.log_fields(worker=1)["encode_ms"] == pytest.approx(sum(booked), abs=0.01)


def test_one_image_is_booked_the_batch_that_it_waited_for() -> None:
    for request in encoded([1] * 16):
        (booked,) = encode_ms(request)
        assert booked >= BATCH_S * 1000
        assert request.timings()["encode"] == pytest.approx(booked, abs=0.01)


def test_the_wait_of_several_images_is_the_longest() -> None:
    (request,) = encoded([40])

    waits = [1000 * seconds for stage, _, seconds in request.record.stages if stage == "queue"]
    assert request.timings()["queue"] == pytest.approx(max(waits), abs=0.01)
    assert max(waits) >= 3 * BATCH_S * 1000


def test_problems_of_items_and_of_the_answer_are_told_apart() -> None:
    request = request_to()

    broken = request.fail_item(CorruptImageError("broken"))
    response = request.fail(UnknownIdError("x"))

    assert (broken["status"], broken["code"]) == (422, "corrupt_image")
    assert response.status_code == 404
    assert request.record.problem == "unknown_id"
    assert request.record.item_problems == ["corrupt_image"]
    assert request.record.refusals == ["corrupt_image"]
