"""Pictures that take long, sent to a real server: refused, or decoded while all others go on."""

import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.support.images.hostile_images import (
    inflating_texts,
    many_chunks,
    many_segments,
    palette_png,
    repeated_scans,
)
from tests.support.images.pngs import encoded, picture, png
from tests.support.server.servers import Server, command_of, running_server

BULK = 48  # pictures in one form


@pytest.fixture(scope="module")
def server(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("pictures")
    with running_server(model, folder / "gallery", folder / "log") as running:
        with running.client() as client:  # the first heavy picture starts a process
            assert classify(client, palette_png()).status_code == 200
        yield running


def classify(client: httpx.Client, data: bytes) -> httpx.Response:
    return client.post("/v1/classify", content=data, headers={"Content-Type": "image/png"})


def decoders(server: Server) -> list[int]:
    """Return the decoding processes of all workers, which threads of theirs have started."""
    lists = [
        one for pid in server.workers() for one in Path(f"/proc/{pid}/task").glob("*/children")
    ]
    pids = [int(pid) for one in lists for pid in one.read_text().split()]
    return [pid for pid in pids if "index.decoding.decoder_program" in command_of(pid)]


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (repeated_scans(16_000), "more than 100 scans"),
        (many_segments(50_000), "more than 10000 segments"),
        (many_chunks(200_000), "more than 100000 chunks"),
        (inflating_texts(100, b"iCCP"), "more than 4 colour profiles"),
    ],
    ids=["scans", "segments", "chunks", "profiles"],
)
def test_what_no_sound_program_writes_is_refused_and_probes_do_not_wait_for_it(
    server: Server, data: bytes, said: str
) -> None:
    workers = server.workers()
    waits: list[float] = []
    done = threading.Event()

    def probe() -> None:
        with server.client() as client:
            while not done.is_set():
                started = time.perf_counter()
                assert client.get("/livez").status_code == 200
                waits.append(time.perf_counter() - started)

    prober = threading.Thread(target=probe)
    prober.start()
    try:
        with server.client() as client:
            for _ in range(5):
                answer = classify(client, data)
                assert answer.status_code == 422
                assert answer.json()["code"] == "too_many_pixels"
                assert said in answer.json()["detail"]
    finally:
        done.set()
        prober.join()

    assert sorted(waits)[len(waits) // 2] < 0.25  # 5 s before, with nobody else on the machine
    assert server.workers() == workers


def test_a_bulk_of_large_pictures_lets_another_client_through(server: Server) -> None:
    large = palette_png()
    seconds: list[float] = []
    statuses: list[int] = []

    def send_bulk() -> None:
        transport = httpx.HTTPTransport(local_address="127.0.0.2")
        with httpx.Client(base_url=server.url, transport=transport, timeout=120) as client:
            started = time.perf_counter()
            files = [("image", ("large.png", large, "image/png"))] * BULK
            answer = client.post("/v1/classify", files=files)
            statuses.append(answer.status_code)
            seconds.append(time.perf_counter() - started)

    bulk = threading.Thread(target=send_bulk)
    bulk.start()
    waits: dict[str, list[float]] = {"small": [], "large": []}
    with server.client() as client:
        time.sleep(0.5)  # until the bulk is there
        while bulk.is_alive():
            for name, data in (("small", png(1)), ("large", large)):
                started = time.perf_counter()
                assert classify(client, data).status_code == 200
                waits[name].append(time.perf_counter() - started)
    bulk.join()

    assert statuses == [200]
    # Behind all that had been queued before, one would have waited for most of the bulk.
    assert sorted(waits["large"])[len(waits["large"]) // 2] < seconds[0] / 4
    assert sorted(waits["small"])[len(waits["small"]) // 2] < seconds[0] / 10


@pytest.mark.parametrize("blow", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "stopped"])
def test_a_decoder_that_is_ended_or_stopped_costs_no_answer_and_no_worker(
    server: Server, blow: signal.Signals
) -> None:
    workers = server.workers()
    # A price of so little has the shortest deadline.
    data = encoded(picture(1, (64, 64)), "GIF")
    with server.client() as client:
        assert classify(client, data).status_code == 200
        before = decoders(server)
        assert before
        for pid in before:
            os.kill(pid, blow)

        assert classify(client, data).status_code == 200

    assert server.workers() == workers
    assert decoders(server)


def test_images_of_a_bulk_share_the_time_of_their_batch(server: Server) -> None:
    """Else the encode time of a batch would be counted once for each of its images."""
    names = [f"bulk-{number}" for number in range(64)]
    items = [{"id": name} for name in names]
    files = [
        ("image", (f"{name}.png", png(number), "image/png")) for number, name in enumerate(names)
    ]
    with server.client() as client:
        before = encode_seconds(client)
        started = time.perf_counter()
        answer = client.post("/v1/items", data={"items": json.dumps(items)}, files=files)
        took = time.perf_counter() - started
        assert answer.status_code in (200, 201, 207)

        assert 0 < encode_seconds(client) - before <= took


def encode_seconds(client: httpx.Client) -> float:
    lines = client.get("/metrics").text.splitlines()
    start = 'lookalike_stage_seconds_sum{stage="encode"}'
    return sum(float(line.split()[-1]) for line in lines if line.startswith(start))
