"""A disk that fails under a running server: writing ends with a sentence, the rest goes on."""

import resource
from pathlib import Path

import httpx

from index.gallery import Gallery
from index.store.schema import DATABASE_NAME
from tests.support.galleries.small_galleries import STORED, write_gallery
from tests.support.images.pngs import png
from tests.support.server.servers import Server, answered, running_server

PNG = {"Content-Type": "image/png"}


def break_disk(server: Server, gallery: Path) -> None:
    """Let no file of the worker grow beyond the write-ahead log: its next write is an I/O error."""
    (worker,) = server.workers()
    size = (gallery / f"{DATABASE_NAME}-wal").stat().st_size
    resource.prlimit(worker, resource.RLIMIT_FSIZE, (size, size))


def put(client: httpx.Client, item_id: str) -> httpx.Response:
    return client.put(f"/v1/items/{item_id}", content=png(1), headers=PNG)


def test_an_io_error_makes_the_gallery_read_only_and_says_so_everywhere(
    model: Path, tmp_path: Path
) -> None:
    gallery = tmp_path / "gallery"
    write_gallery(gallery, model)
    with running_server(model, gallery, tmp_path / "log") as server, server.client() as client:
        assert client.get("/readyz").json()["gallery"] == "writable"
        assert put(client, "before").status_code == 201

        break_disk(server, gallery)
        failed, refused = put(client, "failed"), put(client, "refused")

        assert (failed.status_code, failed.json()["code"]) == (503, "storage_failed")
        for answer in (refused, client.delete("/v1/items/before")):
            assert (answer.status_code, answer.json()["code"]) == (503, "read_only")
            assert int(answer.headers["retry-after"]) > 0
        ready = client.get("/readyz")
        assert (ready.status_code, ready.json()["status"]) == (200, "ok")
        assert ready.json()["gallery"] == "read-only"
        assert "restart" in ready.json()["reason"]
        shown = client.get("/v1/gallery").json()
        assert shown["state"] == "read-only"
        assert "restart" in shown["reason"]
        assert str(gallery) not in ready.text, "a route that needs no key names our folders"
        assert "lookalike_gallery_read_only 1.0" in client.get("/metrics").text
        hits = answered(client.post("/v1/search", json={"id": "before", "k": 1}))["hits"]
        assert hits[0]["id"] == "before"

    with running_server(model, gallery, tmp_path / "log") as server, server.client() as client:
        assert client.get("/readyz").json()["gallery"] == "writable"
        assert "lookalike_gallery_read_only 0.0" in client.get("/metrics").text
        assert put(client, "after").status_code == 201
    with Gallery.open(gallery, fingerprint=None) as opened:
        assert opened.verify() == []
        assert opened.count in (STORED + 2, STORED + 3)  # whether "failed" was stored is open


def test_a_gallery_that_is_moved_under_a_server_takes_no_write_until_it_is_back(
    model: Path, tmp_path: Path
) -> None:
    gallery = tmp_path / "gallery"
    write_gallery(gallery, model)
    log = tmp_path / "log"
    with running_server(model, gallery, log) as server, server.client() as client:
        assert put(client, "before").status_code == 201

        gallery.rename(tmp_path / "elsewhere")

        for answer in (
            put(client, "lost"),
            client.delete("/v1/items/before"),
            client.post("/v1/jobs", json={"kind": "rebuild"}),
            client.post("/v1/jobs", json={"kind": "duplicates", "min_score": 0.9}),
        ):
            assert (answer.status_code, answer.json()["code"]) == (503, "read_only"), answer.text
        shown = client.get("/v1/gallery").json()
        assert shown["state"] == "read-only"
        assert "is gone: moved, deleted" in shown["reason"]
        ready = client.get("/readyz")
        assert (ready.status_code, ready.json()["gallery"]) == (200, "read-only")
        hits = answered(client.post("/v1/search", json={"id": "before", "k": 1}))["hits"]
        assert hits[0]["id"] == "before"
        assert not gallery.exists(), "nothing was made in its place"

        (tmp_path / "elsewhere").rename(gallery)

        assert put(client, "after").status_code == 201
        for item_id, status in (("before", 200), ("after", 200), ("lost", 404)):
            assert client.get(f"/v1/items/{item_id}").status_code == status
    with Gallery.open(gallery, fingerprint=None) as opened:
        assert opened.count == STORED + 2
        assert opened.verify() == []
