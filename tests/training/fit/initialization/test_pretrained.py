"""Pretrained weights: files, downloads, hashes, refusals; and principal components."""

import hashlib
import io
import os
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from training.errors import WeightsError
from training.fit.initialization.pretrained import load_pretrained
from training.statistics.pca import fit_pca, set_pca
from vision.networks.backbone import Backbone, build_backbone
from vision.networks.model_zoo import create_model, torchvision_models

NAME = "torchvision:squeezenet1_1"  # 2.5 MB of weights


@pytest.fixture(scope="module")
def weights() -> dict[str, Tensor]:
    torch.manual_seed(1)
    return create_model(NAME).state_dict()


@pytest.fixture
def backbone() -> Backbone:
    torch.manual_seed(2)
    return build_backbone(NAME)


def pth(content: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def write(path: Path, content: object) -> Path:
    is_safe = path.suffix == ".safetensors"
    path.write_bytes(safetensors.torch.save(content) if is_safe else pth(content))
    return path


def assert_filled(backbone: Backbone, weights: dict[str, Tensor]) -> None:
    for name, tensor in backbone.body.state_dict().items():
        assert torch.equal(tensor, weights[name]), name


def refused(backbone: Backbone, source: object, sentence: str, **settings: str) -> None:
    """Check that the weights are refused with the sentence and nothing of them has been taken."""
    before = {name: tensor.clone() for name, tensor in backbone.body.state_dict().items()}
    with pytest.raises(WeightsError, match=sentence):
        load_pretrained(backbone, NAME, str(source), **settings)
    assert_filled(backbone, before)


@pytest.mark.parametrize("name", ["weights.safetensors", "weights.pth", "weights.pt"])
def test_a_file_of_weights_fills_the_backbone_and_is_hashed(
    tmp_path: Path, backbone: Backbone, weights: dict[str, Tensor], name: str
) -> None:
    path = write(tmp_path / name, weights)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()

    pretrained = load_pretrained(backbone, NAME, str(path), sha256=digest.upper())

    assert (pretrained.source, pretrained.sha256) == (name, digest)
    assert_filled(backbone, weights)


def wrapped(weights: dict[str, Tensor], how: str) -> object:
    with_prefix = OrderedDict((f"module.{name}", tensor) for name, tensor in weights.items())
    backbone_only = {k: v for k, v in weights.items() if not k.startswith("classifier")}
    return {
        "state_dict": {"state_dict": weights, "epoch": 90},
        "model": {"model": with_prefix},
        "module": with_prefix,
        "no classifier": backbone_only,
        "another classifier": {**backbone_only, "classifier.1.weight": torch.zeros(7, 512, 1, 1)},
        "half precision": {name: tensor.half() for name, tensor in weights.items()},
    }[how]


@pytest.mark.parametrize(
    "how", ["state_dict", "model", "module", "no classifier", "another classifier"]
)
def test_a_training_scripts_wrapping_and_any_classifier_are_accepted(
    tmp_path: Path, backbone: Backbone, weights: dict[str, Tensor], how: str
) -> None:
    path = write(tmp_path / "checkpoint.pth", wrapped(weights, how))

    load_pretrained(backbone, NAME, str(path))

    assert_filled(backbone, weights)


def test_weights_of_half_precision_are_widened(
    tmp_path: Path, backbone: Backbone, weights: dict[str, Tensor]
) -> None:
    path = write(tmp_path / "half.safetensors", wrapped(weights, "half precision"))

    load_pretrained(backbone, NAME, str(path))

    assert_filled(backbone, {name: tensor.half().float() for name, tensor in weights.items()})


def test_old_weights_without_batch_counters_and_with_old_names_are_accepted(
    tmp_path: Path,
) -> None:
    name = "torchvision:densenet121"
    backbone = build_backbone(name, "features.denseblock1")
    new = create_model(name).state_dict()
    old = {
        key.replace(".norm1.", ".norm.1.").replace(".conv2.", ".conv.2."): tensor
        for key, tensor in new.items()
        if not key.endswith("num_batches_tracked")
    }
    assert old.keys() != new.keys()

    load_pretrained(backbone, name, str(write(tmp_path / "old.pth", old)))

    assert_filled(backbone, new)


def test_a_traced_layer_is_filled_too(tmp_path: Path) -> None:
    pytest.importorskip("timm")
    torch.manual_seed(0)
    whole = create_model("timm:test_resnet").eval()
    backbone = build_backbone("timm:test_resnet", "layer4").eval()
    path = write(tmp_path / "timm.safetensors", whole.state_dict())
    images = torch.randn(2, 3, 64, 64)

    load_pretrained(backbone, "timm:test_resnet", str(path))

    maps = whole.forward_features(images)
    torch.testing.assert_close(backbone(images), maps.mean(dim=(2, 3)))


def test_weights_of_another_network_are_refused_with_an_example(
    tmp_path: Path, backbone: Backbone, weights: dict[str, Tensor]
) -> None:
    other = create_model("torchvision:resnet18").state_dict()
    refused(
        backbone, write(tmp_path / "a.pth", other), "of 50 tensors 50 are missing .* 122 are un"
    )
    wide = {**weights, "features.0.weight": torch.zeros(64, 1, 3, 3)}
    refused(
        backbone,
        write(tmp_path / "b.safetensors", wide),
        r"0 are missing and 1 of another form, and 0 are unknown; features.0.weight is "
        r"\(64, 1, 3, 3\) numbers, not \(64, 3, 3, 3\) numbers",
    )
    extra = {**weights, "features.99.weight": torch.zeros(1)}
    refused(backbone, write(tmp_path / "c.pth", extra), "1 are unknown; features.99.weight is unk")
    short = {key: tensor for key, tensor in weights.items() if key != "features.0.bias"}
    refused(
        backbone, write(tmp_path / "d.pth", short), "1 are missing .*features.0.bias is missing"
    )


@pytest.mark.parametrize("name", ["cut.safetensors", "cut.pth"])
def test_a_truncated_file_is_refused(
    tmp_path: Path, backbone: Backbone, weights: dict[str, Tensor], name: str
) -> None:
    path = write(tmp_path / name, weights)
    whole = path.read_bytes()
    for size in (len(whole) - 1000, 100, 5, 0):
        path.write_bytes(whole[:size])
        refused(backbone, path, "is cut short|is not a file of weights")


@pytest.mark.parametrize(
    ("name", "data", "sentence"),
    [
        ("text.pth", b"<html>404</html>", "is not a file of weights"),
        ("text.safetensors", b"<html>404 not found</html>", "is not a safetensors file"),
        ("list.pth", pth([1, 2]), "does not hold tensors by name"),
        ("numbers.pth", pth({"epoch": 3}), "does not hold tensors by name"),
        ("empty.pth", pth({}), "does not hold tensors by name"),
        ("two.pth", pth({"model": {}, "state_dict": {}}), "does not hold tensors by name"),
        ("model.pth", pth(nn.Linear(1, 1)), "which are not loaded because they could run code"),
    ],
)
def test_what_is_not_weights_is_refused_with_a_sentence(
    tmp_path: Path, backbone: Backbone, name: str, data: bytes, sentence: str
) -> None:
    (tmp_path / name).write_bytes(data)

    refused(backbone, tmp_path / name, sentence)


class Harmful:
    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.trace),)


def test_code_in_a_file_is_not_run(tmp_path: Path, backbone: Backbone) -> None:
    path = write(tmp_path / "harmful.pth", {"features.0.weight": Harmful(tmp_path / "trace")})

    refused(backbone, path, "could run code")

    assert not (tmp_path / "trace").exists()


def test_a_changed_byte_is_found_where_a_hash_is_known(
    tmp_path: Path, backbone: Backbone, weights: dict[str, Tensor]
) -> None:
    path = write(tmp_path / "w.safetensors", weights)
    data = bytearray(path.read_bytes())
    digest = hashlib.sha256(data).hexdigest()
    data[-1] ^= 1
    named = tmp_path / f"w-{digest[:8]}.safetensors"
    for file in (path, named):
        file.write_bytes(data)

    refused(backbone, named, "changed or cut short")
    refused(backbone, path, "changed or cut short", sha256=digest)
    refused(backbone, path, "64 hexadecimal digits, got 'abc'", sha256="abc")
    load_pretrained(backbone, NAME, str(path))  # without a hash nobody can know


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, backbone: Backbone) -> None:
    refused(backbone, tmp_path / "none.pth", "there is no weights file .*none.pth")
    (tmp_path / "folder.pth").mkdir()
    refused(backbone, tmp_path / "folder.pth", "cannot read .*folder.pth: Is a directory")


def published(monkeypatch: pytest.MonkeyPatch, home: Path, name: str, url: str) -> Path:
    """Let squeezenet's weights be published at ``url``; return their place in the cache."""
    monkeypatch.setenv("TORCH_HOME", str(home))
    entry = torchvision_models().get_model_weights("squeezenet1_1").DEFAULT
    monkeypatch.setattr(type(entry), "url", property(lambda _: f"{url}/{name}"), raising=False)
    return home / "hub" / "checkpoints" / name


@pytest.mark.parametrize("source", ["IMAGENET1K_V1", "DEFAULT"])
def test_published_weights_are_taken_from_the_cache(
    tmp_path: Path,
    backbone: Backbone,
    weights: dict[str, Tensor],
    monkeypatch: pytest.MonkeyPatch,
    source: str,
) -> None:
    data = pth(weights)
    digest = hashlib.sha256(data).hexdigest()
    path = published(monkeypatch, tmp_path, f"s-{digest[:8]}.pth", "http://127.0.0.1:9")
    path.parent.mkdir(parents=True)
    path.write_bytes(data)

    pretrained = load_pretrained(backbone, NAME, source)

    assert (pretrained.source, pretrained.sha256) == ("IMAGENET1K_V1", digest)
    assert_filled(backbone, weights)
    path.write_bytes(data[:-1])
    refused(backbone, source, "changed or cut short")


def test_published_weights_are_downloaded_and_their_hash_checked(
    tmp_path: Path,
    backbone: Backbone,
    weights: dict[str, Tensor],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data = pth(weights)
    digest = hashlib.sha256(data).hexdigest()
    name = f"s-{digest[:8]}.pth"
    (tmp_path / name).write_bytes(data)
    path = published(monkeypatch, tmp_path / "home", name, tmp_path.as_uri())

    assert load_pretrained(backbone, NAME, "DEFAULT").sha256 == digest

    assert path.read_bytes() == data
    path.unlink()
    (tmp_path / name).write_bytes(data[:-1])
    refused(backbone, "DEFAULT", "invalid hash value")
    assert list(path.parent.iterdir()) == []


def test_without_a_network_the_way_out_is_told(
    tmp_path: Path, backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    published(monkeypatch, tmp_path, "s-b8a52dc0.pth", "http://127.0.0.1:9")

    refused(
        backbone,
        "IMAGENET1K_V1",
        r"cannot download the weights of torchvision:squeezenet1_1: .*refused.* Fetch "
        r"http://127.0.0.1:9/s-b8a52dc0.pth elsewhere and put it into .*checkpoints, "
        r"or name the file: --weights FILE",
    )


def test_what_timm_fetches_is_taken_and_what_it_cannot_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    timm = pytest.importorskip("timm")
    torch.manual_seed(3)
    whole = create_model("timm:test_resnet")
    backbone = build_backbone("timm:test_resnet")
    monkeypatch.setattr(timm, "create_model", lambda name, pretrained: whole)

    pretrained = load_pretrained(backbone, "timm:test_resnet", "pretrained")

    assert_filled(backbone, whole.state_dict())
    assert pretrained.source == "pretrained"
    again = load_pretrained(backbone, "timm:test_resnet", "pretrained", sha256=pretrained.sha256)
    assert again == pretrained

    def offline(name: str, pretrained: bool) -> nn.Module:
        raise ConnectionError("no route to the hub.\nmore")

    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(WeightsError, match=r"hub\. Fetch them .* timm/test_resnet.*--weights FILE"):
        load_pretrained(backbone, "timm:test_resnet", "pretrained")


def test_unknown_weights_are_refused_with_the_known_ones(backbone: Backbone) -> None:
    refused(backbone, "IMAGENET22K", "IMAGENET1K_V1, DEFAULT, a file .* folder, not 'IMAGENET22K'")
    pytest.importorskip("timm")
    timm_backbone = build_backbone("timm:test_resnet")
    with pytest.raises(WeightsError, match=r"are 'pretrained', a file .* folder, not 'DEFAULT'"):
        load_pretrained(timm_backbone, "timm:test_resnet", "DEFAULT")


def test_a_network_of_our_own_has_no_pretrained_weights() -> None:
    with pytest.raises(WeightsError, match="'cnn' is not a network with pretrained weights"):
        load_pretrained(nn.Linear(1, 1), "cnn", "DEFAULT")


def features(count: int = 500, width: int = 12) -> np.ndarray:
    rng = np.random.default_rng(0)
    mixing = rng.normal(size=(width, width)) * np.geomspace(10, 0.1, width)
    return (rng.normal(size=(count, width)) @ mixing + 5).astype(np.float32)


def test_principal_components_are_those_of_a_singular_value_decomposition() -> None:
    features_NF = features()
    weight_DF, bias_D = fit_pca(features_NF, 4)

    centred = features_NF.astype(np.float64) - features_NF.mean(axis=0, dtype=np.float64)
    _, lengths, axes = np.linalg.svd(centred, full_matrices=False)
    stds = lengths[:4] / np.sqrt(len(centred) - 1)
    expected_ND = centred @ axes[:4].T / np.sqrt(stds)
    shortened_ND = features_NF @ weight_DF.T + bias_D
    np.testing.assert_allclose(np.abs(shortened_ND), np.abs(expected_ND), atol=1e-3)
    np.testing.assert_allclose(shortened_ND.var(axis=0, ddof=1), stds, rtol=1e-4)
    np.testing.assert_allclose(shortened_ND.mean(axis=0), 0, atol=1e-4)


def test_the_same_features_give_the_same_components() -> None:
    one, other = fit_pca(features(), 6), fit_pca(features(), 6)

    np.testing.assert_array_equal(one[0], other[0])
    np.testing.assert_array_equal(one[1], other[1])
    assert (one[0][np.arange(6), np.abs(one[0]).argmax(axis=1)] > 0).all()


def test_a_component_without_variance_is_zero_and_not_amplified() -> None:
    features_NF = np.repeat(features(50, 3), 2, axis=1)  # rank 3

    weight_DF, bias_D = fit_pca(features_NF, 5)

    assert np.isfinite(weight_DF).all()
    np.testing.assert_array_equal(weight_DF[3:], 0)
    np.testing.assert_array_equal(bias_D[3:], 0)


@pytest.mark.parametrize(
    ("features_NF", "width", "sentence"),
    [
        (features(5), 5, "12 features of 5 images have up to 4 principal components; asked for 5"),
        (features(), 13, "up to 12 principal components; asked for 13"),
        (features(), 0, "asked for 0"),
        (np.full((9, 3), 0.1, np.float32), 2, "the same for every image"),
        (np.array([[1, 2], [np.nan, 1], [2, 1]], np.float32), 1, "not finite"),
        (np.array([[1, 2], [np.inf, 1], [2, 1]], np.float32), 1, "not finite"),
        (np.zeros(3, np.float32), 1, r"shape \(N, F\)"),
    ],
)
def test_features_without_principal_components_are_refused(
    features_NF: np.ndarray, width: int, sentence: str
) -> None:
    with pytest.raises(ValueError, match=sentence):
        fit_pca(features_NF, width)


def test_a_linear_layer_becomes_the_principal_components() -> None:
    layer = nn.Linear(12, 4)
    features_NF = torch.from_numpy(features())

    set_pca(layer, features_NF)

    weight_DF, bias_D = fit_pca(features_NF.numpy(), 4)
    np.testing.assert_array_equal(layer.weight.detach(), weight_DF)
    np.testing.assert_array_equal(layer.bias.detach(), bias_D)
    with pytest.raises(ValueError, match="need a linear layer with bias"):
        set_pca(nn.Identity(), features_NF)
