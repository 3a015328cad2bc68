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

from tests.support.models import item_and_kind, write_model
from tests.support.models import manifest as unbound_manifest
from tests.support.paths import DATA, ROOT
from vision.errors import DeviceError, ExportError, ModelFolderError
from vision.export.encoding_comparison import compare_encodings
from vision.export.export_model import export_model
from vision.export.variant_selection import ExportImages, pick_variant
from vision.image.preprocessing import Preprocessing
from vision.inference.open_encoder import open_encoder, takes_export
from vision.inference.openvino_encoder import RUNTIME, OpenVinoEncoder
from vision.inference.openvino_import import has_bf16
from vision.inference.torch_encoder import TorchEncoder
from vision.model.export_accuracy import LossLimits
from vision.model.export_folder import (
    ExportManifest,
    MeasuredVariant,
    has_export,
    read_export,
    runtime_folder,
    write_export,
)
from vision.model.manifest import Architecture, Manifest, read_manifest
from vision.networks.network import build_network
from vision.networks.saved_model import save_model

LENIENT = LossLimits(min_overlap=0.0, max_accuracy_loss=1.0)  # of random weights nothing is asked
FIRST_MANIFEST = DATA / "export-0.5.0.json"


def sample_for(manifest: Manifest, images: int = 24) -> ExportImages:
    """Smooth random pictures, labelled at random: every one is another."""
    preprocessing = manifest.preprocessing
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (2 * images, preprocessing.channels, 4, 4))
    times = -(-preprocessing.size // 4)
    large = coarse.repeat(times, axis=2).repeat(times, axis=3).astype(np.uint8)
    pixels_NCHW = np.ascontiguousarray(large[:, :, : preprocessing.size, : preprocessing.size])
    return ExportImages(
        data="made up",
        calibration_NCHW=pixels_NCHW[:images],
        test_NCHW=pixels_NCHW[images:],
        labels_N=rng.integers(0, max(1, len(manifest.labels)), images),
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
    again = compare_encodings(expected, given, labels_N)
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
    files = list(runtime_folder(copy, RUNTIME).iterdir())
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
    (network,) = runtime_folder(copy, RUNTIME).glob("*.bin")
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


@pytest.mark.parametrize("version", [0, 3, None])
def test_an_unknown_version_is_refused(copy: Path, version: object) -> None:
    path = runtime_folder(copy, RUNTIME) / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "format_version": version}))
    with pytest.raises(ModelFolderError, match=f"format version {version!r}"):
        read_export(copy, read_manifest(copy), RUNTIME)


def test_a_manifest_that_names_a_file_elsewhere_is_refused(copy: Path) -> None:
    found = read_export(copy, read_manifest(copy), RUNTIME)
    secret = copy.parent / "secret"
    secret.write_text("not for the network")
    sha256 = hashlib.sha256(secret.read_bytes()).hexdigest()
    pointing = replace(found.manifest, files={"../../../secret": sha256})
    (runtime_folder(copy, RUNTIME) / "manifest.json").write_bytes(pointing.to_bytes())
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
            floats="fp32",
            threads=1,
        )
    assert set(found.files) == set(found.manifest.files)


def test_an_export_that_loses_too_much_is_refused_with_the_figures(tmp_path: Path) -> None:
    write_model(tmp_path / "m")
    wanted = r"int8: searching its own vectors, it finds less than 110% .* mean cosine 0\.9"
    with pytest.raises(ExportError, match=wanted) as error:
        export(tmp_path / "m", limits=LossLimits(min_overlap=1.1))
    assert "--precision fp32 loses nothing" in str(error.value)
    assert not (tmp_path / "m" / "runtimes").exists()


def test_auto_times_every_precision_and_takes_the_quickest_that_holds(tmp_path: Path) -> None:
    write_model(tmp_path / "m")
    found = export(tmp_path / "m", precision="auto")
    forms = ["fp32", "int8"]
    if has_bf16():
        forms = ["fp32", "bf16", "int8", "int8 and bf16"]
    assert [attempt.name for attempt in found.tried] == forms
    chosen = pick_variant(found.tried)
    assert chosen is not None
    compared = [one for one in found.tried if one.difference is not None]
    assert [one.name for one in compared if one.refusal is None] == [chosen.name]
    assert (chosen.precision, chosen.floats) == (found.precision, found.floats)
    assert chosen.difference == found.difference
    assert found.batch in (1, 4, 16)
    read = read_export(tmp_path / "m", read_manifest(tmp_path / "m"), RUNTIME).manifest
    assert read == found
    encoder = open_encoder(tmp_path / "m", device="cpu", runtime="auto", threads=1)
    assert encoder.batch_size == found.batch


def test_what_loses_too_much_is_passed_over_and_the_next_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_model(tmp_path / "m")
    ms = iter((4.0, 2.0, 1.0, 0.5) if has_bf16() else (4.0, 1.0))
    monkeypatch.setattr(
        "vision.export.variant_selection._measure_cpu_ms",
        lambda encoders, _: [{"1": next(ms)} for _ in encoders],
    )
    found = export(tmp_path / "m", precision="auto", limits=LossLimits(min_overlap=0.9999))
    assert found.precision in ("fp32", "bf16")
    assert found.difference.neighbours is not None
    assert found.difference.neighbours.overlap >= 0.9999
    integers = [one for one in found.tried if one.precision == "int8"]
    assert integers
    for one in integers:
        assert one.difference is not None
        assert one.refusal is not None
        assert "finds less than" in one.refusal


def test_auto_without_images_to_calibrate_with_leaves_integers_out(tmp_path: Path) -> None:
    manifest = write_model(tmp_path / "m")
    sample = sample_for(manifest)
    found = export_model(
        tmp_path / "m",
        replace(sample, calibration_NCHW=sample.calibration_NCHW[:0]),
        precision="auto",
        limits=LENIENT,
        threads=1,
    )
    assert "int8" not in [attempt.precision for attempt in found.tried]


def attempt(precision: str, floats: str, ms: float, refusal: str | None = None) -> MeasuredVariant:
    measured = ExportManifest.from_bytes(FIRST_MANIFEST.read_bytes()).difference
    return MeasuredVariant(
        precision=precision,  # type: ignore[arg-type]
        floats=floats,  # type: ignore[arg-type]
        cpu_ms={"1": 2 * ms, "4": ms},
        difference=measured,
        refusal=refusal,
    )


def test_the_quickest_that_holds_is_picked_and_a_less_exact_one_only_if_it_gains() -> None:
    exact, half = attempt("fp32", "fp32", 10.0), attempt("bf16", "bf16", 5.0)
    hardly, refused = attempt("int8", "fp32", 4.4), attempt("int8", "bf16", 1.0, "too coarse")
    assert pick_variant([exact, half, hardly, refused]) == half
    assert pick_variant([exact, half, attempt("int8", "bf16", 4.0)]).precision == "int8"  # type: ignore[union-attr]
    assert pick_variant([exact, refused]) == exact
    assert pick_variant([refused]) is None


def test_an_export_in_bf16_computes_in_fp32_where_the_processor_has_no_bf16(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    manifest = write_model(tmp_path / "m")
    export(tmp_path / "m", precision="fp32")
    found = read_export(tmp_path / "m", manifest, RUNTIME)
    as_bf16 = replace(found.manifest, precision="bf16", floats="bf16")
    write_export(tmp_path / "m", replace(found, manifest=as_bf16))
    monkeypatch.setattr("vision.inference.openvino_encoder.has_bf16", lambda: False)
    with caplog.at_level("WARNING", "lookalike.vision"):
        encoder = open_encoder(tmp_path / "m", device="cpu", runtime="auto", threads=1)
    assert encoder.runtime.precision == "fp32"
    assert encoder.runtime.note is not None
    assert "this processor has no bfloat16: computes in fp32" in encoder.runtime.note
    assert encoder.runtime.note in caplog.text
    torchs = open_encoder(tmp_path / "m", device="cpu", runtime="torch", threads=1)
    pixels_BCHW = sample_for(manifest).test_NCHW
    np.testing.assert_allclose(
        encoder.encode(pixels_BCHW).vectors_BD, torchs.encode(pixels_BCHW).vectors_BD, atol=1e-5
    )


def test_bf16_is_measured_where_the_processor_has_it_and_refused_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_model(tmp_path / "m")
    if has_bf16():
        export(tmp_path / "m", precision="bf16")
        encoder = open_encoder(tmp_path / "m", device="cpu", runtime="auto", threads=1)
        assert encoder.runtime.precision == "bf16"
        assert encoder.runtime.note is None
    monkeypatch.setattr("vision.export.export_model.has_bf16", lambda: False)
    with pytest.raises(ExportError, match="does not multiply bfloat16"):
        export(tmp_path / "m", precision="bf16")


def test_an_export_written_by_0_5_0_is_read_as_it_was() -> None:
    text = FIRST_MANIFEST.read_bytes()
    found = ExportManifest.from_bytes(text)
    assert found.to_bytes() == text
    assert (found.precision, found.floats, found.batch) == ("int8", "fp32", None)
    assert found.difference.neighbours is None


def test_an_export_of_0_5_0_still_computes(copy: Path) -> None:
    found = read_export(copy, read_manifest(copy), RUNTIME)
    old = replace(found.manifest, format_version=1, floats="fp32", batch=None, tried=())
    old = replace(old, difference=replace(old.difference, neighbours=None))
    write_export(copy, replace(found, manifest=old))
    encoder = open_encoder(copy, device="cpu", runtime="auto", threads=1)
    assert encoder.runtime.precision == "int8"
    assert encoder.runtime.difference == old.difference
    assert encoder.batch_size == 16


def test_a_refused_export_leaves_the_one_before(copy: Path) -> None:
    before = {path: path.read_bytes() for path in runtime_folder(copy, RUNTIME).iterdir()}
    with pytest.raises(ExportError):
        export(copy, limits=LossLimits(min_overlap=1.1))
    assert {path: path.read_bytes() for path in runtime_folder(copy, RUNTIME).iterdir()} == before


def test_a_new_export_takes_the_place_of_the_old_one(copy: Path) -> None:
    before = read_export(copy, read_manifest(copy), RUNTIME)
    export(copy, precision="fp32")
    after = read_export(copy, read_manifest(copy), RUNTIME)

    assert (before.manifest.precision, after.manifest.precision) == ("int8", "fp32")
    assert after.manifest.calibration is None
    names = {path.name for path in runtime_folder(copy, RUNTIME).iterdir()}
    assert names == {"manifest.json", *after.files}


def test_an_export_that_cannot_be_written_leaves_the_one_before(copy: Path) -> None:
    found = read_export(copy, read_manifest(copy), RUNTIME)
    (runtime_folder(copy, RUNTIME) / "blocked").mkdir()
    with pytest.raises(ModelFolderError, match="cannot write"):
        write_export(copy, replace(found, files={"blocked": b""}))
    assert read_export(copy, read_manifest(copy), RUNTIME) == found


def test_auto_takes_the_export_on_a_cpu_and_torch_elsewhere(exported: Path, model: Path) -> None:
    assert has_export(exported, RUNTIME)
    assert takes_export(exported, device="cpu", runtime="auto")
    assert not takes_export(exported, device="cuda:0", runtime="auto")
    assert not takes_export(exported, device="cpu", runtime="torch")
    assert not takes_export(model, device="cpu", runtime="auto")
    assert isinstance(open_encoder(model, device="cpu", runtime="auto", threads=1), TorchEncoder)
    with pytest.raises(DeviceError, match="for the CPU"):
        takes_export(exported, device="cuda", runtime="openvino")
    with pytest.raises(ModelFolderError, match=r"no manifest\.json"):
        open_encoder(model, device="cpu", runtime="openvino", threads=1)


def test_a_damaged_export_is_refused_and_not_passed_over(copy: Path) -> None:
    path = runtime_folder(copy, RUNTIME) / "manifest.json"
    path.write_bytes(path.read_bytes().replace(b"int8", b"int7"))
    with pytest.raises(ModelFolderError, match="changed after it was written"):
        open_encoder(copy, device="cpu", runtime="auto", threads=1)


def test_the_export_runs_without_torch_and_reports_to_nobody(exported: Path) -> None:
    """In a process of its own: which modules and libraries it has loaded at the end."""
    program = f"""
import sys
from pathlib import Path
import numpy as np
from vision.inference.open_encoder import open_encoder
encoder = open_encoder(Path({str(exported)!r}), device="cpu", runtime="auto", threads=1)
encoder.warm_up((1, 8))
assert encoder.encode(np.zeros((3, 3, 28, 28), np.uint8)).vectors_BD.shape == (3, 256)
loaded = {{name.split(".")[0] for name in sys.modules if sys.modules[name] is not None}}
unwanted = {{"torch", "torchvision", "timm", "scipy", "sklearn", "onnx",
            "openvino_telemetry", "nncf"}}
print(sorted(loaded & unwanted), "libtorch" in Path("/proc/self/maps").read_text())
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.stdout.strip() == "[] False", done.stdout + done.stderr


def test_calibrating_says_nothing_and_reports_to_nobody(tmp_path: Path) -> None:
    """In a process of its own, because the quantizer is another one where pytest is loaded."""
    write_model(tmp_path / "m")
    program = f"""
import logging, sys
from pathlib import Path
import numpy as np
from vision.model.export_accuracy import LossLimits
from vision.export.export_model import export_model
from vision.export.variant_selection import ExportImages
loggers = logging.getLoggerClass()
pixels = np.random.default_rng(0).integers(0, 256, (8, 3, 28, 28), np.uint8)
labels = np.zeros(8, int)
sample = ExportImages(data="made up", calibration_NCHW=pixels, test_NCHW=pixels, labels_N=labels)
limits = LossLimits(min_overlap=0.0, max_accuracy_loss=1.0)
export_model(Path({str(tmp_path / "m")!r}), sample, precision="int8", limits=limits, threads=1)
assert logging.getLoggerClass() is loggers
assert "nncf" in sys.modules
assert sys.modules["openvino_telemetry"] is None
assert not [name for name in sys.modules if name.startswith("openvino_telemetry.")]
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


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
        (
            item_and_kind(item_width=32, kind_width=3, kind_share=0.4, num_labels=4),
            Preprocessing(size=64, channels=3, mean=(0.5,) * 3, std=(0.25,) * 3),
        ),
        (
            Architecture(
                network="torchvision:squeezenet1_1",
                embedding_layer="penultimate",
                width=32,
                num_labels=0,
                reduction="pca",
                mirrored=True,
            ),
            Preprocessing(size=64, channels=3, mean=(0.5,) * 3, std=(0.25,) * 3),
        ),
    ],
    ids=["cnn", "torchvision", "timm", "item and kind, mirrored", "no classes"],
)
def test_networks_of_every_kind_can_be_exported(
    tmp_path: Path,
    architecture: Architecture,
    preprocessing: Preprocessing,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # The variants in bfloat16 are tried above, with a network that is compiled sooner.
    monkeypatch.setattr("vision.export.export_model.has_bf16", lambda: False)
    monkeypatch.setattr(
        "vision.export.variant_selection.LEAST_GAIN", np.inf
    )  # the most exact is compared, and taken
    unbound = replace(
        unbound_manifest(labels=("a", "b", "c", "d")[: architecture.num_labels]),
        architecture=architecture,
        preprocessing=preprocessing,
    )
    torch.manual_seed(0)
    network = build_network(architecture, preprocessing)
    save_model(tmp_path / "m", unbound, network.state_dict())
    found = export(tmp_path / "m", precision="auto")
    assert found.difference.cosine_min > 0.9999
    assert {one.precision for one in found.tried} >= {"fp32", "int8"}
    encoder = open_encoder(tmp_path / "m", device="cpu", runtime="openvino", threads=1)
    encoding = encoder.encode(sample_for(unbound).test_NCHW[:3])
    assert encoding.vectors_BD.shape == (3, architecture.width)
    assert encoding.probabilities_BL.shape == (3, architecture.num_labels)
    np.testing.assert_allclose(np.linalg.norm(encoding.vectors_BD, axis=1), 1, atol=1e-3)
