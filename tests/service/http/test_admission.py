"""What a worker takes on, by number, by time and by memory."""

import asyncio
import threading
import time
from contextlib import ExitStack
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image
from starlette.requests import Request

from service.errors import BodyTooLargeError, OverloadedError, SlowRequestError
from service.http.admission import BUSY, Admission, BodyMemoryBudget, MemoryLimiter
from service.http.request_body import read_body
from tests.support.galleries.small_galleries import write_gallery
from tests.support.images.pngs import encoded, png
from tests.support.server.servers import running_server
from vision.errors import CorruptImageError
from vision.image.decode import decode_image


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def accepted(admission: Admission, places: ExitStack, most: int = 1000) -> int:
    """Return how many requests are let in before one is refused; they stay in ``places``."""
    for number in range(most):
        try:
            places.enter_context(admission.admit(""))
        except OverloadedError:
            return number
    return most


def work_off(
    admission: Admission, clock: Clock, *, under_way: int, each_s: float, seconds: float
) -> None:
    """Keep so many requests under way, and end one after the other."""
    running = [admission.admit("") for _ in range(under_way)]
    for one in running:
        one.__enter__()
    for _ in range(round(seconds / each_s)):
        clock.now += each_s
        running.pop(0).__exit__(None, None, None)
        running.append(admission.admit(""))
        running[-1].__enter__()
    for one in running:
        clock.now += each_s
        one.__exit__(None, None, None)


def test_no_more_than_the_limit_are_let_in_and_places_come_back() -> None:
    admission = Admission(5, max_wait_s=1.0, clock=Clock())
    with ExitStack() as places:
        assert accepted(admission, places) == 5

    assert admission.admitted == 0
    with ExitStack() as places:
        assert accepted(admission, places) == 5


def test_a_limit_of_one_lets_one_in() -> None:
    with ExitStack() as places:
        assert accepted(Admission(1, max_wait_s=1.0, clock=Clock()), places) == 1


@pytest.mark.parametrize("rate", [20, 100, 500])
def test_the_queue_is_as_long_as_the_measured_rate_works_off_in_time(rate: int) -> None:
    clock = Clock()
    admission = Admission(1000, max_wait_s=0.2, clock=clock)
    work_off(admission, clock, under_way=BUSY, each_s=1 / rate, seconds=5)

    with ExitStack() as places:
        assert accepted(admission, places) == pytest.approx(0.2 * rate, abs=1.5)
        assert admission.wait_s() == pytest.approx(0.2, abs=1.5 / rate)


def test_a_slow_network_may_have_a_queue_of_two_requests_time() -> None:
    clock = Clock()
    admission = Admission(1000, max_wait_s=0.1, clock=clock)
    for _ in range(50):
        with admission.admit(""):
            clock.now += 1.0
    work_off(admission, clock, under_way=BUSY, each_s=0.5, seconds=20)

    with ExitStack() as places:
        assert accepted(admission, places) == pytest.approx(2.0 / 0.5, abs=1.5)


def test_a_few_requests_are_always_let_in() -> None:
    clock = Clock()
    admission = Admission(1000, max_wait_s=0.001, clock=clock)
    admission.expect(10.0)
    work_off(admission, clock, under_way=BUSY, each_s=10.0, seconds=100)

    with ExitStack() as places:
        assert accepted(admission, places) >= BUSY


def test_the_bound_follows_the_rate_within_seconds() -> None:
    clock = Clock()
    admission = Admission(1000, max_wait_s=0.2, clock=clock)
    work_off(admission, clock, under_way=BUSY, each_s=0.001, seconds=5)
    work_off(admission, clock, under_way=BUSY, each_s=0.02, seconds=6)

    with ExitStack() as places:
        assert accepted(admission, places) == pytest.approx(10, abs=3)


def test_a_refusal_says_when_to_come_back() -> None:
    clock = Clock()
    admission = Admission(1000, max_wait_s=5.0, clock=clock)
    admission.expect(1.0)
    with ExitStack() as places:
        accepted(admission, places)
        with pytest.raises(OverloadedError) as refused:
            admission.check("")

    assert refused.value.retry_after_s == 6


def test_what_costs_little_waits_no_longer_than_if_all_cost_as_little() -> None:
    """They take turns, so large requests refuse each other and not small ones."""
    admission = Admission(1000, max_wait_s=5.0, clock=Clock())
    admission.expect(0.1)
    with ExitStack() as places:
        for _ in range(2):
            places.enter_context(admission.admit("", cost=100))
        with pytest.raises(OverloadedError):
            admission.check("", cost=100)
        assert admission.wait_s() == pytest.approx(0.2)
        for _ in range(48):  # 50 x 0.1 s
            places.enter_context(admission.admit(""))
        places.enter_context(admission.admit(""))
        with pytest.raises(OverloadedError) as refused:
            admission.check("")

    assert refused.value.retry_after_s == 5
    assert admission.wait_s() == 0


def test_a_long_request_may_wait_half_as_long_as_it_takes_itself() -> None:
    admission = Admission(1000, max_wait_s=0.5, clock=Clock())
    admission.expect(0.1)
    with ExitStack() as places:
        places.enter_context(admission.admit("", cost=10))
        places.enter_context(admission.admit("", cost=10))
        with pytest.raises(OverloadedError):
            admission.check("", cost=10)
        admission.check("", cost=1)


def test_the_rate_is_of_what_was_done_and_not_of_requests() -> None:
    clock = Clock()
    admission = Admission(1000, max_wait_s=1.0, clock=clock)
    for cost in (1, 50) * 20:
        with admission.admit(""), admission.admit("", cost=cost):
            clock.now += 0.01 * (cost + 1)

    with ExitStack() as places:
        places.enter_context(admission.admit("", cost=30))
        assert admission.wait_s(30) == pytest.approx(0.3, rel=0.05)


@pytest.mark.parametrize("flood", [200, 1])
def test_a_flood_of_one_caller_is_refused_to_himself(flood: int) -> None:
    admission = Admission(100, max_wait_s=1.0, clock=Clock())
    admission.expect(0.1)  # so 10 wait a second
    with ExitStack() as places:
        assert flood_of(admission, places, "flood", flood) == min(flood, 11)
        for name in ("one", "another"):
            places.enter_context(admission.admit(name))
        if flood > 1:
            with pytest.raises(OverloadedError):
                admission.check("flood")
            assert flood_of(admission, places, "one", 100) == 2  # 3 of 10 with the first


def test_many_callers_share_what_there_is_and_no_more() -> None:
    admission = Admission(100, max_wait_s=1.0, clock=Clock())
    admission.expect(0.1)
    with ExitStack() as places:
        admitted = sum(flood_of(admission, places, f"caller {n}", 1) for n in range(1000))

    assert admitted == 11
    assert admission.admitted == 0
    assert not admission._of_callers


def flood_of(admission: Admission, places: ExitStack, caller: str, most: int) -> int:
    """Return how many requests of ``caller`` are let in; they stay in ``places``."""
    for number in range(most):
        try:
            places.enter_context(admission.admit(caller))
        except OverloadedError:
            return number
    return most


def request_of(chunks: list[bytes], **headers: str) -> Request:
    messages = [
        {"type": "http.request", "body": chunk, "more_body": number < len(chunks) - 1}
        for number, chunk in enumerate(chunks)
    ] or [{"type": "http.disconnect"}]

    async def receive() -> dict[str, object]:
        return messages.pop(0)

    raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return Request({"type": "http", "headers": raw}, receive)


def read(budget: BodyMemoryBudget, request: Request) -> bytes:
    with budget.reserve("") as held:
        return asyncio.run(read_body(request, max_bytes=1000, held=held))


def test_a_body_is_counted_while_it_is_held() -> None:
    budget = BodyMemoryBudget(1500)
    with budget.reserve("") as first:
        asyncio.run(read_body(request_of([b"a" * 900]), max_bytes=1000, held=first))
        assert budget.held == 900
        with pytest.raises(OverloadedError):
            read(budget, request_of([b"a" * 400, b"a" * 400]))
        assert budget.held == 900
        assert read(budget, request_of([b"a" * 300, b"b" * 300])) == b"a" * 300 + b"b" * 300
    assert budget.held == 0


def test_a_body_is_counted_as_it_comes_and_not_as_it_is_announced() -> None:
    budget = BodyMemoryBudget(1500)
    with budget.reserve("") as first:
        first.grow_to(900)
        with pytest.raises(SlowRequestError, match="went away"):
            read(budget, request_of([], content_length="800"))
        with pytest.raises(OverloadedError):
            read(budget, request_of([b"x" * 400, b"x" * 400], content_length="800"))
    with pytest.raises(BodyTooLargeError):
        read(budget, request_of([], content_length="1001"))
    assert budget.held == 0


def test_one_caller_cannot_hold_all_the_bytes_there_are() -> None:
    budget = BodyMemoryBudget(1000)
    with ExitStack() as held:
        for _ in range(10):
            held.enter_context(budget.reserve("flood")).grow_to(100)
        with pytest.raises(OverloadedError):
            held.enter_context(budget.reserve("flood")).grow_to(1)
        held.enter_context(budget.reserve("one")).grow_to(500)
        with pytest.raises(OverloadedError):
            held.enter_context(budget.reserve("one")).grow_to(1)
        held.enter_context(budget.reserve("another")).grow_to(300)
        with pytest.raises(OverloadedError):
            held.enter_context(budget.reserve("another")).grow_to(40)

    assert budget.held == 0
    assert not budget._of_callers


def test_a_large_body_comes_whole_whether_its_length_was_told_or_not() -> None:
    data = bytes(range(256)) * 8192  # 2 MiB
    pieces = [data[at : at + 65536] for at in range(0, len(data), 65536)]
    for told in ({"content_length": str(len(data))}, {}):
        with BodyMemoryBudget(2**22).reserve("") as held:
            body = asyncio.run(read_body(request_of(pieces, **told), max_bytes=2**22, held=held))
        assert body == data


def test_threads_wait_until_there_is_memory_and_the_largest_goes_alone() -> None:
    gate = MemoryLimiter(100)
    most = 0

    def work(wanted: int) -> None:
        nonlocal most
        with gate.passage() as take:
            take(wanted)
            most = max(most, gate.taken)
            time.sleep(0.005)

    sizes = [60, 30, 500, 10, 100, 45, 45, 45, 1] * 4
    threads = [threading.Thread(target=work, args=(size,)) for size in sizes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)

    assert not any(thread.is_alive() for thread in threads)
    assert 60 < most <= 100
    assert gate.taken == 0


def test_memory_is_given_back_when_decoding_fails() -> None:
    gate = MemoryLimiter(100)
    with pytest.raises(CorruptImageError), gate.passage() as take:
        decode_image(png(1)[:600], before_pixels=take)

    assert gate.taken == 0


PER_PIXEL = {
    "RGB as PNG": (encoded(Image.new("RGB", (100, 50))), 8),
    "RGBA as PNG": (encoded(Image.new("RGBA", (100, 50))), 20),
    "16 bits as PNG": (encoded(Image.fromarray(np.zeros((50, 100), np.uint16))), 12),
    "a palette": (encoded(Image.new("P", (100, 50))), 8),
    "a palette with a hole": (encoded(Image.new("P", (100, 50)), transparency=0), 20),
    "RGB as WebP": (encoded(Image.new("RGB", (100, 50)), "WEBP"), 16),
    "RGBA as WebP": (encoded(Image.new("RGBA", (100, 50)), "WEBP"), 28),
    "RGB as JPEG": (encoded(Image.new("RGB", (100, 50)), "JPEG"), 8 + 6),
    "CMYK as JPEG": (encoded(Image.new("CMYK", (100, 50)), "JPEG"), 12 + 8),
}


@pytest.mark.parametrize(("data", "expected"), PER_PIXEL.values(), ids=PER_PIXEL.keys())
def test_the_memory_of_decoding_is_estimated_from_the_header(data: bytes, expected: int) -> None:
    told: list[int] = []
    decode_image(data, before_pixels=told.append)

    assert told == [expected * 5000]


def test_a_jpeg_that_is_decoded_smaller_needs_less() -> None:
    data = encoded(Image.new("RGB", (800, 400)), "JPEG")
    told: list[int] = []
    decode_image(data, draft_side=50, before_pixels=told.append)

    assert told == [8 * 100 * 50 + 6 * 800 * 400]


def peak_mb(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise AssertionError(f"no VmHWM of {pid}")


def test_bombs_at_once_leave_the_worker_alive_and_its_memory_bounded(
    model: Path, tmp_path: Path
) -> None:
    """Images of 25 million pixels from few bytes; decoded, each takes up to 0.7 GB."""
    write_gallery(tmp_path / "gallery", model)
    bombs = [
        encoded(Image.new("RGBA", (5000, 5000), (1, 2, 3, 4)), "WEBP", method=0),
        encoded(Image.new("RGBA", (5000, 5000), (1, 2, 3, 4))),
    ]
    answers: list[httpx.Response] = []
    options = ("--max-wait-s", "1000", "--request-timeout-s", "600")
    with running_server(model, tmp_path / "gallery", tmp_path / "log", *options) as server:
        (worker,) = server.workers()
        before_mb = peak_mb(worker)

        def send(data: bytes) -> None:
            answers.append(httpx.post(f"{server.url}/v1/classify", content=data, timeout=900))

        threads = [threading.Thread(target=send, args=(bombs[n % 2],)) for n in range(4)]
        for thread in threads:
            thread.start()
        with server.client() as client:
            assert client.get("/livez").status_code == 200
        send(png(1))
        for thread in threads:
            thread.join()
        grown_mb = peak_mb(worker) - before_mb
        assert server.workers() == [worker]

    assert {answer.status_code for answer in answers} == {200}
    assert grown_mb < 1500
