"""A disk that is full when a server starts, or can only be read from some moment on."""

from pathlib import Path

import httpx

from index.gallery import Gallery
from tests.support.faults.loop_filesystems import loop_disk, small_filesystem
from tests.support.galleries.small_galleries import STORED, write_gallery
from tests.support.images.pngs import png
from tests.support.server.servers import START_S, answered, running_server

PNG = {"Content-Type": "image/png"}
PIECE = 2**20  # bytes, of what fills the disk


def fill(disk: Path) -> Path:
    """Leave no byte of room; return the file that takes it."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file:
        piece = bytes(PIECE)
        while piece:
            try:
                if file.write(piece) < len(piece):
                    piece = piece[: len(piece) // 2]
            except OSError:
                piece = piece[: len(piece) // 2]
    return filler


def put(client: httpx.Client, item_id: str) -> httpx.Response:
    return client.put(f"/v1/items/{item_id}", content=png(3, (90, 90)), headers=PNG)


def test_a_disk_without_room_lets_no_server_start_and_one_that_runs_recovers(
    model: Path, tmp_path: Path
) -> None:
    with small_filesystem(tmp_path / "small", megabytes=4) as disk:
        write_gallery(disk / "gallery", model)
        options = (model, disk / "gallery", tmp_path / "log")
        filler = fill(disk)
        with running_server(*options, wait=False) as server:
            assert server.process.wait(timeout=START_S) == 1
        (said,) = server.log.read_text().splitlines()
        assert said.startswith("lookalike: no room left to open ")

        filler.unlink()
        with running_server(*options) as server, server.client() as client:
            filler = fill(disk)
            refused = put(client, "refused")
            assert (refused.status_code, refused.json()["code"]) == (507, "disk_full")
            assert int(refused.headers["retry-after"]) > 0
            job = client.post("/v1/jobs", json={"kind": "rebuild"})
            assert (job.status_code, job.json()["code"]) == (507, "disk_full")
            assert client.get("/readyz").status_code == 200
            hits = answered(client.post("/v1/search", json={"id": "item-00", "k": 1}))["hits"]
            assert hits[0]["id"] == "item-00"

            filler.unlink()
            assert put(client, "stored").status_code == 201
            assert client.get("/readyz").json()["gallery"] == "writable"


def test_a_disk_that_can_only_be_read_from_now_on_stops_writes_alone(
    model: Path, tmp_path: Path
) -> None:
    with loop_disk(tmp_path / "disk", megabytes=32) as disk:
        folder = disk.folder
        write_gallery(folder / "gallery", model)
        options = (model, folder / "gallery", tmp_path / "log")
        with running_server(*options) as server, server.client() as client:
            assert put(client, "before").status_code == 201
            disk.become_read_only()
            for item_id in ("first", "second"):
                refused = put(client, item_id)
                assert refused.status_code == 503, refused.text
                assert refused.json()["code"] in ("storage_failed", "read_only")
                assert int(refused.headers["retry-after"]) > 0
            ready = client.get("/readyz")
            assert (ready.status_code, ready.json()["gallery"]) == (200, "read-only")
            hits = answered(client.post("/v1/search", json={"id": "before", "k": 1}))["hits"]
            assert hits[0]["id"] == "before"
        disk.restart()
        with Gallery.open(folder / "gallery", fingerprint=None) as opened:
            assert opened.verify() == []
            assert opened.count in (STORED + 1, STORED + 2)  # whether "first" came is open
            assert opened.existing(["before"])
