"""What keeps a server from starting: one clear sentence, exit code 1, and nothing lost."""

import shutil
import socket
import subprocess
from pathlib import Path

import pytest

from index.gallery import Gallery
from tests.conftest import STORED, write_gallery
from tests.models import write_model
from tests.servers import clean_environment, free_port, serve_command
from vision.manifest import WEIGHTS_NAME


def refusal(model: Path, gallery: Path, *options: str, port: int | None = None) -> str:
    """Start a server that must not start; return its one sentence."""
    ended = subprocess.run(
        serve_command(model, gallery, port or free_port(), *options),
        capture_output=True,
        text=True,
        timeout=60,
        env=clean_environment(),
        check=False,
    )
    assert ended.returncode == 1, ended.stderr
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
        ("--body-timeout-s", "-1", "LOOKALIKE_BODY_TIMEOUT_S"),
        ("--log-level", "loud", "LOOKALIKE_LOG_LEVEL"),
        ("--device", "abacus", "device"),
        ("--backups-dir", "/not/there", "the folder for backups, /not/there, must exist"),
        ("--host", "not.an.address", "cannot listen"),
    ],
)
def test_a_setting_out_of_range_refuses_to_start(
    model: Path, tmp_path: Path, option: str, value: str, part: str
) -> None:
    assert part in refusal(model, tmp_path / "gallery", option, value)
