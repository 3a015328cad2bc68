"""Exports: the same answers as torch, every byte checked, refused where they lose too much."""

import hashlib
import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.models import manifest as unbound_manifest
from tests.models import write_model
from vision.encoder import Encoder
from vision.errors import DeviceError, ExportError, ModelFolderError
from vision.export import Limits, Sample, compare, export_model
from vision.exported import (
    ExportManifest,
    export_folder,
    has_export,
    read_export,
    write_export,
)
from vision.manifest import Architecture, Manifest, read_manifest
from vision.model import save_model
from vision.network import build_network
from vision.openvino_encoder import RUNTIME, OpenVinoEncoder
from vision.preprocess import Preprocessing
from vision.runtimes import open_encoder, takes_export

ROOT = Path(__file__).parents[1]
LENIENT = Limits(min_cosine=0.9, max_accuracy_loss=1.0)  # of random weights nothing more is asked


def sample_for(manifest: Manifest, images: int = 24) -> Sample:
    """Smooth random pictures, labelled at random: every one is another."""
    preprocessing = manifest.preprocessing
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (2 * images, preprocessing.channels, 4, 4))
    times = -(-preprocessing.size // 4)
    large = coarse.repeat(times, axis=2).repeat(times, axis=3).astype(np.uint8)
    pixels_NCHW = np.ascontiguousarray(large[:, :, : preprocessing.size, : preprocessing.size])
    return Sample(
        data="made up",
        calibration_NCHW=pixels_NCHW[:images],
        test_NCHW=pixels_NCHW[images:],
        labels_N=rng.integers(0, len(manifest.labels), images),
    )


def export(folder: Path, **settings: object) -> ExportManifest:
    asked: dict[str, object] = {"precision": "int8", "limits": LENIENT, "threads": 1, **settings}
    return export_model(folder, sample_for(read_manifest(folder)), **asked)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder with an int8 export; only looked at."""
    folder = tmp_path_factory.mktemp("exported") / "model"
    write_model(folder)
    export(folder)
    return folder


@pytest.fixture
def copy(exported: Path, tmp_path: Path) -> Path:
    """A copy of it, to be harmed."""
    return Path(shutil.copytree(exported, tmp_path / "copy"))


def test_an_export_leaves_the_models_own_files_as_they_are(tmp_path: Path) -> None:
    write_model(tmp_path / "m")
    before = {path.name: path.read_bytes() for path in (tmp_path / "m").iterdir()}
    export(tmp_path / "m", precision="fp32")

    after = {path.name: path for path in (tmp_path / "m").iterdir()}
    assert set(after) == {*before, "runtimes"}
    assert all(after[name].read_bytes() == data for name, data in before.items())


@pytest.mark.parametrize("precision", ["fp32", "int8"])
@pytest.mark.parametrize(("channels", "size"), [(1, 28), (3, 28), (3, 41)])
def test_an_export_answers_as_torch_does(
    tmp_path: Path, precision: str, channels: int, size: int
) -> None:
    write_model(tmp_path / "m", channels=channels, size=size)
    measured = export(tmp_path / "m", precision=precision).difference
    torchs, ours = (
        open_encoder(tmp_path / "m", device="cpu", runtime=runtime, threads=1)
        for runtime in ("torch", "openvino")
    )

    pixels_BCHW = sample_for(ours.manifest).test_NCHW
    expected, given = torchs.encode(pixels_BCHW), ours.encode(pixels_BCHW)
    tolerance = 1e-5 if precision == "fp32" else 0.05
    np.testing.assert_allclose(given.vectors_BD, expected.vectors_BD, atol=tolerance)
    np.testing.assert_allclose(given.probabilities_BL, expected.probabilities_BL, atol=tolerance)
    np.testing.assert_allclose(np.linalg.norm(given.vectors_BD, axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(given.probabilities_BL.sum(axis=1), 1, atol=1e-5)
    assert given.vectors_BD.dtype == given.probabilities_BL.dtype == np.float32
    labels_N = sample_for(ours.manifest).labels_N
    again = compare(expected, given, labels_N)
    assert again.cosine_mean == pytest.approx(measured.cosine_mean, abs=1e-6)
    assert ours.runtime.difference == measured
    assert torchs.runtime.difference is None


def test_batches_of_any_size_give_an_image_the_same_vector(exported: Path) -> None:
    encoder = open_encoder(exported, device="cpu", runtime="auto", threads=1)
    pixels_BCHW = sample_for(encoder.manifest).test_NCHW
    together = encoder.encode(pixels_BCHW).vectors_BD
    for size in (1, 2, 3, 7, len(pixels_BCHW)):
        np.testing.assert_allclose(
            encoder.encode(pixels_BCHW[:size]).vectors_BD, together[:size], atol=1e-5
        )


def test_an_answer_stays_when_the_next_batch_comes(exported: Path) -> None:
    encoder = open_encoder(exported, device="cpu", runtime="auto", threads=1)
    pixels_BCHW = sample_for(encoder.manifest).test_NCHW
    first = encoder.encode(pixels_BCHW[:2]).vectors_BD
    kept = first.copy()
    encoder.encode(pixels_BCHW[2:4])
    np.testing.assert_array_equal(first, kept)


def test_the_temperature_is_in_the_probabilities(tmp_path: Path) -> None:
    unbound = replace(unbound_manifest(), temperature=3.0)
    network = build_network(unbound.architecture, unbound.preprocessing)
    save_model(tmp_path / "m", unbound, network.state_dict())
    export(tmp_path / "m", precision="fp32")

    pixels_BCHW = sample_for(unbound).test_NCHW
    given, expected = (
        open_encoder(tmp_path / "m", device="cpu", runtime=runtime, threads=1).encode(pixels_BCHW)
        for runtime in ("openvino", "torch")
    )
    np.testing.assert_allclose(given.probabilities_BL, expected.probabilities_BL, atol=1e-6)


def test_every_changed_byte_is_refused(copy: Path) -> None:
    manifest = read_manifest(copy)
    files = list(export_folder(copy, RUNTIME).iterdir())
    assert {path.suffix for path in files} == {".json", ".xml", ".bin"}
    for path in files:
        whole = path.read_bytes()
        for position in np.linspace(0, len(whole) - 1, 40).astype(int):
            harmed = bytearray(whole)
            harmed[position] ^= 1
            path.write_bytes(harmed)
            with pytest.raises(ModelFolderError):
                read_export(copy, manifest, RUNTIME)
        path.write_bytes(whole)
    read_export(copy, manifest, RUNTIME)


def test_a_missing_file_is_refused(copy: Path) -> None:
    (network,) = export_folder(copy, RUNTIME).glob("*.bin")
    network.unlink()
    with pytest.raises(ModelFolderError, match=f"no {network.name}"):
        read_export(copy, read_manifest(copy), RUNTIME)


def test_an_export_of_another_model_is_refused(copy: Path, tmp_path: Path) -> None:
    other = write_model(tmp_path / "other", seed=1)
    shutil.copytree(copy / "runtimes", tmp_path / "other" / "runtimes")
    with pytest.raises(ModelFolderError, match="was made of another model"):
        read_export(tmp_path / "other", other, RUNTIME)
    with pytest.raises(ModelFolderError, match="was made of another model"):
        open_encoder(tmp_path / "other", device="cpu", runtime="auto", threads=1)


@pytest.mark.parametrize("version", [0, 2, None])
def test_an_unknown_version_is_refused(copy: Path, version: object) -> None:
    path = export_folder(copy, RUNTIME) / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "format_version": version}))
    with pytest.raises(ModelFolderError, match=f"format version {version!r}"):
        read_export(copy, read_manifest(copy), RUNTIME)


def test_a_manifest_that_names_a_file_elsewhere_is_refused(copy: Path) -> None:
    found = read_export(copy, read_manifest(copy), RUNTIME)
    secret = copy.parent / "secret"
    secret.write_text("not for the network")
    sha256 = hashlib.sha256(secret.read_bytes()).hexdigest()
    pointing = replace(found.manifest, files={"../../../secret": sha256})
    (export_folder(copy, RUNTIME) / "manifest.json").write_bytes(pointing.to_bytes())
    with pytest.raises(ModelFolderError, match="names a file that is not in it"):
        read_export(copy, read_manifest(copy), RUNTIME)


def test_files_that_are_no_network_are_refused_with_a_sentence(copy: Path) -> None:
    found = read_export(copy, read_manifest(copy), RUNTIME)
    files = {"network.xml": b"<net/>", "network.bin": b""}
    with pytest.raises(ModelFolderError, match="OpenVINO cannot run this network"):
        OpenVinoEncoder(
            read_manifest(copy),
            files,
            runtime=open_encoder(copy, device="cpu", runtime="openvino", threads=1).runtime,
            threads=1,
        )
    assert set(found.files) == set(found.manifest.files)


def test_an_export_that_loses_too_much_is_refused_with_the_figures(tmp_path: Path) -> None:
    write_model(tmp_path / "m")
    with pytest.raises(ExportError, match=r"mean cosine is below 1\.1.*mean cosine 0\.9") as error:
        export(tmp_path / "m", limits=Limits(min_cosine=1.1))
    assert "with its most sensitive layers in fp32" in str(error.value)
    assert not (tmp_path / "m" / "runtimes").exists()


def test_accuracy_that_is_lost_is_refused(tmp_path: Path) -> None:
    write_model(tmp_path / "m")
    with pytest.raises(ExportError, match="loses more than -100 points of accuracy"):
        export(tmp_path / "m", precision="fp32", limits=Limits(max_accuracy_loss=-1))


def test_a_refused_export_leaves_the_one_before(copy: Path) -> None:
    before = {path: path.read_bytes() for path in export_folder(copy, RUNTIME).iterdir()}
    with pytest.raises(ExportError):
        export(copy, limits=Limits(min_cosine=1.1))
    assert {path: path.read_bytes() for path in export_folder(copy, RUNTIME).iterdir()} == before


def test_a_new_export_takes_the_place_of_the_old_one(copy: Path) -> None:
    before = read_export(copy, read_manifest(copy), RUNTIME)
    export(copy, precision="fp32")
    after = read_export(copy, read_manifest(copy), RUNTIME)

    assert (before.manifest.precision, after.manifest.precision) == ("int8", "fp32")
    assert after.manifest.calibration is None
    names = {path.name for path in export_folder(copy, RUNTIME).iterdir()}
    assert names == {"manifest.json", *after.files}


def test_an_export_that_cannot_be_written_leaves_the_one_before(copy: Path) -> None:
    found = read_export(copy, read_manifest(copy), RUNTIME)
    (export_folder(copy, RUNTIME) / "blocked").mkdir()
    with pytest.raises(ModelFolderError, match="cannot write"):
        write_export(copy, replace(found, files={"blocked": b""}))
    assert read_export(copy, read_manifest(copy), RUNTIME) == found


def test_auto_takes_the_export_on_a_cpu_and_torch_elsewhere(exported: Path, model: Path) -> None:
    assert has_export(exported, RUNTIME)
    assert takes_export(exported, device="cpu", runtime="auto")
    assert not takes_export(exported, device="cuda:0", runtime="auto")
    assert not takes_export(exported, device="cpu", runtime="torch")
    assert not takes_export(model, device="cpu", runtime="auto")
    assert isinstance(open_encoder(model, device="cpu", runtime="auto", threads=1), Encoder)
    with pytest.raises(DeviceError, match="for the CPU"):
        takes_export(exported, device="cuda", runtime="openvino")
    with pytest.raises(ModelFolderError, match=r"no manifest\.json"):
        open_encoder(model, device="cpu", runtime="openvino", threads=1)


def test_a_damaged_export_is_refused_and_not_passed_over(copy: Path) -> None:
    path = export_folder(copy, RUNTIME) / "manifest.json"
    path.write_bytes(path.read_bytes().replace(b"int8", b"int7"))
    with pytest.raises(ModelFolderError, match="changed after it was written"):
        open_encoder(copy, device="cpu", runtime="auto", threads=1)


def test_the_export_runs_without_torch_and_reports_to_nobody(exported: Path) -> None:
    """In a process of its own: which modules and libraries it has loaded at the end."""
    program = f"""
import sys
from pathlib import Path
import numpy as np
from vision.runtimes import open_encoder
encoder = open_encoder(Path({str(exported)!r}), device="cpu", runtime="auto", threads=1)
encoder.warm_up((1, 8))
assert encoder.encode(np.zeros((3, 3, 28, 28), np.uint8)).vectors_BD.shape == (3, 256)
loaded = {{name.split(".")[0] for name in sys.modules if sys.modules[name] is not None}}
unwanted = {{"torch", "torchvision", "timm", "scipy", "sklearn", "onnx", "onnxruntime",
            "openvino_telemetry"}}
print(sorted(loaded & unwanted), "libtorch" in Path("/proc/self/maps").read_text())
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.stdout.strip() == "[] False", done.stdout + done.stderr


@pytest.mark.parametrize(
    ("architecture", "preprocessing"),
    [
        (
            Architecture(network="cnn", embedding_layer="embedding", width=128, num_labels=4),
            Preprocessing(size=28, channels=1, mean=(0.3,), std=(0.35,)),
        ),
        (
            Architecture(
                network="torchvision:squeezenet1_1",
                embedding_layer="penultimate",
                width=32,
                num_labels=4,
                reduction="projection",
            ),
            Preprocessing(size=64, channels=3, mean=(0.5,) * 3, std=(0.25,) * 3),
        ),
        (
            Architecture(
                network="timm:tf_efficientnet_lite0",
                embedding_layer="blocks.3+penultimate",
                width=64,
                num_labels=4,
                reduction="pca",
            ),
            Preprocessing(size=64, channels=3, mean=(0.5,) * 3, std=(0.25,) * 3),
        ),
    ],
    ids=["cnn", "torchvision", "timm"],
)
def test_networks_of_every_kind_can_be_exported(
    tmp_path: Path, architecture: Architecture, preprocessing: Preprocessing
) -> None:
    unbound = replace(
        unbound_manifest(labels=("a", "b", "c", "d")),
        architecture=architecture,
        preprocessing=preprocessing,
    )
    torch.manual_seed(0)
    network = build_network(architecture, preprocessing)
    save_model(tmp_path / "m", unbound, network.state_dict())
    assert export(tmp_path / "m", precision="fp32").difference.cosine_min > 0.9999
    export(tmp_path / "m", precision="int8", limits=Limits(min_cosine=-1, max_accuracy_loss=1))
    encoder = open_encoder(tmp_path / "m", device="cpu", runtime="openvino", threads=1)
    assert encoder.encode(sample_for(unbound).test_NCHW[:3]).vectors_BD.shape[0] == 3
