import asyncio
import threading
import time

import numpy as np
import pytest

from service.pipeline import Decoded, Encoded, Pipeline, Task
from vision.encoding import Encoding
from vision.errors import CorruptImageError


def decode(task: Task) -> Decoded:
    """Take the first byte for the pixel; `x` is a broken image."""
    if task.data == b"x":
        raise CorruptImageError("broken")
    return Decoded(pixels_CHW=np.full((1, 1, 1), task.data[0], np.uint8), thumbnail=None)


def encode(pixels_BCHW: np.ndarray) -> Encoding:
    values_B1 = pixels_BCHW.reshape(len(pixels_BCHW), 1).astype(np.float32)
    return Encoding(values_B1, values_B1)


class SlowEncoder:
    """Encodes when it is allowed to, and remembers the batches it saw."""

    def __init__(self) -> None:
        self.allowed = threading.Event()
        self.batches: list[int] = []

    def __call__(self, pixels_BCHW: np.ndarray) -> Encoding:
        assert self.allowed.wait(timeout=10)
        self.batches.append(len(pixels_BCHW))
        return encode(pixels_BCHW)


def pipeline(**changes: object) -> Pipeline:
    settings: dict[str, object] = {
        "decode": decode,
        "encode": encode,
        "decode_threads": 2,
        "max_batch": 8,
        "on_batch": lambda _: None,
    }
    return Pipeline(**{**settings, **changes})  # type: ignore[arg-type]


def value(encoded: Encoded) -> int:
    return int(encoded.vector_D[0])


def test_everybody_gets_the_answer_to_his_own_image() -> None:
    async def scenario() -> list[int]:
        work = pipeline()
        answers = await asyncio.gather(*(work(Task(data=bytes([n]))) for n in range(100)))
        await work.close()
        return [value(answer) for answer in answers]

    assert asyncio.run(scenario()) == list(range(100))


def test_batches_form_while_the_network_is_busy_and_are_bounded() -> None:
    encoder = SlowEncoder()
    sizes: list[int] = []

    async def scenario() -> None:
        work = pipeline(encode=encoder, on_batch=sizes.append)
        waiting = [asyncio.create_task(work(Task(data=b"a"))) for _ in range(30)]
        await asyncio.sleep(0.2)
        encoder.allowed.set()
        await asyncio.gather(*waiting)
        await work.close()

    asyncio.run(scenario())

    assert sum(encoder.batches) == 30
    assert max(encoder.batches) == 8
    assert len(encoder.batches) <= 5
    assert sizes == encoder.batches


def test_a_lone_request_does_not_wait_for_company() -> None:
    async def scenario() -> float:
        work = pipeline()
        await work(Task(data=b"a"))
        started = time.perf_counter()
        for _ in range(20):
            await work(Task(data=b"a"))
        seconds = time.perf_counter() - started
        await work.close()
        return seconds / 20

    assert asyncio.run(scenario()) < 0.05


def test_a_broken_image_fails_alone() -> None:
    async def scenario() -> list[object]:
        work = pipeline()
        answers = await asyncio.gather(
            *(work(Task(data=data)) for data in (b"a", b"x", b"b")), return_exceptions=True
        )
        await work.close()
        return list(answers)

    first, broken, last = asyncio.run(scenario())

    assert isinstance(broken, CorruptImageError)
    assert isinstance(first, Encoded)
    assert isinstance(last, Encoded)


def test_a_network_that_fails_fails_its_batch_and_serves_the_next() -> None:
    calls = []

    def fail_once(pixels_BCHW: np.ndarray) -> Encoding:
        calls.append(1)
        if len(calls) == 1:
            raise RuntimeError("out of memory")
        return encode(pixels_BCHW)

    async def scenario() -> int:
        work = pipeline(encode=fail_once)
        with pytest.raises(RuntimeError, match="out of memory"):
            await work(Task(data=b"a"))
        answer = await work(Task(data=b"b"))
        await work.close()
        return value(answer)

    assert asyncio.run(scenario()) == ord("b")


def test_a_caller_who_went_away_is_not_decoded_for() -> None:
    decoded: list[bytes] = []
    gate = threading.Event()

    def slow_decode(task: Task) -> Decoded:
        assert gate.wait(timeout=10)
        decoded.append(task.data)
        return decode(task)

    async def scenario() -> None:
        work = pipeline(decode=slow_decode, decode_threads=1)
        # The first takes the short way, the second the one decoder; the third waits for it.
        stay = [asyncio.create_task(work(Task(data=data))) for data in (b"a", b"c")]
        leaves = asyncio.create_task(work(Task(data=b"b")))
        await asyncio.sleep(0.05)
        leaves.cancel()
        await asyncio.sleep(0.05)
        gate.set()
        await asyncio.gather(*stay)
        await work.close()

    asyncio.run(scenario())

    assert sorted(decoded) == [b"a", b"c"]


def test_a_caller_who_went_away_is_not_encoded_for() -> None:
    encoder = SlowEncoder()

    async def scenario() -> None:
        work = pipeline(encode=encoder)
        stays = asyncio.create_task(work(Task(data=b"a")))
        await asyncio.sleep(0.05)  # the network has it
        leave = [asyncio.create_task(work(Task(data=b"b"))) for _ in range(5)]
        await asyncio.sleep(0.2)  # decoded by now, and waiting for the network
        for task in leave:
            task.cancel()
        await asyncio.sleep(0.05)
        encoder.allowed.set()
        await stays
        await work.close()

    asyncio.run(scenario())

    assert encoder.batches == [1]


def test_closing_finishes_what_was_begun() -> None:
    encoder = SlowEncoder()

    async def scenario() -> list[int]:
        work = pipeline(encode=encoder)
        waiting = [asyncio.create_task(work(Task(data=bytes([n])))) for n in range(20)]
        await asyncio.sleep(0.05)
        closing = asyncio.create_task(work.close())
        await asyncio.sleep(0.05)
        encoder.allowed.set()
        answers = await asyncio.gather(*waiting)
        await closing
        return [value(answer) for answer in answers]

    assert asyncio.run(scenario()) == list(range(20))


def test_the_times_of_the_stages_are_told() -> None:
    def slow(pixels_BCHW: np.ndarray) -> Encoding:
        time.sleep(0.02)
        return encode(pixels_BCHW)

    async def scenario() -> Encoded:
        work = pipeline(encode=slow)
        answer = await work(Task(data=b"a"))
        await work.close()
        return answer

    answer = asyncio.run(scenario())

    assert answer.encode_ms >= 20
    assert answer.decode_ms >= 0
    assert answer.queue_ms >= 0
