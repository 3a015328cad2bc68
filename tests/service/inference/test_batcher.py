"""Images in batches: everybody gets his own answer, nobody waits for a heavy image."""

import asyncio
import threading
import time
from collections.abc import Callable

import numpy as np
import pytest

from service.encoding.lane import OwnNetwork
from service.inference.batcher import Batcher
from service.inference.task import DecodedImage, Encoded, HeavyImage, Task
from service.telemetry.watchdog import Watchdog
from vision.errors import CorruptImageError
from vision.inference.encoder import Encoding


def decode(task: Task, light_only: bool) -> DecodedImage:
    """Take the first byte for the pixel; `x` is a broken image."""
    if task.data == b"x":
        raise CorruptImageError("broken")
    return DecodedImage(pixels_CHW=np.full((1, 1, 1), task.data[0], np.uint8), thumbnail=None)


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


def batcher(**changes: object) -> Batcher:
    settings: dict[str, object] = {
        "decode": decode,
        "watchdog": Watchdog(),
        "decode_threads": 2,
        "heavy_threads": 1,
        "decodes_itself": False,
        "is_quick": False,
        "max_batch": 8,
        "lanes": [own_network()],
    }
    return Batcher(**{**settings, **changes})  # type: ignore[arg-type]


def own_network(
    encode: Callable[[np.ndarray], Encoding] = encode,
    on_batch: Callable[[int], None] = lambda _: None,
) -> OwnNetwork:
    return OwnNetwork(encode, lambda images, _: on_batch(images))


def heavy_until(gate: threading.Event) -> Callable[[Task, bool], DecodedImage]:
    """Return what decodes all at once but `h`, which is heavy, and ends when the gate is open."""

    def heavy_decode(task: Task, light_only: bool) -> DecodedImage:
        if task.data == b"h":
            if light_only:
                raise HeavyImage
            assert gate.wait(timeout=10)
        return decode(task, light_only)

    return heavy_decode


async def one(work: Batcher, data: bytes) -> Encoded:
    (outcome,) = await work.encode([Task(data=data, is_cheap=True)], caller="")
    if isinstance(outcome, Exception):
        raise outcome
    return outcome


def value(encoded: Encoded) -> int:
    return int(encoded.vector_D[0])


def test_everybody_gets_the_answer_to_his_own_image() -> None:
    async def scenario() -> list[int]:
        work = batcher()
        answers = await asyncio.gather(*(one(work, bytes([n])) for n in range(100)))
        await work.close()
        return [value(answer) for answer in answers]

    assert asyncio.run(scenario()) == list(range(100))


def test_batches_form_while_the_network_is_busy_and_are_bounded() -> None:
    encoder = SlowEncoder()
    sizes: list[int] = []

    async def scenario() -> None:
        work = batcher(lanes=[own_network(encoder, sizes.append)])
        waiting = [asyncio.create_task(one(work, b"a")) for _ in range(30)]
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
        work = batcher()
        await one(work, b"a")
        seconds = []
        for _ in range(20):
            started = time.perf_counter()
            await one(work, b"a")
            seconds.append(time.perf_counter() - started)
        await work.close()
        return min(seconds)  # others may have been held up by what else the machine does

    assert asyncio.run(scenario()) < 0.05


def test_a_broken_image_fails_alone() -> None:
    async def scenario() -> list[object]:
        work = batcher()
        answers = await asyncio.gather(
            *(one(work, data) for data in (b"a", b"x", b"b")),
            return_exceptions=True,
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
        work = batcher(lanes=[own_network(fail_once)])
        with pytest.raises(RuntimeError, match="out of memory"):
            await one(work, b"a")
        answer = await one(work, b"b")
        await work.close()
        return value(answer)

    assert asyncio.run(scenario()) == ord("b")


def test_a_caller_who_went_away_is_not_decoded_for() -> None:
    decoded: list[bytes] = []
    gate = threading.Event()

    def slow_decode(task: Task, light_only: bool) -> DecodedImage:
        assert gate.wait(timeout=10)
        decoded.append(task.data)
        return decode(task, light_only)

    async def scenario() -> None:
        work = batcher(decode=slow_decode, decode_threads=1)
        # The first takes the short way, the second the one decoder; the third waits for it.
        stay = [asyncio.create_task(one(work, data)) for data in (b"a", b"c")]
        leaves = asyncio.create_task(one(work, b"b"))
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
        work = batcher(lanes=[own_network(encoder)])
        stays = asyncio.create_task(one(work, b"a"))
        await asyncio.sleep(0.05)  # the network has it
        leave = [asyncio.create_task(one(work, b"b")) for _ in range(5)]
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
        work = batcher(lanes=[own_network(encoder)])
        waiting = [asyncio.create_task(one(work, bytes([n]))) for n in range(20)]
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
        work = batcher(lanes=[own_network(slow)])
        answer = await one(work, b"a")
        await work.close()
        return answer

    answer = asyncio.run(scenario())

    assert answer.encode_ms >= 20
    assert answer.decode_ms >= 0
    assert answer.queue_ms >= 0


def test_a_worker_of_one_core_decodes_a_whole_batch_in_the_networks_thread() -> None:
    threads: set[str] = set()
    sizes: list[int] = []

    def noting_decode(task: Task, light_only: bool) -> DecodedImage:
        threads.add(threading.current_thread().name)
        time.sleep(0.002)  # so that the others come meanwhile
        return decode(task, light_only)

    async def scenario() -> list[int]:
        work = batcher(
            decode=noting_decode,
            decodes_itself=True,
            decode_threads=1,
            lanes=[own_network(on_batch=sizes.append)],
        )
        answers = await asyncio.gather(*(one(work, bytes([n])) for n in range(20)))
        await work.close()
        return [value(answer) for answer in answers]

    assert asyncio.run(scenario()) == list(range(20))
    assert threads == {"network-0"}
    assert sum(sizes) == 20
    assert len(sizes) < 10


@pytest.mark.parametrize("is_quick", [True, False])
@pytest.mark.parametrize("decodes_itself", [True, False])
def test_a_heavy_image_holds_up_nobody(decodes_itself: bool, is_quick: bool) -> None:
    gate = threading.Event()
    heavy_decode = heavy_until(gate)

    async def scenario() -> tuple[list[int], int]:
        work = batcher(decode=heavy_decode, decodes_itself=decodes_itself, is_quick=is_quick)
        heavy = asyncio.create_task(one(work, b"h"))
        light = await asyncio.gather(*(one(work, bytes([n])) for n in range(20)))
        assert not heavy.done()
        gate.set()
        last = await heavy
        await work.close()
        assert work.under_way == 0
        return [value(answer) for answer in light], value(last)

    assert asyncio.run(scenario()) == (list(range(20)), ord("h"))


@pytest.mark.parametrize("count", [5, 16, 17, 100])
def test_images_of_one_call_come_back_in_their_order_and_fail_alone(count: int) -> None:
    tasks = [Task(data=b"x" if n == 3 else bytes([n]), is_cheap=True) for n in range(count)]

    async def scenario() -> list[Encoded | Exception]:
        work = batcher()
        outcomes = await work.encode(tasks, caller="")
        assert await work.encode([], caller="") == []
        await work.close()
        return outcomes

    outcomes = asyncio.run(scenario())

    assert isinstance(outcomes.pop(3), CorruptImageError)
    values = [value(outcome) for outcome in outcomes if isinstance(outcome, Encoded)]
    assert values == [n for n in range(count) if n != 3]


def test_a_large_call_leaves_room_for_others() -> None:
    encoder = SlowEncoder()
    encoder.allowed.set()
    done: list[str] = []

    async def scenario() -> None:
        work = batcher(lanes=[own_network(encoder)])

        async def note(name: str, count: int) -> None:
            await work.encode([Task(data=b"a", is_cheap=True)] * count, caller="")
            done.append(name)

        await asyncio.gather(note("large", 2000), note("small", 1))
        await work.close()

    asyncio.run(scenario())

    assert done == ["small", "large"]


def test_large_calls_have_two_batches_together_and_take_turns() -> None:
    encoder = SlowEncoder()
    order: list[int] = []

    def noting_decode(task: Task, light_only: bool) -> DecodedImage:
        order.append(task.data[0])
        return decode(task, light_only)

    async def scenario() -> int:
        work = batcher(lanes=[own_network(encoder)], decode=noting_decode)
        large = [
            asyncio.create_task(
                work.encode([Task(data=bytes([n]), is_cheap=True)] * 300, caller="")
            )
            for n in range(20)
        ]
        await asyncio.sleep(0.1)
        most = work.under_way
        large[0].cancel()
        single = asyncio.create_task(one(work, b"s"))
        await asyncio.sleep(0.1)
        encoder.allowed.set()
        await single
        assert not any(call.done() for call in large[1:])
        for call in large[1:]:
            assert len(await call) == 300
        await work.close()
        assert work.under_way == 0
        return most

    assert asyncio.run(scenario()) == 16
    assert set(order[:300]) == {*range(20), ord("s")}


def test_images_that_turn_out_heavy_keep_no_place_from_other_calls() -> None:
    gate = threading.Event()
    heavy_decode = heavy_until(gate)

    async def scenario() -> None:
        work = batcher(decode=heavy_decode)
        heavy = [
            asyncio.create_task(work.encode([Task(data=b"h", is_cheap=is_cheap)] * 100, caller=""))
            for is_cheap in (True, False)
        ]
        await asyncio.sleep(0.1)
        light = await work.encode([Task(data=b"l", is_cheap=True)] * 100, caller="")
        assert [value(one) for one in light if isinstance(one, Encoded)] == [ord("l")] * 100
        assert not any(call.done() for call in heavy)
        gate.set()
        for call in heavy:
            assert len(await call) == 100
        await work.close()
        assert work.under_way == 0

    asyncio.run(scenario())


def test_a_lone_image_of_a_quick_network_takes_no_thread_and_company_does() -> None:
    threads: list[str] = []

    def noting_encode(pixels_BCHW: np.ndarray) -> Encoding:
        threads.append(threading.current_thread().name)
        return encode(pixels_BCHW)

    async def scenario() -> list[int]:
        work = batcher(lanes=[own_network(noting_encode)], is_quick=True)
        alone = [await one(work, bytes([n])) for n in range(3)]
        assert threads == ["MainThread"] * 3
        together = await asyncio.gather(*(one(work, bytes([n])) for n in range(3, 50)))
        assert set(threads[3:]) == {"network-0"}
        await work.close()
        return [value(answer) for answer in (*alone, *together)]

    assert asyncio.run(scenario()) == list(range(50))
