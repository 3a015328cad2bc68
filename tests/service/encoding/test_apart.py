"""A whole server whose network is in a process of its own, as on a GPU, and whatever may end in it.

The real network, on the CPU, by way of ``benchmarks.serving.front.apart``; a stand-in for what a
GPU may do.
"""

import os
import shutil
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from service.telemetry.shared_metrics import shared_folder
from tests.service.encoding.failing_network import GRAY, WHITE
from tests.support.galleries.small_galleries import write_gallery
from tests.support.images.pngs import encoded, png
from tests.support.server.load_generator import request_bytes
from tests.support.server.servers import (
    Server,
    answered,
    children,
    command_of,
    running_server,
    wait_until_ready,
)

REAL = ("benchmarks.serving.front.apart", "service.encoding.program")
FAILING = ("benchmarks.serving.front.apart", "tests.service.encoding.failing_network")
WITHIN_S = 60.0


@pytest.fixture(scope="module")
def apart(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server of two workers and the process with their network."""
    folder = tmp_path_factory.mktemp("apart")
    write_gallery(folder / "gallery", model)
    options = ("--workers", "2", "--device", "cpu")
    with running_server(
        model, folder / "gallery", folder / "log.txt", *options, program=REAL
    ) as running:
        yield running


def network_of(server: Server) -> int:
    """Return the process with the network."""
    (found,) = networks_of(server)
    return found


def networks_of(server: Server) -> list[int]:
    return [pid for pid in children(server.process.pid) if REAL[1] in command_of(pid)]


def shared_by(server: Server) -> Path:
    """Return the folder that its processes share."""
    variables = Path(f"/proc/{server.workers()[0]}/environ").read_bytes().split(b"\0")
    (server_id,) = [one for one in variables if one.startswith(b"LOOKALIKE_SERVER_ID=")]
    return shared_folder(server_id.decode().partition("=")[2])


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + WITHIN_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def value(server: Server, name: str) -> float:
    lines = httpx.get(f"{server.url}/metrics").text.splitlines()
    return sum(float(line.split()[1]) for line in lines if line.startswith(f"{name} "))


def plain(shade: int) -> Image.Image:
    return Image.new("L", (28, 28), shade)


class Traffic:
    """Requests on several connections, until the block ends; what was answered, and how late."""

    def __init__(self, server: Server, *, connections: int = 6) -> None:
        self.answers: Counter[int] = Counter()
        self.told: list[httpx.Response] = []  # answers of 503
        self.slowest_s = 0.0
        self._server = server
        self._is_over = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(n,)) for n in range(connections)]

    def __enter__(self) -> "Traffic":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        for thread in self._threads:
            thread.join()

    def _run(self, number: int) -> None:
        with self._server.client() as client:
            while not self._is_over.is_set():
                began = time.monotonic()
                try:
                    response = client.post("/v1/embed", content=png(number))
                except httpx.TransportError:  # to a worker that was killed
                    self.answers[0] += 1
                    continue
                self.slowest_s = max(self.slowest_s, time.monotonic() - began)
                self.answers[response.status_code] += 1
                if response.status_code == 503:
                    self.told.append(response)
                    time.sleep(0.02)


def test_answers_are_those_of_a_network_in_the_worker(apart: Server, server: Server) -> None:
    def asked(where: Server, path: str, **given: Any) -> Any:
        answer = answered(httpx.post(f"{where.url}{path}", timeout=30, **given))
        for name in ("request_id", "timings_ms", "seq", "model"):
            answer.pop(name, None)
        return answer

    forms = [("image", (f"{n}.png", png(n), "image/png")) for n in range(40)]
    for path, given in (
        ("/v1/embed", {"content": png(1)}),
        ("/v1/embed", {"files": forms}),
        ("/v1/classify", {"content": png(2)}),
        ("/v1/search", {"content": png(3)}),
    ):
        ours, usual = asked(apart, path, **given), asked(server, path, **given)
        assert same(ours, usual), path
    refused = httpx.post(f"{apart.url}/v1/embed", content=png(1)[:60])
    assert refused.json()["code"] == "corrupt_image"


def same(one: Any, other: Any) -> bool:
    """Say whether two answers are the same, numbers up to rounding."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, float):
        return bool(np.isclose(one, other, atol=1e-5))
    return bool(one == other)


def test_workers_are_light_and_nothing_lies_in_shared_memory_by_name(apart: Server) -> None:
    assert len(apart.workers()) == 2
    for pid in apart.workers():
        maps = Path(f"/proc/{pid}/maps").read_text()
        assert "libtorch" not in maps
        assert "memfd:batch" in maps
    assert "libtorch" in Path(f"/proc/{network_of(apart)}/maps").read_text()
    socket_file = shared_by(apart) / "encoder.sock"
    assert socket_file.stat().st_mode & 0o077 == 0
    assert socket_file.parent.stat().st_mode & 0o077 == 0
    assert not [path for path in Path("/dev/shm").iterdir() if "lookalike" in path.name]


def test_the_metrics_say_how_busy_the_network_is(apart: Server) -> None:
    counted = value(apart, "lookalike_batch_images_sum")
    busy = value(apart, "lookalike_encoder_busy_seconds_total")
    with Traffic(apart):
        until(lambda: value(apart, "lookalike_batch_images_sum") > counted + 20)
    assert value(apart, "lookalike_encoder_busy_seconds_total") > busy
    assert value(apart, "lookalike_encoders") == 1
    assert value(apart, "lookalike_encoder_resident_bytes") > 2**20
    assert 0 < time.time() - value(apart, "lookalike_encoder_start_timestamp_seconds") < 3600


def test_a_killed_network_is_replaced_and_nobody_waits_for_it(apart: Server) -> None:
    network, workers = network_of(apart), set(apart.workers())
    counted = value(apart, "lookalike_batch_images_sum")
    with Traffic(apart) as traffic:
        until(lambda: traffic.answers[200] > 20)
        os.kill(network, signal.SIGKILL)
        until(lambda: traffic.told)
        ready = httpx.get(f"{apart.url}/readyz")
        if ready.status_code != 200:  # else its successor is there already
            assert "process with the network" in ready.json()["detail"]
            assert "process with the network" in ready.json()["checks"]["network"]
        until(lambda: networks_of(apart) not in ([], [network]))
        wait_until_ready(apart)
        before = traffic.answers[200]
        until(lambda: traffic.answers[200] > before + 20)
    assert {status for status in traffic.answers if traffic.answers[status]} == {200, 503}
    for told in traffic.told:
        assert told.json()["code"] in ("not_ready", "overloaded")
        assert int(told.headers["Retry-After"]) > 0
    assert traffic.slowest_s < 20
    assert set(apart.workers()) == workers  # they stay
    until(lambda: value(apart, "lookalike_batch_images_sum") > counted)  # it goes on counting


def test_a_killed_worker_leaves_the_network_to_the_others(apart: Server) -> None:
    network = network_of(apart)
    files = f"/proc/{network}/fd"
    wait_until_ready(apart)
    before = len(os.listdir(files))
    with Traffic(apart) as traffic:
        until(lambda: traffic.answers[200] > 20)
        apart.kill_worker(apart.workers()[0])
        until(lambda: len(apart.workers()) == 2)
        good = traffic.answers[200]
        until(lambda: traffic.answers[200] > good + 20)
    assert network_of(apart) == network
    assert not {status for status in traffic.answers if traffic.answers[status]} - {0, 200, 503}
    until(lambda: len(os.listdir(files)) == before)  # two lanes each


def test_a_network_that_cannot_be_loaded_again_is_told_and_the_server_stops(
    model: Path, tmp_path: Path
) -> None:
    own = Path(shutil.copytree(model, tmp_path / "model"))
    options = ("--workers", "1", "--device", "cpu")
    with running_server(
        own, tmp_path / "gallery", tmp_path / "log.txt", *options, program=REAL
    ) as server:
        weights = own / "weights.safetensors"
        weights.write_bytes(weights.read_bytes()[:-1] + b"?")
        os.kill(network_of(server), signal.SIGKILL)
        until(lambda: "cannot be used any more" in _reason(server))
        assert "weights.safetensors" in _reason(server)
        assert str(tmp_path) not in _reason(server)
        answer = httpx.post(f"{server.url}/v1/embed", content=png(1))
        assert (answer.status_code, answer.json()["code"]) == (503, "not_ready")
        assert httpx.get(f"{server.url}/v1/gallery").status_code == 200
        assert server.stop() == 0


def test_a_network_that_ends_while_it_loads_ends_the_server_with_the_reason(
    model: Path, tmp_path: Path
) -> None:
    options = ("--workers", "1", "--device", "cpu")
    with running_server(
        model, tmp_path / "gallery", tmp_path / "log.txt", *options, program=REAL
    ) as server:
        killed: set[int] = set()
        deadline = time.monotonic() + WITHIN_S
        while server.process.poll() is None:
            assert time.monotonic() < deadline, server.log.read_text()
            for pid in {*networks_of(server)} - killed:
                os.kill(pid, signal.SIGKILL)
                killed.add(pid)
            time.sleep(0.02)
        assert server.process.returncode == 1
        assert "the process with the network could not start 5 times" in server.log.read_text()


def _reason(server: Server) -> str:
    try:
        return str(httpx.get(f"{server.url}/readyz").json().get("detail"))
    except httpx.TransportError:
        return ""


def test_under_more_than_it_can_do_it_refuses_and_stops_as_it_should(
    model: Path, tmp_path: Path
) -> None:
    """A stand-in for a GPU: too many at once, clients that go away, a GPU that fails, the end."""
    options = ("--workers", "2", "--max-queue", "8", "--max-wait-s", "0.05")
    with running_server(
        model, tmp_path / "gallery", tmp_path / "log.txt", *options, program=FAILING
    ) as server:
        shared = shared_by(server)
        left = [*children(server.process.pid)]
        with Traffic(server, connections=40) as traffic:
            for _ in range(10):  # who goes away amid it takes nothing along
                with socket.create_connection(("127.0.0.1", httpx.URL(server.url).port)) as one:
                    one.sendall(request_bytes("POST", "/v1/embed", png(1)))
                time.sleep(0.01)
            until(lambda: traffic.told and traffic.answers[200] > 200)
        assert {status for status in traffic.answers if traffic.answers[status]} == {200, 503}
        assert {one.json()["code"] for one in traffic.told} == {"overloaded"}
        assert httpx.post(f"{server.url}/v1/embed", content=png(1)).status_code == 200
        for shade, code in ((GRAY, "out_of_memory"), (WHITE, "device_lost")):
            failed = httpx.post(f"{server.url}/v1/embed", content=encoded(plain(shade)))
            assert (failed.status_code, failed.json()["code"]) == (503, code)
            assert int(failed.headers["Retry-After"]) > 0
        wait_until_ready(server)  # another process took the place of the one whose GPU was lost
        left += children(server.process.pid)
        with Traffic(server, connections=4) as traffic:
            until(lambda: traffic.answers[200] > 20)
            assert server.stop() == 0
        assert not traffic.answers[500]
        assert not [pid for pid in left if Path(f"/proc/{pid}").exists()]
        assert not shared.exists()
