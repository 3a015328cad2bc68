"""Checkpoints: bit for bit the same, refused when harmed, whole wherever writing stops."""

import json
import os
import shutil
from pathlib import Path

import pytest
import torch

from training.errors import CheckpointError
from training.fit.checkpoint import STATE_NAME, Checkpoint, CheckpointFolder

SUBJECT = {"recipe": {"epochs": 3}, "data": {"name": "squares"}}


def checkpoint(epoch: int) -> Checkpoint:
    return Checkpoint(
        SUBJECT,
        {"epoch": epoch, "rates": [0.1, 1e-300]},
        {"weights": torch.arange(6.0).reshape(2, 3) + epoch, "rng": torch.get_rng_state()},
    )


def written(folder: Path) -> list[Path]:
    """Save twice and return the files of the checkpoint."""
    with CheckpointFolder(folder) as place:
        place.save(checkpoint(1))
        place.save(checkpoint(2))
    return [path for path in sorted(folder.iterdir()) if path.name != "lock"]


def load(folder: Path) -> Checkpoint:
    with CheckpointFolder(folder) as place:
        return place.load(SUBJECT)


def test_the_last_checkpoint_comes_back_bit_for_bit_and_older_ones_are_gone(
    tmp_path: Path,
) -> None:
    files = written(tmp_path / "t")
    assert [path.suffix for path in files] == [".safetensors", ".json"]
    back, expected = load(tmp_path / "t"), checkpoint(2)
    assert back.state == expected.state
    assert back.tensors.keys() == expected.tensors.keys()
    for name, tensor in expected.tensors.items():
        assert torch.equal(back.tensors[name], tensor)


def test_every_changed_byte_is_refused(tmp_path: Path) -> None:
    for path in written(tmp_path / "t"):
        whole = path.read_bytes()
        for position in range(0, len(whole), max(1, len(whole) // 60)):
            harmed = bytearray(whole)
            harmed[position] ^= 1
            path.write_bytes(harmed)
            with pytest.raises(CheckpointError):
                load(tmp_path / "t")
        path.write_bytes(whole)
    assert load(tmp_path / "t").state["epoch"] == 2


@pytest.mark.parametrize("cut", [0, 1, 100, -1])
def test_every_truncated_file_is_refused(tmp_path: Path, cut: int) -> None:
    for path in written(tmp_path / "t"):
        whole = path.read_bytes()
        path.write_bytes(whole[:cut])
        with pytest.raises(CheckpointError):
            load(tmp_path / "t")
        path.write_bytes(whole)


@pytest.mark.parametrize("text", ["", "[]", "null", "{}", '{"sha256": 1}', "[" * 100_000])
def test_a_state_that_is_not_ours_is_refused(tmp_path: Path, text: str) -> None:
    written(tmp_path / "t")
    (tmp_path / "t" / STATE_NAME).write_text(text)
    with pytest.raises(CheckpointError, match=STATE_NAME):
        load(tmp_path / "t")


def test_a_missing_tensor_file_is_refused(tmp_path: Path) -> None:
    written(tmp_path / "t")[0].unlink()
    with pytest.raises(CheckpointError, match=r"cannot read .*safetensors: No such file"):
        load(tmp_path / "t")


def test_another_subject_is_refused_and_named(tmp_path: Path) -> None:
    written(tmp_path / "t")
    with (
        CheckpointFolder(tmp_path / "t") as place,
        pytest.raises(CheckpointError, match="another recipe: epochs was 3, now 4"),
    ):
        place.load({**SUBJECT, "recipe": {"epochs": 4}})


def test_a_write_that_stops_anywhere_leaves_the_previous_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A power cut between any two of the calls that change the folder."""
    real_replace, real_fsync = Path.replace, os.fsync
    for allowed in range(8):
        folder = tmp_path / str(allowed)
        with CheckpointFolder(folder) as place:
            place.save(checkpoint(1))
            left = [allowed]

            def cut(left: list[int] = left) -> None:
                left[0] -= 1
                if left[0] < 0:
                    raise KeyboardInterrupt

            with monkeypatch.context() as patch:
                patch.setattr(Path, "replace", lambda *a: (cut(), real_replace(*a))[1])
                patch.setattr(os, "fsync", lambda *a: (cut(), real_fsync(*a))[1])
                try:
                    place.save(checkpoint(2))
                except KeyboardInterrupt:
                    survived = place.load(SUBJECT).state["epoch"]
                    assert survived in (1, 2)
                else:
                    assert place.load(SUBJECT).state["epoch"] == 2
                    assert allowed >= 6
        shutil.rmtree(folder)


def test_a_folder_without_a_checkpoint_is_not_left_behind(tmp_path: Path) -> None:
    with CheckpointFolder(tmp_path / "t") as place:
        assert not place.exists()
    assert not (tmp_path / "t").exists()


def test_a_place_that_cannot_be_a_folder_is_refused_with_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(CheckpointError, match=r"cannot write .*: Not a directory"),
        CheckpointFolder(tmp_path / "file" / "t"),
    ):
        pass


def test_the_state_can_be_read_by_a_person(tmp_path: Path) -> None:
    written(tmp_path / "t")
    fields = json.loads((tmp_path / "t" / STATE_NAME).read_bytes())
    assert fields["state"]["epoch"] == 2
    assert fields["subject"] == SUBJECT
