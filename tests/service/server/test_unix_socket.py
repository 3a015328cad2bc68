"""A server that listens at a path, for a proxy on this machine: who may ask, and what is left."""

import os
import signal
import socket
import stat
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from service.errors import ServiceConfigError
from service.server.unix_socket import MAX_PATH_BYTES, check_path
from tests.support.deployment.nginx import running_nginx
from tests.support.galleries.small_galleries import write_gallery
from tests.support.images.pngs import png
from tests.support.server.servers import (
    clean_environment,
    client_at,
    open_folder,
    running_at,
    serve_command,
)

PNG = {"Content-Type": "image/png"}
CONNECTIONS = 20


@pytest.fixture(scope="module")
def path(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The path of a server of two workers with few connections, under /visual/."""
    folder = tmp_path_factory.mktemp("socket")
    write_gallery(folder / "gallery", model)
    options = ("--root-path", "/visual/", "--workers", "2", "--requests-per-minute", "5000")
    few = ("--max-connections", str(CONNECTIONS))
    with open_folder() as shown:
        path = shown / "s"
        with running_at(path, model, folder / "gallery", folder / "log", *options, *few) as server:
            with pytest.raises(httpx.ConnectError):
                httpx.get(f"{server.url}/livez")
            yield path
        assert not path.exists()


def test_requests_are_answered_there_and_nowhere_else(path: Path) -> None:
    with client_at(path) as client:
        stored = client.put("/v1/items/there", content=png(1), headers=PNG)
        found = client.post("/v1/search?k=1", content=png(1), headers=PNG)

    assert stored.status_code in (200, 201)
    assert found.json()["hits"][0]["score"] == pytest.approx(1, abs=1e-5)
    assert stat.S_IMODE(path.stat().st_mode) == 0o666


def test_all_connections_may_be_those_of_the_proxy(path: Path) -> None:
    """No address has more than its share, and nobody here has one."""
    connections = []
    for _ in range(CONNECTIONS - 1):
        one = socket.socket(socket.AF_UNIX)
        one.settimeout(30)
        one.connect(str(path))
        one.sendall(b"POST /v1/classify HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n")
        connections.append(one)
    with client_at(path) as client:
        answers = {client.get("/livez").status_code for _ in range(5)}
    for one in connections:
        one.close()

    assert answers == {200}


def test_the_root_path_may_stand_before_every_path(path: Path) -> None:
    with client_at(path) as client:
        for at in ("/visual", ""):
            assert client.get(f"{at}/v1/model").status_code == 200
            assert client.get(f"{at}/livez").status_code == 200
            assert client.get(f"{at}/").status_code == 200
            document = client.get(f"{at}/openapi.json")
            assert document.json()["servers"] == [{"url": "/visual"}]
        bare = client.get("/visual")
        other = client.get("/visually/v1/model")
        told = client.get("/openapi.json", headers={"X-Forwarded-Prefix": "/shop"})
        counted = client.get("/visual/metrics").text

    assert (bare.status_code, bare.headers["location"]) == (308, "visual/")
    assert other.status_code == 404
    assert told.json()["servers"] == [{"url": "/shop"}]
    assert told.headers["etag"] != document.headers["etag"]
    assert 'route="/v1/model"' in counted


@pytest.mark.parametrize("way", ["kept", "taken off"])
def test_nginx_has_it_under_a_path(path: Path, tmp_path: Path, way: str) -> None:
    upstream = f"http://unix:{path}:" + ("/" if way == "taken off" else "")
    told = "X-Forwarded-For $remote_addr; proxy_set_header X-Forwarded-Host $http_host;"
    lines = f"location /visual/ {{ proxy_pass {upstream}; proxy_set_header {told} }}"
    with running_nginx(tmp_path / "n", lines) as root, httpx.Client(timeout=30) as client:
        page = client.get(f"{root}/visual", follow_redirects=True)
        own = client.put(
            f"{root}/visual/v1/items/own", content=png(2), headers={**PNG, "Origin": root}
        )
        job = client.post(f"{root}/visual/v1/jobs", json={"kind": "duplicates", "min_score": 0.999})
        address = job.request.url.join(job.headers["location"])

        assert (page.status_code, page.url.path) == (200, "/visual/")
        assert own.status_code in (200, 201), own.text
        while client.get(address).raise_for_status().json()["state"] in ("queued", "running"):
            time.sleep(0.05)  # for the other way's
        foreign = {**PNG, "Origin": "http://evil.example"}
        other = client.put(f"{root}/visual/v1/items/own", content=png(2), headers=foreign)
        assert (other.status_code, other.json()["code"]) == (403, "cross_site")


def test_a_restart_takes_the_place_of_one_that_was_killed_and_of_none_that_runs(
    model: Path, tmp_path: Path
) -> None:
    write_gallery(tmp_path / "gallery", model)
    path = tmp_path / "s"
    with running_at(path, model, tmp_path / "gallery", tmp_path / "log") as server:
        second = subprocess.run(
            serve_command(model, tmp_path / "gallery", 1, "--unix-socket", str(path)),
            capture_output=True,
            text=True,
            env=clean_environment(),
            check=False,
        )
        server.kill()
    assert path.is_socket()
    assert second.returncode != 0
    assert "another server does" in second.stderr
    with (
        running_at(path, model, tmp_path / "gallery", tmp_path / "log") as server,
        client_at(path) as client,
    ):
        answers: list[int] = []
        threading.Timer(0.1, lambda: os.kill(server.process.pid, signal.SIGTERM)).start()
        try:
            while True:
                answers.append(client.post("/v1/classify", content=png(1)).status_code)
        except httpx.TransportError:
            pass
        server.process.wait(timeout=60)
    assert set(answers) == {200}
    assert not path.exists()


def test_a_path_that_cannot_be_used_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    wrong = {
        tmp_path / "file": "a file is there",
        tmp_path / "none" / "s": "no such folder",
        tmp_path / ("s" * MAX_PATH_BYTES): "at most 107 bytes",
    }
    for path, sentence in wrong.items():
        with pytest.raises(ServiceConfigError, match=sentence):
            check_path(path)

    assert (tmp_path / "file").read_text() == "mine"
    check_path(tmp_path / "new")
