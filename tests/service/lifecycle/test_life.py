"""A server's life: start, refusal to start, stop, restart; and what it must not do meanwhile."""

import json
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx

from index.gallery import Gallery
from tests.support.faults.loop_filesystems import small_filesystem
from tests.support.galleries.small_galleries import STORED, write_gallery
from tests.support.images.pngs import png
from tests.support.server.gallery_servers import gallery_server
from tests.support.server.servers import (
    START_S,
    Server,
    answered,
    clean_environment,
    is_ready,
    running_bento_server,
    running_server,
)
from vision.model.manifest import WEIGHTS_NAME

PNG = {"Content-Type": "image/png"}
SUPERVISOR_MB = 150


def resident_mb(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise AssertionError(f"no VmRSS of {pid}")


def test_it_says_503_until_everything_is_loaded_and_lives_meanwhile(
    model: Path, tmp_path: Path
) -> None:
    write_gallery(tmp_path / "gallery", model)
    options = (model, tmp_path / "gallery", tmp_path / "log")
    with running_server(*options, wait=False) as server:
        early: list[tuple[int, int]] = []
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and not is_ready(server):
            try:
                alive = httpx.get(f"{server.url}/livez", timeout=10)
                asked = httpx.post(f"{server.url}/v1/search", json={"id": "item-00"}, timeout=10)
            except httpx.TransportError:
                continue  # not listening yet
            early.append((alive.status_code, asked.status_code))
            if asked.status_code == 503:
                assert asked.json()["code"] == "not_ready"
                assert int(asked.headers["retry-after"]) >= 1

        assert (200, 503) in early, "it was never seen alive and loading"
        assert {alive for alive, _ in early} == {200}
        answer = httpx.post(f"{server.url}/v1/search", json={"id": "item-00"})
        assert answer.json()["hits"][0]["id"] == "item-00"


def test_the_supervising_process_stays_small_and_usage_is_not_reported(server: Server) -> None:
    supervisor = server.process.pid
    (worker,) = server.workers()

    assert resident_mb(supervisor) < SUPERVISOR_MB
    assert "BENTOML_DO_NOT_TRACK=True" in _environment(worker)
    maps = Path(f"/proc/{worker}/maps").read_text()
    assert "uvloop" in maps
    assert "httptools" in maps


def _environment(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/environ").read_text().split("\0")


def test_requests_in_flight_are_finished_when_it_stops(model: Path, tmp_path: Path) -> None:
    with gallery_server(model, tmp_path) as server:
        where = ("127.0.0.1", int(server.url.rpartition(":")[2]))
        sockets = [socket.create_connection(where, timeout=30) for _ in range(20)]
        body = png(1)
        head = (
            "POST /v1/classify HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        for one in sockets:
            one.sendall(head.encode() + body[:100])  # begun, and known to the server
        time.sleep(0.5)

        server.process.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        for one in sockets:
            one.sendall(body[100:])
        answers = [_read_all(one) for one in sockets]

        assert server.process.wait(timeout=40) == 0
        assert [answer.split(b"\r\n")[0] for answer in answers] == [b"HTTP/1.1 200 OK"] * 20
        assert all(b'"predictions"' in answer for answer in answers)


def _read_all(connection: socket.socket) -> bytes:
    answer = b""
    with connection:
        while chunk := connection.recv(65536):
            answer += chunk
    return answer


def test_what_was_acknowledged_is_there_after_a_kill(model: Path, tmp_path: Path) -> None:
    write_gallery(tmp_path / "gallery", model)
    acknowledged: list[str] = []
    with running_server(model, tmp_path / "gallery", tmp_path / "log") as server:

        def write(lane: int) -> None:
            with server.client() as client:
                for number in range(1000):
                    item_id = f"lane-{lane}-{number}"
                    try:
                        answer = client.put(f"/v1/items/{item_id}", content=png(lane), headers=PNG)
                    except httpx.TransportError:
                        return  # killed
                    if answer.status_code == 201:
                        acknowledged.append(item_id)

        lanes = [threading.Thread(target=write, args=(lane,)) for lane in range(4)]
        for lane in lanes:
            lane.start()
        time.sleep(1.5)
        server.kill()
        for lane in lanes:
            lane.join()

    with Gallery.open(tmp_path / "gallery", fingerprint=None) as gallery:
        assert gallery.verify() == []
        assert len(acknowledged) > 20
        assert set(gallery.existing(acknowledged)) == set(acknowledged)
        assert gallery.count <= STORED + len(acknowledged) + 4  # one unanswered per lane


def test_a_gallery_that_does_not_exist_is_started_empty_and_kept(
    model: Path, tmp_path: Path
) -> None:
    gallery = tmp_path / "new" / "gallery"
    with running_server(model, gallery, tmp_path / "log") as server, server.client() as client:
        assert answered(client.post("/v1/search", content=png(1), headers=PNG))["hits"] == []
        assert client.put("/v1/items/first", content=png(1), headers=PNG).status_code == 201
        assert server.stop() == 0
        warnings = [one for one in server.log.read_text().splitlines() if "warning" in one]
        meant = ("made the new gallery", "inside the container")
        assert [one for one in warnings if not any(words in one for words in meant)] == []

    with running_server(model, gallery, tmp_path / "log") as server, server.client() as client:
        hits = answered(client.post("/v1/search", content=png(1), headers=PNG))["hits"]
        assert [hit["id"] for hit in hits] == ["first"]


def test_two_workers_see_each_others_writes(model: Path, tmp_path: Path) -> None:
    options = ("--workers", "2")
    with running_server(model, tmp_path / "gallery", tmp_path / "log", *options) as server:
        assert len(server.workers()) == 2
        _wait_until_all_ready(server.url)
        for number in range(20):
            with server.client() as writer:  # a new connection each, so both workers are met
                seq = writer.put(
                    f"/v1/items/item-{number}", content=png(number), headers=PNG
                ).json()["seq"]
            with server.client() as reader:
                found = reader.post(
                    f"/v1/search?k=1&min_seq={seq}", content=png(number), headers=PNG
                ).json()
            assert found["hits"][0]["id"] == f"item-{number}"


def _wait_until_all_ready(url: str) -> None:
    ready = 0
    deadline = time.monotonic() + 60
    while ready < 20 and time.monotonic() < deadline:
        ready = ready + 1 if httpx.get(f"{url}/readyz").status_code == 200 else 0
        time.sleep(0.05)
    assert ready == 20


def test_the_gallery_follows_what_a_command_adds(server: Server, tmp_path: Path) -> None:
    (tmp_path / "hat").mkdir()
    (tmp_path / "hat" / "a.png").write_bytes(png(900))
    gallery = str(server.log.parent / "gallery")

    add = [sys.executable, "-m", "cli.main", "index", "add", gallery, "--data", str(tmp_path)]
    subprocess.run(add, check=True, env=clean_environment(), capture_output=True)

    with server.client() as client:
        hits = answered(client.post("/v1/search?k=1", content=png(900), headers=PNG))["hits"]
        assert (hits[0]["id"], hits[0]["label"]) == ("hat:a.png", "hat")
        assert client.delete("/v1/items/hat:a.png").status_code == 200


def test_another_server_leaves_the_counters_of_the_first_alone(
    server: Server, model: Path, tmp_path: Path
) -> None:
    def counted() -> float:
        with server.client() as client:
            client.get("/v1/gallery")
            lines = client.get("/metrics").text.splitlines()
        (line,) = [one for one in lines if 'route="/v1/gallery",status="200"' in one]
        return float(line.rpartition(" ")[2])

    before = counted()
    with running_server(model, tmp_path / "gallery", tmp_path / "log"):
        assert counted() == before + 1
    assert counted() == before + 2


def test_a_full_disk_refuses_writes_with_a_sentence_and_serves_on(
    model: Path, tmp_path: Path
) -> None:
    with small_filesystem(tmp_path / "disk", megabytes=2) as disk:
        gallery = disk / "gallery"
        with running_server(model, gallery, tmp_path / "log") as server, server.client() as client:
            stored, refused = [], None
            for number in range(400):
                answer = client.put(
                    f"/v1/items/item-{number}", content=png(number, (250, 250)), headers=PNG
                )
                if answer.status_code != 201:
                    refused = answer
                    break
                stored.append(f"item-{number}")

            assert refused is not None, "the disk never filled"
            assert refused.status_code == 507
            assert refused.json()["code"] == "disk_full"
            assert int(refused.headers["retry-after"]) > 0
            for item_id in stored:
                assert client.get(f"/v1/items/{item_id}").status_code == 200
            search = answered(client.post("/v1/search", json={"id": stored[0], "k": 1}))
            assert search["hits"][0]["id"] == stored[0]
            assert client.get("/readyz").status_code == 200


def test_a_model_that_cannot_be_loaded_ends_the_server_with_the_reason(
    model: Path, tmp_path: Path
) -> None:
    """Started by BentoML alone, without the checks of `lookalike serve`."""
    copy = Path(shutil.copytree(model, tmp_path / "copy"))
    (copy / WEIGHTS_NAME).unlink()
    environment = {"LOOKALIKE_MODEL": str(copy), "LOOKALIKE_GALLERY": str(tmp_path / "gallery")}
    with running_bento_server(tmp_path / "log", wait=False, **environment) as server:
        assert server.process.wait(timeout=START_S) == 1
        last = json.loads(server.log.read_text().splitlines()[-1])
    assert last["level"] == "error"
    assert last["message"].startswith("the service cannot start: ")
    assert WEIGHTS_NAME in last["message"]
