"""Model folders: what comes back, what is refused, and what decides the vectors."""

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.support.faults.loop_filesystems import small_filesystem
from tests.support.models import LABELS, manifest, write_model
from vision.errors import DeviceError, ModelFolderError
from vision.inference.torch_encoder import TorchEncoder, pick_device
from vision.model.manifest import MANIFEST_NAME, WEIGHTS_NAME, Manifest, read_manifest, read_weights
from vision.networks.network import build_network
from vision.networks.saved_model import load_model, save_model

# Of random weights of seed 0; a change of preprocessing, network or weights shows here.
GOLDEN_VECTOR = [0.058481, 0.125108, 0.002966, -0.046546]
GOLDEN_PROBABILITIES = [0.060582, 0.047312, 0.106239]

# As the first version wrote it, byte for byte.
OLD_MANIFEST = b"""{
  "format": "lookalike-model",
  "format_version": 1,
  "name": "test-model",
  "architecture": {
    "network": "deck-cnn",
    "embedding_layer": "embedding",
    "width": 256,
    "num_labels": 2
  },
  "labels": [
    "coat",
    "bag"
  ],
  "preprocessing": {
    "size": 28,
    "channels": 3,
    "mean": [
      0.5,
      0.5,
      0.5
    ],
    "std": [
      0.25,
      0.25,
      0.25
    ],
    "fit": "crop",
    "crop_fraction": 1.0,
    "interpolation": "bilinear"
  },
  "weights_sha256": "abababababababababababababababababababababababababababababababab",
  "created": "2026-01-01T00:00:00+00:00",
  "temperature": 1.0,
  "recipe": {
    "name": "none: random weights"
  },
  "data": {},
  "metrics": {
    "test_accuracy": 0.1
  },
  "manifest_sha256": "d83a6514dfc1f42f3170e82644622466579eb1fef5e016b224342b6192b8cde8"
}
"""
OLD_FINGERPRINT = "9f9bdfa6f2206b725a97641b13ddfbb39aa1461d07f270727b0d266a696b65aa"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "sound"
    write_model(path)
    return path


@pytest.fixture(scope="module")
def encoder(folder: Path) -> TorchEncoder:
    return TorchEncoder.load(folder, device="cpu")


@pytest.fixture
def copy(folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(folder, tmp_path / "copy"))


def pixels(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 3, 28, 28), np.uint8)


def flip_byte(path: Path, place: int) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)


def test_a_saved_model_comes_back_as_it_was(tmp_path: Path) -> None:
    unbound = manifest()
    network = build_network(unbound.architecture, unbound.preprocessing).eval()
    images_BCHW = torch.randn(2, 3, 28, 28)

    saved = save_model(tmp_path / "model", unbound, network.state_dict())
    loaded, again = load_model(tmp_path / "model")

    assert loaded == saved == replace(unbound, weights_sha256=saved.weights_sha256)
    torch.testing.assert_close(again(images_BCHW), network(images_BCHW), rtol=0, atol=0)


def test_a_model_folder_holds_nothing_but_json_and_safetensors(folder: Path) -> None:
    assert sorted(path.name for path in folder.iterdir()) == [MANIFEST_NAME, WEIGHTS_NAME]
    assert json.loads((folder / MANIFEST_NAME).read_text())["labels"] == list(LABELS)


def test_any_changed_byte_of_the_manifest_is_refused(copy: Path) -> None:
    path = copy / MANIFEST_NAME
    sound = path.read_bytes()
    for place in range(len(sound)):
        flip_byte(path, place)
        with pytest.raises(ModelFolderError):
            read_manifest(copy)
        path.write_bytes(sound)
    assert read_manifest(copy).labels == LABELS


def test_any_changed_byte_of_the_weights_is_refused(copy: Path) -> None:
    checked = read_manifest(copy)
    size = (copy / WEIGHTS_NAME).stat().st_size
    for place in (0, 7, 8, 100, size // 2, size - 1):
        flip_byte(copy / WEIGHTS_NAME, place)
        with pytest.raises(ModelFolderError, match=r"was changed: its SHA-256 is"):
            read_weights(copy, checked)
        flip_byte(copy / WEIGHTS_NAME, place)
    assert len(read_weights(copy, checked)) == size


def test_a_changed_byte_keeps_the_model_from_loading(copy: Path) -> None:
    flip_byte(copy / WEIGHTS_NAME, 5000)

    with pytest.raises(ModelFolderError, match="was changed"):
        load_model(copy)


@pytest.mark.parametrize("name", [MANIFEST_NAME, WEIGHTS_NAME])
def test_a_missing_file_is_named(copy: Path, name: str) -> None:
    (copy / name).unlink()

    with pytest.raises(ModelFolderError, match=name):
        load_model(copy)


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelFolderError, match="nowhere is not a model folder"):
        load_model(tmp_path / "nowhere")


@pytest.mark.parametrize("text", [b"", b"{}", b"[]", b"null", b"not json", b"\xff", b"[" * 10_000])
def test_something_else_in_place_of_the_manifest_is_refused(copy: Path, text: bytes) -> None:
    (copy / MANIFEST_NAME).write_bytes(text)

    with pytest.raises(ModelFolderError, match=MANIFEST_NAME):
        read_manifest(copy)


def test_a_newer_format_is_told_from_a_damaged_one(copy: Path) -> None:
    path = copy / MANIFEST_NAME
    path.write_text(path.read_text().replace('"format_version": 1', '"format_version": 9'))

    with pytest.raises(ModelFolderError, match="format version 9; this program reads up to 2"):
        read_manifest(copy)


def test_a_network_this_version_does_not_know_is_named(tmp_path: Path) -> None:
    unbound = manifest()
    newer = replace(unbound, architecture=replace(unbound.architecture, network="deck-cnn-2"))
    save_model(tmp_path / "model", newer, {"weight": torch.zeros(1)})

    with pytest.raises(ModelFolderError, match="unknown network 'deck-cnn-2'"):
        load_model(tmp_path / "model")


def test_weights_of_another_architecture_are_refused(tmp_path: Path) -> None:
    save_model(tmp_path / "model", manifest(), {"weight": torch.zeros(1)})

    with pytest.raises(ModelFolderError, match="does not fit a 'deck-cnn' network"):
        load_model(tmp_path / "model")


def test_a_model_folder_is_never_overwritten(copy: Path) -> None:
    before = (copy / WEIGHTS_NAME).read_bytes()

    with pytest.raises(ModelFolderError, match="exists already"):
        save_model(copy, manifest(), {"weight": torch.zeros(1)})

    assert (copy / WEIGHTS_NAME).read_bytes() == before


def test_a_full_disk_leaves_nothing_half_written(tmp_path: Path) -> None:
    with small_filesystem(tmp_path / "disk", megabytes=1) as disk:
        weights = {"weight": torch.zeros(1_000_000)}  # 4 MB

        with pytest.raises(ModelFolderError, match="No space left on device"):
            save_model(disk / "model", manifest(), weights)

        assert os.listdir(disk) == []


def test_the_fingerprint_follows_what_decides_the_vectors() -> None:
    one = replace(manifest(), weights_sha256="00")

    assert replace(one, weights_sha256="01").fingerprint != one.fingerprint
    assert (
        replace(one, preprocessing=replace(one.preprocessing, size=29)).fingerprint
        != one.fingerprint
    )


def test_the_fingerprint_ignores_what_does_not() -> None:
    one = manifest()
    other = replace(one, name="x", metrics={}, temperature=2.0, created="", recipe={}, data={})

    assert other.fingerprint == one.fingerprint


def test_a_folder_written_before_there_were_reductions_is_read_as_it_was() -> None:
    old = Manifest.from_bytes(OLD_MANIFEST)

    assert old.architecture.reduction is None
    assert old.to_bytes() == OLD_MANIFEST
    assert old.fingerprint == OLD_FINGERPRINT


def test_a_reduction_is_written_and_decides_the_vectors() -> None:
    old = Manifest.from_bytes(OLD_MANIFEST)
    new = replace(old, architecture=replace(old.architecture, reduction="pca"))

    assert Manifest.from_bytes(new.to_bytes()) == new
    assert new.fingerprint != old.fingerprint


def test_documents_lie_beside_the_model_and_do_not_change_it(tmp_path: Path) -> None:
    unbound = manifest()
    network = build_network(unbound.architecture, unbound.preprocessing)
    documents = {"training.json": b"{}", "README.md": b"# A model"}

    plain = save_model(tmp_path / "plain", unbound, network.state_dict())
    saved = save_model(tmp_path / "model", unbound, network.state_dict(), lambda _: documents)

    assert saved == plain == load_model(tmp_path / "model")[0]
    assert {name: (tmp_path / "model" / name).read_bytes() for name in documents} == documents


def test_labels_that_do_not_fit_the_classifier_are_refused() -> None:
    with pytest.raises(ValueError, match="10 labels expected, got 2"):
        replace(manifest(), labels=("a", "b"))


def test_labels_may_be_any_text() -> None:
    odd = replace(manifest(), labels=tuple(f'Кроссовки \\ " \n 👟 {n}' for n in range(10)))

    assert Manifest.from_bytes(odd.to_bytes()) == odd


def test_vectors_are_unit_length_and_probabilities_sum_to_one(encoder: TorchEncoder) -> None:
    vectors_BD, probabilities_BL = encoder.encode(pixels(5))

    assert vectors_BD.shape == (5, 256)
    assert probabilities_BL.shape == (5, 10)
    np.testing.assert_allclose(np.linalg.norm(vectors_BD, axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(probabilities_BL.sum(axis=1), 1, atol=1e-5)


def test_an_image_gets_the_same_vector_alone_and_in_a_batch(encoder: TorchEncoder) -> None:
    batch_BCHW = pixels(33)

    together = encoder.encode(batch_BCHW)
    alone = [encoder.encode(batch_BCHW[row : row + 1]) for row in range(33)]

    np.testing.assert_allclose(
        together.vectors_BD, np.concatenate([one.vectors_BD for one in alone]), atol=2e-6
    )
    np.testing.assert_allclose(
        together.probabilities_BL,
        np.concatenate([one.probabilities_BL for one in alone]),
        atol=2e-6,
    )


def test_the_first_numbers_of_a_vector_are_what_they_always_were(encoder: TorchEncoder) -> None:
    ramp = np.arange(3 * 28 * 28, dtype=np.uint32).reshape(1, 3, 28, 28) % 251

    vectors_BD, probabilities_BL = encoder.encode(ramp.astype(np.uint8))

    np.testing.assert_allclose(vectors_BD[0, :4], GOLDEN_VECTOR, atol=1e-5)
    np.testing.assert_allclose(probabilities_BL[0, :3], GOLDEN_PROBABILITIES, atol=1e-5)


def test_the_temperature_softens_probabilities_and_leaves_vectors(tmp_path: Path) -> None:
    unbound = replace(manifest(), temperature=10.0)
    network = build_network(unbound.architecture, unbound.preprocessing)
    cold = TorchEncoder(replace(unbound, temperature=1.0), network, torch.device("cpu"))
    warm = TorchEncoder(unbound, network, torch.device("cpu"))

    sharp, soft = cold.encode(pixels(3)), warm.encode(pixels(3))

    np.testing.assert_array_equal(sharp.vectors_BD, soft.vectors_BD)
    assert (soft.probabilities_BL.max(axis=1) < sharp.probabilities_BL.max(axis=1)).all()


@pytest.mark.parametrize("name", ["gpu", "mps", "cuda:99", "cpu:x", ""])
def test_a_device_that_is_not_there_is_refused_with_a_sentence(name: str) -> None:
    with pytest.raises(DeviceError, match="device"):
        pick_device(name)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_the_gpu_gives_the_cpus_vectors(folder: Path) -> None:
    on_cpu, on_gpu = (TorchEncoder.load(folder, device=name) for name in ("cpu", "cuda"))

    np.testing.assert_allclose(
        on_gpu.encode(pixels(8)).vectors_BD, on_cpu.encode(pixels(8)).vectors_BD, atol=2e-3
    )
