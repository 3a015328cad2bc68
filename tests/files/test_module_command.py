"""Processes that are started in a folder full of traps, by commands and by the server."""

import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from files.module_command import module_environment
from index.gallery import Gallery
from service.telemetry.shared_metrics import started_ticks
from tests.support.crashes.crash_worker_main import WIDTH, item_of
from tests.support.galleries.small_galleries import write_gallery
from tests.support.server.servers import (
    ROOT,
    Server,
    clean_environment,
    free_port,
    wait_until_ready,
)
from tests.support.traps import set_traps

LOOKALIKE = Path(sys.executable).with_name("lookalike")


@pytest.fixture
def gallery(tmp_path: Path) -> Path:
    with Gallery.create(
        tmp_path / "g", model_name="fake", fingerprint="a1" * 32, width=WIDTH
    ) as made:
        made.put([item_of(f"i{n}", n) for n in range(20)])
    return tmp_path / "g"


@pytest.fixture
def gallery_of_model(tmp_path: Path, model: Path) -> Path:
    write_gallery(tmp_path / "of-model", model)
    return tmp_path / "of-model"


def run_there(folder: Path, *arguments: str, **environment: str) -> str:
    """Run `lookalike` with ``folder`` as its current folder, and return what it printed."""
    kept = {n: v for n, v in clean_environment().items() if n != "PYTHONPATH"}
    done = subprocess.run(
        [str(LOOKALIKE), *arguments],
        cwd=folder,
        env={**kept, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    "arguments", [("rebuild",), ("tune", "--recall", "0.9"), ("compact",)], ids=lambda one: one[0]
)
def test_commands_that_start_a_process_never_import_from_the_current_folder(
    tmp_path: Path, gallery: Path, arguments: tuple[str, ...]
) -> None:
    sprung = set_traps(tmp_path / "photos")
    name, *options = arguments

    run_there(tmp_path / "photos", "index", name, str(gallery), *options, "--json")

    assert not sprung.exists(), sprung.read_text()


def test_the_traps_would_be_sprung_by_a_module_that_is_run_the_usual_way(tmp_path: Path) -> None:
    sprung = set_traps(tmp_path)

    subprocess.run(
        [sys.executable, "-m", "index.maintenance.rebuild_process", "x"], cwd=tmp_path, check=False
    )

    assert sprung.exists()


def test_a_process_inherits_no_way_to_the_current_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    for given, left in (
        ("/a:/b", "/a:/b"),
        (":/a", "/a"),
        (".:/a:sub", "/a"),
        (".", None),
        ("", None),
    ):
        monkeypatch.setenv("PYTHONPATH", given)

        environment = module_environment()

        assert environment.get("PYTHONPATH") == left
        assert environment["PYTHONSAFEPATH"] == "1"


def test_the_server_and_its_workers_never_import_from_the_current_folder(
    tmp_path: Path, model: Path, gallery_of_model: Path
) -> None:
    sprung = set_traps(tmp_path / "photos")
    port = free_port()
    kept = {n: v for n, v in clean_environment().items() if n != "PYTHONPATH"}
    command = [str(LOOKALIKE), "serve", "--model", str(model), "--gallery", str(gallery_of_model)]
    log = tmp_path / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*command, "--port", str(port), "--workers", "2"],
            cwd=tmp_path / "photos",
            env=kept,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    server = Server(f"http://127.0.0.1:{port}", process, log)
    try:
        wait_until_ready(server)
        answer = httpx.post(f"{server.url}/v1/jobs", json={"kind": "rebuild"}, timeout=30)
        place = answer.request.url.join(answer.headers["location"])
        while (job := httpx.get(place, timeout=30).json())["state"] in ("queued", "running"):
            pass
        assert job["state"] == "done", job
    finally:
        server.stop()
    assert not sprung.exists(), sprung.read_text()


ENDS = (
    "import os, time; from files.processes import end_with_parent; end_with_parent(os.getppid()); "
)
STARTS = """
import subprocess, sys, time
from threading import Thread
command = [sys.executable, "-c", sys.argv[1]]
thread = Thread(target=lambda: print(subprocess.Popen(command).pid, flush=True))
thread.start()
thread.join()  # the one that started the process ends: no reason to end that
time.sleep(60)
"""


def test_a_process_ends_with_its_parent_and_not_with_the_thread_that_started_it() -> None:
    command = [sys.executable, "-c", STARTS, f"{ENDS}print('begun', flush=True); time.sleep(60)"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid, begun = int(parent.stdout.readline()), parent.stdout.readline()
        time.sleep(1)
        assert begun == "begun\n"
        assert started_ticks(pid) is not None
        parent.kill()
        parent.wait(timeout=10)
        deadline = time.monotonic() + 10
        while started_ticks(pid) is not None:
            assert time.monotonic() < deadline, "it lives on"
            time.sleep(0.02)
