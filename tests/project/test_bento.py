"""The bento: built from bentofile.yaml with a packed model, and serving the same answers."""

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from packaging.requirements import Requirement

from scripts.locks import read_lock
from tests.support.galleries.small_galleries import write_gallery
from tests.support.images.pngs import png
from tests.support.server.servers import (
    ROOT,
    Server,
    answered,
    clean_environment,
    free_port,
    wait_until_ready,
)
from tests.vision.export.test_export_model import export
from vision.inference.openvino_encoder import RUNTIME
from vision.model.export_folder import read_export
from vision.model.manifest import read_manifest

PNG = {"Content-Type": "image/png"}


def run(*command: str, home: Path, cwd: Path = ROOT) -> str:
    done = subprocess.run(
        [sys.executable, "-m", *command],
        cwd=cwd,
        env=clean_environment(BENTOML_HOME=str(home), BENTOML_DO_NOT_TRACK="True"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def home(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BentoML home with a packed model, and a bento built from a copy of the checkout."""
    folder = tmp_path_factory.mktemp("bento")
    checkout = folder / "checkout"
    for part in (
        "files",
        "vision",
        "dataset",
        "index",
        "training",
        "service",
        "cli",
        "bentofile.yaml",
        "requirements.lock",
        "README.md",
    ):
        if (ROOT / part).is_dir():
            shutil.copytree(ROOT / part, checkout / part)
        else:
            shutil.copy(ROOT / part, checkout / part)
    packed = json.loads(run("cli.main", "pack", str(model), "--json", home=folder / "home"))
    assert packed["fingerprint"] == read_manifest(model).fingerprint
    run("bentoml", "build", home=folder / "home", cwd=checkout)
    shutil.rmtree(checkout)  # the bento must not need it
    return folder / "home"


def test_the_bento_serves_the_same_answers(
    home: Path, model: Path, server: Server, tmp_path: Path
) -> None:
    write_gallery(tmp_path / "gallery", model)
    port = free_port()
    environment = clean_environment(
        BENTOML_HOME=str(home), LOOKALIKE_GALLERY=str(tmp_path / "gallery")
    )
    del environment["PYTHONPATH"]  # its own copy of the code, not this one
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "bentoml", "serve", "lookalike:latest", "--port", str(port)],
            cwd=tmp_path,
            env=environment,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    bento = Server(f"http://127.0.0.1:{port}", process, tmp_path / "log")
    try:
        wait_until_ready(bento)
        for number in range(5):
            for route, part in (("classify", "predictions"), ("search?k=20", "hits")):
                theirs, ours = (
                    answered(httpx.post(f"{url}/v1/{route}", content=png(number), headers=PNG))
                    for url in (server.url, bento.url)
                )
                assert ours[part] == theirs[part]
                assert ours["model"]["fingerprint"] == theirs["model"]["fingerprint"]
        assert httpx.get(f"{bento.url}/").status_code == 200
        assert httpx.get(f"{bento.url}/docs").status_code == 200
        (worker,) = bento.workers()
        assert "bentos/lookalike" in str(Path(f"/proc/{worker}/cwd").readlink())
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=40)


def test_the_bento_holds_the_service_and_its_commands(home: Path) -> None:
    (source,) = home.glob("bentos/lookalike/*/src")

    assert {path.name for path in source.iterdir() if path.is_dir()} == {
        "files",
        "vision",
        "dataset",
        "index",
        "training",
        "service",
        "cli",
    }
    assert (source / "service" / "page" / "index.html").is_file()


def test_the_bento_installs_what_is_locked_by_its_hashes(home: Path) -> None:
    (written,) = home.glob("bentos/lookalike/*/env/python/requirements.txt")
    *lines, last = written.read_text().replace("\\\n", " ").strip().splitlines()
    found = set()
    for requirement, *hashes in (line.split(" --hash=") for line in lines if "==" in line):
        pin = Requirement(requirement)
        found.add((pin.name, str(pin.specifier), str(pin.marker), tuple(map(str.strip, hashes))))
    locked = read_lock(ROOT / "requirements.lock")

    assert found == {(p.name, f"=={p.version}", str(p.marker), p.hashes) for p in locked}
    # BentoML adds itself once more without hashes; uv holds it to those of the pin nevertheless.
    assert last in {f"{pin.name}=={pin.version}" for pin in locked if pin.name == "bentoml"}


def test_an_export_is_packed_with_its_model(model: Path, tmp_path: Path) -> None:
    exported = Path(shutil.copytree(model, tmp_path / "model"))
    export(exported)
    run("cli.main", "pack", str(exported), home=tmp_path / "home")

    (packed,) = (tmp_path / "home" / "models" / "lookalike-model").glob("*/runtimes")
    for path in (packed.parent, *packed.parent.rglob("*")):
        assert path.stat().st_mode & 0o004, "the service may run as another user"
    manifest = read_manifest(exported)
    assert read_export(packed.parent, manifest, RUNTIME) == read_export(exported, manifest, RUNTIME)
