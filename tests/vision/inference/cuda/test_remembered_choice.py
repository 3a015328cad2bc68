"""What was measured on a GPU is found again, or measured again; never more than that."""

from pathlib import Path

import pytest

from vision.inference.cuda.remembered_choice import GpuChoice, RememberedChoice, cache_folder

CHOICE = GpuChoice(precision="bf16", fuses_relu=True)


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def test_a_choice_is_found_for_what_it_was_made_for_only() -> None:
    RememberedChoice("model", "GPU", "2.11").write(CHOICE)

    assert RememberedChoice("model", "GPU", "2.11").read() == CHOICE
    assert RememberedChoice("model", "GPU", "2.12").read() is None
    assert RememberedChoice("model2", "GPU", "2.11").read() is None


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"[]",
        b"{}",
        b"\xff",
        b'{"precision": "fp8", "fuses_relu": true}',
        b'{"precision": "bf16", "fuses_relu": 1}',
        b'{"precision": "bf16", "fuses_relu": true, "more": 1}',
    ],
)
def test_what_cannot_be_read_is_as_if_it_were_not_there(text: bytes) -> None:
    remembered = RememberedChoice("model")
    remembered.write(CHOICE)
    (file,) = (cache_folder() or Path()).rglob("*.json")
    file.write_bytes(text)
    assert remembered.read() is None

    remembered.write(CHOICE)
    assert remembered.read() == CHOICE


def test_without_a_place_to_write_nothing_is_kept(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file where the folder should be")
    remembered = RememberedChoice("model")
    remembered.write(CHOICE)

    assert remembered.read() is None


def test_without_a_home_nothing_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "home", homeless)
    remembered = RememberedChoice("model")
    remembered.write(CHOICE)

    assert remembered.read() is None


def test_a_relative_cache_folder_is_passed_over(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "cache")  # as the XDG specification has it
    monkeypatch.setattr(Path, "home", lambda: tmp_path)

    assert cache_folder() == tmp_path / ".cache" / "lookalike"
