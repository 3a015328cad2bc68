"""A start that cannot succeed, by BentoML's own command as in a container: one sentence, not 0.

What `lookalike serve` refuses, and in which words, is in ../server/test_refusals.py.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.galleries.small_galleries import write_gallery
from tests.support.models import write_model
from tests.support.paths import ROOT
from tests.support.server.servers import clean_environment, free_port, open_folder
from vision.model.manifest import WEIGHTS_NAME


@dataclass(frozen=True)
class BadStart:
    """What is wrong, as variables of the environment, and what is said of it."""

    sentence: str
    code: int = 1
    environment: dict[str, str] | None = None
    make: Callable[[Path, Path], dict[str, str]] | None = None  # of the model and an empty folder


def other_model(model: Path, folder: Path) -> dict[str, str]:
    write_model(folder / "other", seed=1)
    return {"LOOKALIKE_MODEL": str(folder / "other")}


def changed_byte(model: Path, folder: Path) -> dict[str, str]:
    copy = Path(shutil.copytree(model, folder / "copy"))
    data = bytearray((copy / WEIGHTS_NAME).read_bytes())
    data[-1] ^= 1
    (copy / WEIGHTS_NAME).write_bytes(data)
    return {"LOOKALIKE_MODEL": str(copy)}


def damaged_gallery(model: Path, folder: Path) -> dict[str, str]:
    (folder / "gallery.sqlite").write_bytes(b"no database" * 1000)
    return {"LOOKALIKE_GALLERY": str(folder)}


def no_torch(model: Path, folder: Path) -> dict[str, str]:
    (folder / "sitecustomize.py").write_text("import sys\nsys.modules['torch'] = None\n")
    return {"PYTHONPATH": f"{folder}{os.pathsep}{ROOT}"}


def no_temporary_folder(model: Path, folder: Path) -> dict[str, str]:
    """Make Python find none, as where all is read-only; root may write everywhere."""
    program = "import tempfile\ntempfile._candidate_tempdir_list = list\n"
    (folder / "sitecustomize.py").write_text(program)
    return {"PYTHONPATH": f"{folder}{os.pathsep}{ROOT}"}


BAD = {
    "no model named": BadStart("set LOOKALIKE_MODEL", environment={"LOOKALIKE_MODEL": ""}),
    "no model": BadStart("is not a model folder", environment={"LOOKALIKE_MODEL": "/nowhere"}),
    "damaged model": BadStart("was changed: its SHA-256 is", make=changed_byte),
    "neither export nor torch": BadStart("has no export for the CPU", make=no_torch),
    "no GPU": BadStart("has no driver of a GPU", environment={"LOOKALIKE_DEVICE": "cuda"}),
    "no such device": BadStart("unknown device", environment={"LOOKALIKE_DEVICE": "abacus"}),
    "no gallery": BadStart("there is no gallery at", environment={"LOOKALIKE_GALLERY": "/nowhere"}),
    "gallery of another model": BadStart("model", make=other_model),
    "damaged gallery": BadStart("gallery", make=damaged_gallery),
    "setting": BadStart("LOOKALIKE_WORKERS cannot be used", 2, {"LOOKALIKE_WORKERS": "0"}),
    "no key file": BadStart(
        "cannot read the key file", environment={"LOOKALIKE_API_KEYS_FILE": "/nowhere"}
    ),
    "port in use": BadStart("Address already in use; choose another with --port"),
    "no temporary folder": BadStart("mount one at /tmp, or name one", make=no_temporary_folder),
}


@pytest.fixture(scope="module")
def ended(
    model: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, subprocess.CompletedProcess[str]]]:
    """How each of them ended. Two at a time: most of it is BentoML's import."""
    folder = tmp_path_factory.mktemp("bad")
    write_gallery(folder / "gallery", model)

    def start(case: str) -> subprocess.CompletedProcess[str]:
        bad = BAD[case]
        place = folder / case
        place.mkdir()
        environment = {
            "LOOKALIKE_MODEL": str(model),
            "LOOKALIKE_GALLERY": str(folder / "gallery"),
            "BENTOML_CONTAINERIZED": "true",
            **(bad.environment or {}),
            **(bad.make(model, place) if bad.make else {}),
        }
        environment = {name: value for name, value in environment.items() if value}
        port = taken.getsockname()[1] if case == "port in use" else free_port()
        return subprocess.run(
            [sys.executable, "-m", "bentoml", "serve", "service.app:Lookalike", f"--port={port}"],
            cwd=ROOT,
            env=clean_environment(**environment),
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    with socket.socket() as taken, ThreadPoolExecutor(2) as both:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        yield dict(zip(BAD, both.map(start, BAD), strict=True))


@pytest.mark.parametrize("case", BAD)
def test_a_start_that_cannot_succeed_says_why_and_ends(
    ended: dict[str, subprocess.CompletedProcess[str]], case: str
) -> None:
    done = ended[case]
    lines = [json.loads(line) for line in done.stderr.splitlines()]

    assert done.returncode == BAD[case].code
    assert done.stdout == ""
    assert [line["message"] for line in lines if line["level"] == "error"] == [lines[-1]["message"]]
    assert lines[-1]["message"].startswith("the service cannot start: ")
    assert BAD[case].sentence in lines[-1]["message"]


@pytest.mark.skipif(os.getuid() != 0, reason="needs root to become another user")
@pytest.mark.parametrize("unreadable", ["model", "gallery"])
def test_what_another_user_may_not_read_is_named(model: Path, unreadable: str) -> None:
    program = """
import os, sys
from pathlib import Path
from service.app import ServiceConfigError
from service.config import ServiceSettings
from service.inference.preflight import check_start
os.setgid(10001)
os.setuid(10001)
settings = ServiceSettings.from_environment()
try:
    check_start(settings, settings.model)
except Exception as error:
    print(error)
"""
    with open_folder() as folder:
        shutil.copytree(model, folder / "model")
        write_gallery(folder / "gallery", model)
        (folder / unreadable).chmod(0o700)
        done = subprocess.run(
            [sys.executable, "-c", program],
            cwd=ROOT,
            env=clean_environment(
                LOOKALIKE_MODEL=str(folder / "model"), LOOKALIKE_GALLERY=str(folder / "gallery")
            ),
            capture_output=True,
            text=True,
            check=False,
        )

    assert "Permission denied" in done.stdout, done.stderr
    assert str(folder / unreadable) in done.stdout
