"""A server of an exported model: no torch in any of its processes, and the same answers."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest

from tests.support.galleries.small_galleries import write_gallery
from tests.support.images.pngs import png
from tests.support.server.servers import (
    ROOT,
    Server,
    answered,
    children,
    clean_environment,
    running_server,
)
from tests.vision.export.test_export_model import export
from vision.inference.openvino_encoder import RUNTIME
from vision.model.export_folder import read_export, runtime_folder
from vision.model.manifest import read_manifest

PNG = {"Content-Type": "image/png"}


@pytest.fixture(scope="module")
def exported(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = Path(shutil.copytree(model, tmp_path_factory.mktemp("runtime") / "model"))
    export(folder)
    return folder


@pytest.fixture(scope="module")
def light_server(exported: Path) -> Iterator[Server]:
    write_gallery(exported.parent / "gallery", exported)
    gallery, log = exported.parent / "gallery", exported.parent / "log.txt"
    with running_server(exported, gallery, log, "--workers", "2") as running:
        yield running


def libraries_of(pid: int) -> str:
    return Path(f"/proc/{pid}/maps").read_text()


def test_no_process_of_the_server_loads_torch(light_server: Server) -> None:
    with light_server.client() as client:  # also not with the first requests
        assert client.post("/v1/search", content=png(1), headers=PNG).status_code == 200
        assert client.post("/v1/classify", content=png(1), headers=PNG).status_code == 200
    processes = [light_server.process.pid, *children(light_server.process.pid)]
    assert len(light_server.workers()) == 2
    assert "libopenvino" in "".join(map(libraries_of, processes))
    for pid in processes:
        for library in ("libtorch", "/torch/", "/nncf/", "/scipy/", "/sklearn/"):
            assert library not in libraries_of(pid), pid


def test_what_the_command_and_the_supervisor_import_knows_no_torch(
    exported: Path, tmp_path: Path
) -> None:
    """The command replaces itself by the server, so its own imports are looked at beforehand."""
    program = f"""
import os, sys
os.environ |= {{
    "LOOKALIKE_MODEL": {str(exported)!r},
    "LOOKALIKE_GALLERY": {str(tmp_path / "gallery")!r},
    "LOOKALIKE_CREATE": "true",
}}
import cli.commands
from service.config import ServiceSettings
from service.inference.preflight import check_settings
settings = ServiceSettings.from_environment()
check_settings(settings, settings.model)
import service.app, service.api.application
print(sorted({{"torch", "torchvision", "timm", "scipy", "sklearn"}} & set(sys.modules)))
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env=clean_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.strip() == "[]", done.stdout + done.stderr


def test_the_model_says_what_computes_and_how_far_it_is_from_torch(
    light_server: Server, server: Server, exported: Path
) -> None:
    measured = read_export(exported, read_manifest(exported), RUNTIME).manifest.difference
    ours, torchs = (httpx.get(f"{one.url}/v1/model").json() for one in (light_server, server))

    assert ours["runtime"]["name"] == "openvino"
    assert ours["runtime"]["precision"] == "int8"
    assert ours["runtime"]["difference"] == measured.to_json()
    assert ours["runtime"]["difference"]["neighbours"]["images"] == measured.images
    assert ours["runtime"]["note"] is None
    assert torchs["runtime"] == {
        "name": "torch",
        "precision": "fp32",
        "difference": None,
        "note": None,
    }
    assert ours["fingerprint"] == torchs["fingerprint"]


def test_both_runtimes_find_and_say_the_same(light_server: Server, server: Server) -> None:
    for number in range(10):
        ours, torchs = (
            {
                route: answered(
                    httpx.post(f"{one.url}/v1/{route}", content=png(number), headers=PNG)
                )
                for route in ("search", "classify", "embed")
            }
            for one in (light_server, server)
        )
        assert ours["search"]["hits"][0]["id"] == torchs["search"]["hits"][0]["id"]
        assert ours["search"]["hits"][0]["score"] > 0.99
        assert ours["classify"]["probability"] == pytest.approx(
            torchs["classify"]["probability"], abs=0.05
        )
        vectors = [one["embed"]["results"][0]["vector"] for one in (ours, torchs)]
        assert float(np.dot(*vectors)) > 0.99


def test_a_damaged_export_is_a_sentence_before_the_server_starts(
    exported: Path, tmp_path: Path
) -> None:
    harmed = Path(shutil.copytree(exported, tmp_path / "model"))
    (weights,) = runtime_folder(harmed, RUNTIME).glob("*.bin")
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x00\x01")
    command = [sys.executable, "-m", "cli.main", "serve", "--model", str(harmed)]
    done = subprocess.run(
        [*command, "--gallery", str(tmp_path / "gallery"), "--port", "1"],
        env=clean_environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 1
    assert f"{weights.name} was changed" in " ".join(done.stderr.split())
