"""Every process of a server is killed in turn amid writes: it goes on, and loses none of them."""

import contextlib
import os
import signal
import threading
import time
from pathlib import Path

import httpx

from files.processes import started_ticks
from index.gallery import Gallery
from tests.support.galleries.small_galleries import STORED, write_gallery
from tests.support.images.pngs import png
from tests.support.processes import family
from tests.support.server.jobs import wait_for
from tests.support.server.servers import Server, is_ready, running_server

PNG = {"Content-Type": "image/png"}
LANES = 3
WORKERS = 2


class Writers:
    """Threads that store small and large images until they are told to end."""

    def __init__(self, server: Server) -> None:
        self.acknowledged: list[str] = []
        self.tried = 0
        self.wrong: list[str] = []  # answers that no client should see
        self._over = threading.Event()
        self._server = server
        self._lanes = [threading.Thread(target=self._write, args=(one,)) for one in range(LANES)]

    def __enter__(self) -> "Writers":
        for lane in self._lanes:
            lane.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for lane in self._lanes:
            lane.join()

    def _write(self, lane: int) -> None:
        large = png(lane, (1600, 1600))  # for a decoding process
        number = 0
        while not self._over.is_set():
            number += 1
            item_id = f"lane-{lane}-{number}"
            image = large if number % 8 == 0 else png(lane)
            self.tried += 1
            try:
                with self._server.client() as client:
                    answer = client.put(f"/v1/items/{item_id}", content=image, headers=PNG)
            except httpx.TransportError:
                continue  # the process that had it was killed
            if answer.status_code == 201:
                self.acknowledged.append(item_id)
            elif answer.status_code != 503:
                self.wrong.append(f"{answer.status_code} {answer.text}")


def test_each_process_is_killed_and_no_acknowledged_write_is_lost(
    model: Path, tmp_path: Path
) -> None:
    gallery = tmp_path / "gallery"
    write_gallery(gallery, model)
    options = (model, gallery, tmp_path / "log", "--workers", str(WORKERS))
    with running_server(*options) as server:
        with Writers(server) as writers:
            wait_for(lambda: len(family(server.process.pid)) > 1 + WORKERS)  # it decodes apart
            supervisor, *others = family(server.process.pid)
            for victim in others:
                with contextlib.suppress(ProcessLookupError):  # it went with its worker
                    os.kill(victim, signal.SIGKILL)
                before = len(writers.acknowledged)
                wait_for(lambda: len(server.workers()) == WORKERS and is_ready(server))
                wait_for(lambda before=before: len(writers.acknowledged) > before)
            members = family(supervisor)
            server.process.kill()
            server.process.wait(timeout=10)
            time.sleep(0.5)
        wait_for(lambda: not any(started_ticks(pid) for pid in members), timeout_s=10)

    assert writers.wrong == []
    with Gallery.open(gallery, fingerprint=None) as opened:
        assert opened.verify() == []
        assert {*opened.existing(writers.acknowledged)} == {*writers.acknowledged}
        assert STORED + len(writers.acknowledged) <= opened.count <= STORED + writers.tried
