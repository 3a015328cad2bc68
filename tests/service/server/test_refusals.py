"""What keeps a server from starting: one clear sentence, an exit code, and nothing lost."""

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from index.gallery import Gallery
from tests.support.galleries.small_galleries import STORED, write_gallery
from tests.support.models import write_model
from tests.support.server.servers import (
    ROOT,
    Server,
    clean_environment,
    free_port,
    running_server,
    serve_command,
    wait_until_ready,
)
from vision.model.manifest import WEIGHTS_NAME


def refusal(
    model: Path,
    gallery: Path,
    *options: str,
    port: int | None = None,
    create: bool = True,
    code: int = 1,
) -> str:
    """Start a server that must not start; return its one sentence."""
    creating = ["--create"] if create else []
    ended = subprocess.run(
        serve_command(model, gallery, port or free_port(), *creating, *options),
        capture_output=True,
        text=True,
        timeout=60,
        env=clean_environment(),
        check=False,
    )
    assert ended.returncode == code, ended.stderr
    assert ended.stdout == ""
    lines = ended.stderr.strip().splitlines()
    assert len(lines) == 1, ended.stderr
    return lines[0]


def test_a_changed_byte_of_the_model_refuses_to_start(model: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(model, tmp_path / "copy"))
    data = bytearray((copy / WEIGHTS_NAME).read_bytes())
    data[-1] ^= 1
    (copy / WEIGHTS_NAME).write_bytes(data)

    assert "was changed: its SHA-256 is" in refusal(copy, tmp_path / "gallery")
    assert not (tmp_path / "gallery").exists()


def test_a_gallery_of_another_model_refuses_to_start(model: Path, tmp_path: Path) -> None:
    write_model(tmp_path / "other", seed=1)
    write_gallery(tmp_path / "gallery", model)

    assert "model" in refusal(tmp_path / "other", tmp_path / "gallery")
    with Gallery.open(tmp_path / "gallery", fingerprint=None) as gallery:
        assert gallery.count == STORED


def test_a_damaged_gallery_refuses_to_start(model: Path, tmp_path: Path) -> None:
    (tmp_path / "gallery").mkdir()
    (tmp_path / "gallery" / "gallery.sqlite").write_bytes(b"no database" * 1000)

    assert "gallery" in refusal(model, tmp_path / "gallery")


def test_a_gallery_that_is_not_there_is_not_made_unasked(model: Path, tmp_path: Path) -> None:
    write_gallery(tmp_path / "gallery", model)
    sentence = refusal(model, tmp_path / "galery", create=False)

    assert f"there is no gallery at {tmp_path / 'galery'}: name one that exists, or" in sentence
    assert "make a new, empty one with --create (LOOKALIKE_CREATE=true)" in sentence
    assert not (tmp_path / "galery").exists()


@pytest.mark.parametrize("names", [(), ("lost+found",)], ids=["empty", "a new disk"])
def test_a_folder_where_no_disk_is_mounted_is_left_alone(
    model: Path, tmp_path: Path, names: tuple[str, ...]
) -> None:
    place = tmp_path / "mount"
    for name in ("", *names):
        (place / name).mkdir()

    sentence = refusal(model, place, create=False)

    assert f"the folder {place} is empty: if a disk belongs there, mount it; or else" in sentence
    assert tuple(path.name for path in place.iterdir()) == names


def test_a_folder_of_other_things_is_never_made_a_gallery(model: Path, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").write_bytes(b"")

    assert "the folder is not empty" in refusal(model, tmp_path / "photos")
    assert os.listdir(tmp_path / "photos") == ["a.jpg"]


def test_a_new_gallery_is_made_when_asked_for_and_told_of(model: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    with running_server(model, tmp_path / "new", log, "--create") as server:
        assert httpx.get(f"{server.url}/v1/gallery").json()["count"] == 0
        (worker,) = server.workers()
        environment = Path(f"/proc/{worker}/environ").read_bytes().split(b"\0")
        assert b"LOOKALIKE_CREATE=false" in environment, "a later worker would make a second one"
    lines = [json.loads(line) for line in log.read_text().splitlines()]  # nothing else is there
    assert f"made the new gallery {tmp_path / 'new'}" in [line.get("message") for line in lines]
    assert (tmp_path / "new" / "gallery.sqlite").exists()


def test_bentoml_alone_makes_a_gallery_only_where_the_environment_says_so(
    model: Path, tmp_path: Path
) -> None:
    for create in ("false", "true"):
        environment = clean_environment(
            LOOKALIKE_MODEL=str(model),
            LOOKALIKE_GALLERY=str(tmp_path / "new"),
            LOOKALIKE_CREATE=create,
        )
        port = free_port()
        command = [sys.executable, "-m", "bentoml", "serve", "service.app:Lookalike"]
        with (tmp_path / "log").open("wb") as log:
            process = subprocess.Popen(
                [*command, "--port", str(port)],
                cwd=ROOT,
                env=environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        server = Server(f"http://127.0.0.1:{port}", process, tmp_path / "log")
        try:
            if create == "true":
                wait_until_ready(server)
            else:
                assert process.wait(timeout=60) == 1
                assert "there is no gallery at" in server.log.read_text()
            assert (tmp_path / "new").exists() == (create == "true")
        finally:
            server.stop()


def test_a_model_that_is_not_there_refuses_to_start(tmp_path: Path) -> None:
    assert "is not a model folder" in refusal(tmp_path / "nowhere", tmp_path / "gallery")


def test_a_port_in_use_refuses_to_start(model: Path, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]

        sentence = refusal(model, tmp_path / "gallery", port=port)

    assert f"port {port}: Address already in use; choose another with --port" in sentence


@pytest.mark.parametrize(
    ("text", "part"),
    [
        (None, "cannot read the key file"),
        ("not toml", "is not TOML"),
        ("keys = []", "keys"),
        ('[[keys]]\nname = "a"\nsha256 = "00"\nrights = ["read"]', "sha256"),
        (f'[[keys]]\nname = "a"\nsha256 = "{"0" * 64}"\nrights = ["root"]', "rights"),
    ],
)
def test_a_key_file_that_cannot_be_used_refuses_to_start(
    model: Path, tmp_path: Path, text: str | None, part: str
) -> None:
    keys = tmp_path / "keys.toml"
    if text is not None:
        keys.write_text(text)

    assert part in refusal(model, tmp_path / "gallery", "--api-keys-file", str(keys))


@pytest.mark.parametrize(
    ("option", "value", "part"),
    [
        ("--max-queue", "0", "LOOKALIKE_MAX_QUEUE"),
        ("--workers", "0", "LOOKALIKE_WORKERS"),
        ("--body-timeout-s", "-1", "LOOKALIKE_BODY_TIMEOUT_S"),
        ("--log-level", "loud", "LOOKALIKE_LOG_LEVEL"),
        ("--host", "not.an.address", "cannot listen"),
    ],
)
def test_a_setting_out_of_range_is_wrong_use(
    model: Path, tmp_path: Path, option: str, value: str, part: str
) -> None:
    assert part in refusal(model, tmp_path / "gallery", option, value, code=2)


@pytest.mark.parametrize(
    ("option", "value", "part"),
    [
        ("--device", "abacus", "device"),
        ("--backups-dir", "/not/there", "the folder for backups, /not/there, must exist"),
        ("--imports-dir", "/not/there", "the folder for imports, /not/there, must exist"),
        ("--imports-dir", "/etc/hostname", "the folder for imports, /etc/hostname, must exist"),
    ],
)
def test_a_setting_that_names_what_is_not_there_refuses_to_start(
    model: Path, tmp_path: Path, option: str, value: str, part: str
) -> None:
    assert part in refusal(model, tmp_path / "gallery", option, value)
