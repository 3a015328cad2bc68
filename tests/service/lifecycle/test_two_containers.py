"""Two servers of one gallery, as in two containers: of other processes, host names and users."""

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import pytest

from index.gallery import Gallery
from tests.support.fakes import clustered_vectors
from tests.support.galleries.small_galleries import write_vectors
from tests.support.images.pngs import png
from tests.support.server.jobs import ended, wait_for
from tests.support.server.servers import (
    Server,
    answered,
    children,
    clean_environment,
    free_port,
    open_folder,
    serve_command,
    wait_until_ready,
)

PNG = {"Content-Type": "image/png"}
STORED = 2_000  # too few to be rebuilt without being asked
USERS = (("first", 0), ("second", 10_001))  # host names, and user ids


@contextmanager
def container(name: str, user: int, model: Path, gallery: Path, log: Path) -> Iterator[Server]:
    """Start a server whose process ids begin at 1, as user ``user`` of the group of all."""
    port = free_port()
    command = serve_command(model, gallery, port, "--workers", "1")
    inside = f'hostname {name} && umask 0000 && exec "$@"'
    own = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc", "--uts", "--ipc")
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*own, "sh", "-c", inside, "sh", *as_user(user), *command],
            stdout=output,
            stderr=subprocess.STDOUT,
            env=clean_environment(HOME=str(log.parent), TMPDIR=str(log.parent)),
            cwd=log.parent,
            start_new_session=True,
        )
    server = Server(f"http://127.0.0.1:{port}", process, log)
    try:
        wait_until_ready(server)
        yield server
    finally:
        if process.poll() is None:
            for pid in children(process.pid):  # its first process
                os.kill(pid, signal.SIGTERM)
            process.wait(timeout=40)


def as_user(user: int) -> list[str]:
    """Return what runs a command as ``user``, who may read all, and write what he is let."""
    if user == 0:
        return []
    reads = ("--inh-caps=-all,+dac_read_search", "--ambient-caps=-all,+dac_read_search")
    return ["setpriv", f"--reuid={user}", "--regid=0", "--clear-groups", *reads]


@pytest.fixture(scope="module")
def pair(model: Path) -> Iterator[tuple[Path, Server, Server]]:
    """A gallery, and two servers of it."""
    namespaces = ["unshare", "--pid", "--fork", "--mount-proc", "--uts", "true"]
    if subprocess.run(namespaces, capture_output=True, check=False).returncode:
        pytest.skip("namespaces cannot be made here: two containers were NOT tried")
    with open_folder() as folder, ExitStack() as stack:
        gallery, model = folder / "gallery", Path(shutil.copytree(model, folder / "model"))
        write_vectors(gallery, model, clustered_vectors(STORED, 256, seed=1))
        servers = []
        for name, user in USERS:
            (folder / name).mkdir()
            subprocess.run(["chmod", "-R", "a+rwX", str(folder)], check=True)
            servers.append(
                stack.enter_context(container(name, user, model, gallery, folder / name / "log"))
            )
        yield gallery, servers[0], servers[1]


def store(client: httpx.Client, item_id: str, number: int) -> int:
    """Store an image, and return the number of the write."""
    answer = client.put(f"/v1/items/{item_id}", content=png(number), headers=PNG)
    seq: int = answered(answer)["seq"]
    return seq


def test_each_sees_at_once_what_the_other_stores(pair: tuple[Path, Server, Server]) -> None:
    _, *servers = pair
    with servers[0].client() as first, servers[1].client() as second:
        for number, (writer, reader) in enumerate([(first, second), (second, first)] * 5):
            seq = store(writer, f"seen-{number}", 700 + number)
            url = f"/v1/search?k=1&min_seq={seq}"
            found = answered(reader.post(url, content=png(700 + number), headers=PNG))
            assert found["hits"][0]["id"] == f"seen-{number}"
        assert answered(first.get("/v1/gallery"))["state"] == "writable"
        assert answered(second.get("/v1/gallery"))["state"] == "writable"


def test_a_job_of_the_one_is_no_dead_one_to_the_other(pair: tuple[Path, Server, Server]) -> None:
    _, *servers = pair
    with servers[0].client() as first, servers[1].client() as second:
        begun = answered(first.post("/v1/jobs", json={"kind": "rebuild", "recall": 0.9}))["id"]
        states = {answered(second.get(f"/v1/jobs/{begun}"))["state"]}
        refused = second.post("/v1/jobs", json={"kind": "rebuild"})
        assert refused.status_code == 409, refused.text
        assert begun in refused.json()["detail"]
        job = ended(second, begun)
        assert states <= {"queued", "running", "done"}
        assert job["state"] == "done", job["problem"]
        generation = answered(first.get("/v1/gallery"))["generation"]
        wait_for(lambda: answered(second.get("/v1/gallery"))["generation"] == generation)


def test_when_the_one_is_killed_the_other_goes_on_with_all_that_was_acknowledged(
    pair: tuple[Path, Server, Server],
) -> None:
    """The last test of this file: it is the end of the first server."""
    gallery, killed, left = pair
    with killed.client() as first, left.client() as second:
        job = answered(first.post("/v1/jobs", json={"kind": "rebuild", "recall": 0.9}))["id"]
        stored = [store(first, f"kept-{number}", 800 + number) for number in range(20)]
        (init,) = children(killed.process.pid)
        os.kill(init, signal.SIGKILL)  # and so all of its namespace
        assert killed.process.wait(timeout=20) != 0
        after = store(second, "after", 900)
        assert after > max(stored)
        for number in range(20):
            assert second.get(f"/v1/items/kept-{number}").status_code == 200
        interrupted = ended(second, job)
        assert interrupted["state"] in ("failed", "done")
        assert answered(second.post("/v1/jobs", json={"kind": "rebuild"}))["id"] != job
        assert second.get("/readyz").status_code == 200
    with Gallery.open(gallery, fingerprint=None) as opened:
        assert opened.verify() == []
