"""What the probes say: how far loading is, why it ended, what is stuck, and that it stops."""

import asyncio
import signal
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray

from service.api.application import create_router
from service.config import ServiceSettings
from service.encoding.lane import OwnNetwork
from service.inference.batcher import Batcher
from service.inference.task import Task
from service.request.gateway import Gateway
from service.request.worker_context import WorkerContext
from service.telemetry.health import LOADING, OK, READ_ONLY, Loading, checks, hide_folders
from service.telemetry.watchdog import STUCK_S, Watchdog
from tests.support.fakes import FakeEncoder
from tests.support.galleries.small_galleries import write_gallery
from tests.support.images.pngs import png
from tests.support.server.servers import running_server
from vision.inference.encoder import Encoding

PNG = {"Content-Type": "image/png"}
CHECKS = {*LOADING, "decoding", "network", "writing", "upkeep", "workers", "accepting"}


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_loading_says_which_stage_goes_on_and_for_how_long() -> None:
    clock = Clock()
    loading = Loading(clock=clock)
    clock.now = 2.25

    assert (
        loading.reason == "the service is still loading: the model is being loaded, for 2.2 s now"
    )
    assert loading.checks() == {
        "model": "the model is being loaded, for 2.2 s now",
        "gallery": "waits for what comes before it",
        "warm_up": "waits for what comes before it",
    }
    loading.begin("gallery")
    loading.begin("warm_up")
    clock.now = 3.0
    loading.end()

    assert loading.reason is None
    assert loading.checks() == dict.fromkeys(LOADING, OK)
    assert loading.seconds == {"model": 2.25, "gallery": 0, "warm_up": 0.75}


def test_a_failure_is_told_at_its_stage_without_folders() -> None:
    loading = Loading()
    loading.fail(
        "/srv/my models/a/weights is missing (see /etc/private/x.toml); 3/4 of it",
        folders=[Path("/srv/my models/a")],
    )

    assert loading.reason == "the service cannot start: weights is missing (see x.toml); 3/4 of it"
    assert loading.checks()["model"].startswith("failed: weights is missing")
    assert loading.checks()["gallery"] == "waits for what comes before it"


@pytest.mark.parametrize(
    ("sentence", "told"),
    [
        ("/a/b/c is damaged", "c is damaged"),
        ("'/a/b/c' is damaged", "'c' is damaged"),
        ("/g is read-only", "g is read-only"),
        ("of 1/2, and/or a/b", "of 1/2, and/or a/b"),
    ],
)
def test_paths_are_cut_down_to_their_last_part(sentence: str, told: str) -> None:
    assert hide_folders(sentence, []) == told


def test_every_check_has_a_sentence_of_its_own() -> None:
    clock = Clock()
    loading, watchdog = Loading(), Watchdog(clock=clock)
    loading.end()
    loading.seconds.update(dict.fromkeys(LOADING, 0.0))
    assert checks(loading, watchdog, is_stopping=False) == dict.fromkeys(CHECKS, OK)

    found = checks(loading, watchdog, is_stopping=True, is_read_only=True, has_trouble=True)

    assert found["accepting"] == "the service is stopping"
    assert found["writing"] == READ_ONLY
    assert "search structure" in found["upkeep"]


@pytest.mark.parametrize("activity", ["decode", "network", "write"])
def test_work_that_does_not_end_is_seen_until_it_does(activity: Any) -> None:
    clock = Clock()
    watchdog, release, begun = Watchdog(clock=clock), threading.Event(), threading.Event()

    def work() -> None:
        with watchdog.track(activity):
            begun.set()
            release.wait(timeout=60)

    thread = threading.Thread(target=work)
    thread.start()
    assert begun.wait(timeout=60)
    clock.now = STUCK_S - 1
    assert not watchdog.is_stuck(activity)
    clock.now = STUCK_S + 1
    assert watchdog.is_stuck(activity)
    assert watchdog.longest_s(activity) == STUCK_S + 1
    release.set()
    thread.join(timeout=60)

    assert not watchdog.is_stuck(activity)
    with pytest.raises(ZeroDivisionError), watchdog.track(activity):
        raise ZeroDivisionError
    assert watchdog.longest_s(activity) == 0


def test_livez_asks_for_a_restart_while_the_network_is_stuck_and_only_then() -> None:
    clock, release, begun = Clock(), threading.Event(), threading.Event()
    context = WorkerContext(
        settings=ServiceSettings(), router=create_router(), watchdog=Watchdog(clock=clock)
    )
    context.loading.end()
    encoder = FakeEncoder()

    def encode(pixels_BCHW: NDArray[np.uint8]) -> Encoding:
        begun.set()
        release.wait(timeout=60)
        return encoder.encode(pixels_BCHW)

    async def probe() -> list[httpx.Response]:
        batcher = Batcher(
            decode=lambda task, light_only: _decoded(encoder, task),
            lanes=[OwnNetwork(encode, context.metrics.count_batch)],
            watchdog=context.watchdog,
            decode_threads=1,
            heavy_threads=1,
            decodes_itself=False,
            is_quick=False,
            max_batch=2,
        )
        transport = httpx.ASGITransport(Gateway(context))
        async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
            answers = [await client.get("/livez")]
            waiting = asyncio.create_task(
                batcher.encode([Task(data=png(1), is_cheap=True)], caller="")
            )
            await asyncio.to_thread(begun.wait)
            answers.append(await client.get("/livez"))
            clock.now = STUCK_S + 1
            answers += [await client.get("/livez"), await client.get("/readyz")]
            release.set()
            await waiting
            answers.append(await client.get("/livez"))
        await batcher.close()
        return answers

    well, at_work, stuck, unready, well_again = asyncio.run(probe())

    assert [one.status_code for one in (well, at_work, well_again)] == [200, 200, 200]
    assert (stuck.status_code, stuck.json()["code"]) == (503, "stuck")
    assert "restart" in stuck.json()["detail"]
    assert (unready.status_code, unready.json()["code"]) == (503, "not_ready")
    assert unready.json()["checks"]["network"] == stuck.json()["detail"]
    assert unready.json()["checks"]["decoding"] == OK


def _decoded(encoder: FakeEncoder, task: Task) -> Any:
    from service.inference.batcher import DecodedImage  # noqa: PLC0415

    preprocessing = encoder.manifest.preprocessing
    image = preprocessing.decode(task.data)
    return DecodedImage(pixels_CHW=preprocessing.pixels(image), thumbnail=None)


def test_a_server_tells_how_far_it_is_until_it_is_ready(model: Path, tmp_path: Path) -> None:
    gallery = tmp_path / "gallery"
    write_gallery(gallery, model)
    early: list[dict[str, Any]] = []
    with running_server(model, gallery, tmp_path / "log", wait=False) as server:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            try:
                answer = httpx.get(f"{server.url}/readyz", timeout=10)
            except httpx.TransportError:
                continue  # not listening yet
            if answer.status_code == 200:
                break
            assert (answer.status_code, answer.json()["code"]) == (503, "not_ready")
            assert int(answer.headers["retry-after"]) > 0
            assert str(tmp_path) not in answer.text
            early.append(answer.json())

    assert answer.json()["checks"] == dict.fromkeys(CHECKS, OK)
    assert early, "it was never seen loading"
    for one in early:
        assert set(one["checks"]) == CHECKS
        assert "still loading" in one["detail"]
        assert any("now" in check for check in one["checks"].values())


def test_readyz_says_stopping_from_the_signal_on_and_requests_go_through_meanwhile(
    model: Path, tmp_path: Path
) -> None:
    write_gallery(tmp_path / "gallery", model)
    options = (model, tmp_path / "gallery", tmp_path / "log", "--drain-s", "4")
    with running_server(*options) as server, server.client() as client:
        (worker,) = server.workers()
        server.process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + 10
        while (ready := client.get("/readyz")).status_code == 200:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        late = httpx.post(f"{server.url}/v1/search", content=png(1), headers=PNG)

        assert (ready.status_code, ready.json()["code"]) == (503, "stopping")
        assert ready.json()["checks"]["accepting"] == "the service is stopping"
        assert ready.json()["checks"]["network"] == OK
        assert late.status_code == 200
        assert server.process.wait(timeout=40) == 0
        assert not Path(f"/proc/{worker}").exists()
