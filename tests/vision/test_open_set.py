"""Whether a picture is one of the things a model knows: limits, files, and the commands."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from typer.testing import CliRunner

from cli.commands import app
from tests.support.images.pngs import png
from tests.support.models import item_and_kind, with_references, write_model
from training.evaluation.novelty import reference_vectors
from vision.errors import ModelFolderError
from vision.inference.torch_encoder import TorchEncoder
from vision.model.manifest import Architecture
from vision.model.open_set import (
    NEIGHBOURS,
    REFERENCES_NAME,
    OpenSetDetector,
    compared_width,
    judge,
    read_detector,
)

WIDTH = 8


def unit(rows: NDArray[np.floating]) -> NDArray[np.float32]:
    return (rows / np.linalg.norm(rows, axis=-1, keepdims=True)).astype(np.float32)


def two_heaps(*, each: int = 20) -> OpenSetDetector:
    """Photos of class 0 about the first axis, of class 1 about the second."""
    rng = np.random.default_rng(0)
    centres = np.eye(2, WIDTH).repeat(each, axis=0)
    return OpenSetDetector(
        vectors_KD=unit(centres + rng.normal(0, 0.05, (2 * each, WIDTH))),
        labels_K=np.arange(2, dtype=np.int32).repeat(each),
        most_distance=0.1,
        least_agreement=0.5,
        refused=0.02,
        fitted_on=100,
    )


def axis(number: int) -> NDArray[np.float32]:
    return np.eye(WIDTH, dtype=np.float32)[number]


def test_what_is_near_and_agrees_is_sure() -> None:
    references = two_heaps()
    assert references.judge(axis(0), 0) == (True, None)
    assert references.judge(axis(1), 1) == (True, None)


def test_what_is_far_from_all_photos_is_not_sure_and_says_how_far() -> None:
    sure, why_not = two_heaps().judge(axis(5), 0)
    assert sure is False
    assert why_not is not None
    assert why_not.code == "far_from_all"
    assert re.search(r"the 10 nearest are up to (0\.9|1\.)\d* away", why_not.detail)
    assert "where at most 0.100 is usual" in why_not.detail


def test_what_lies_among_photos_of_other_classes_is_not_sure() -> None:
    sure, why_not = two_heaps().judge(axis(0), 1)
    assert (sure, why_not and why_not.code) == (False, "neighbours_differ")
    assert why_not is not None
    assert "0% of 10 have this one, where at least 50% is usual" in why_not.detail


def test_nearness_is_that_of_a_slow_search() -> None:
    references = two_heaps()
    rng = np.random.default_rng(1)
    for vector_D in unit(rng.normal(size=(20, WIDTH))):
        order = np.argsort(-(references.vectors_KD @ vector_D))[:NEIGHBOURS]
        distance, agreement = references.near(vector_D, 1)
        furthest = references.vectors_KD[order[-1]] @ vector_D
        assert distance == pytest.approx(1 - furthest, abs=1e-6)
        assert agreement == pytest.approx((references.labels_K[order] == 1).mean())


def test_fewer_photos_than_neighbours_are_all_looked_at() -> None:
    few = two_heaps(each=2)
    assert few.near(axis(0), 0).agreement == 0.5


def test_a_model_without_references_says_that_it_cannot_tell() -> None:
    sure, why_not = judge(None, axis(0), np.array([0.9, 0.1], np.float32))
    assert sure is None
    assert why_not is not None
    assert why_not.code == "not_known"
    assert judge(two_heaps(), axis(0), np.array([0.9, 0.1], np.float32)).sure is True


def test_of_vectors_with_two_parts_the_one_that_tells_things_apart_is_compared() -> None:
    parts = Architecture(
        network="cnn",
        embedding_layer="x",
        width=WIDTH + 2,
        num_labels=2,
        reduction="item-and-kind",
        item_width=WIDTH,
        kind_share=0.5,
    )
    references = two_heaps()
    kind = np.array([1, 0], np.float32)
    both_ND = np.concatenate(
        [references.vectors_KD, np.tile(kind, (len(references.vectors_KD), 1))], axis=1
    ) / np.sqrt(2, dtype=np.float32)
    np.testing.assert_allclose(reference_vectors(both_ND, parts), references.vectors_KD, atol=1e-6)
    assert compared_width(parts) == WIDTH

    near = np.concatenate([axis(0), kind]) / np.sqrt(2, dtype=np.float32)
    far = np.concatenate([axis(5), kind]) / np.sqrt(2, dtype=np.float32)
    assert references.near(near, 0) == references.near(axis(0), 0)
    assert references.judge(near, 0).sure is True
    assert references.judge(far, 0).why_not is not None, "its kind is that of all"


# Files


def test_references_are_read_as_they_were_written_and_the_fingerprint_stays(tmp_path: Path) -> None:
    before = write_model(tmp_path / "m", network="cnn", width=WIDTH)
    assert read_detector(tmp_path / "m", before) is None
    written = two_heaps()
    manifest = with_references(tmp_path / "m", written)
    assert manifest.fingerprint == before.fingerprint
    read = read_detector(tmp_path / "m", manifest)
    assert read is not None
    np.testing.assert_array_equal(read.vectors_KD, written.vectors_KD)
    np.testing.assert_array_equal(read.labels_K, written.labels_K)
    for name in ("most_distance", "least_agreement", "refused", "fitted_on"):
        assert getattr(read, name) == getattr(written, name)


def test_references_that_are_not_the_models_are_refused(tmp_path: Path) -> None:
    write_model(tmp_path / "m", network="cnn", width=WIDTH)
    manifest = with_references(tmp_path / "m", two_heaps())
    path = tmp_path / "m" / REFERENCES_NAME
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(ModelFolderError, match="was changed"):
        read_detector(tmp_path / "m", manifest)
    path.unlink()
    with pytest.raises(ModelFolderError, match="which its manifest names"):
        read_detector(tmp_path / "m", manifest)
    with pytest.raises(ModelFolderError, match="9 numbers each expected"):
        OpenSetDetector.from_bytes(whole, widths=(9,))
    with pytest.raises(ModelFolderError, match="no references in it"):
        OpenSetDetector.from_bytes(b"nothing", widths=(WIDTH,))


def test_references_of_whole_vectors_with_two_parts_are_read_and_compared_as_such(
    tmp_path: Path,
) -> None:
    """So they were written at first."""
    references = two_heaps()
    two_parts = item_and_kind(item_width=WIDTH - 2, kind_width=2, kind_share=0.5)
    write_model(tmp_path / "m", network="cnn", width=WIDTH)
    manifest = with_references(tmp_path / "m", references)
    two_parts = replace(two_parts, num_labels=len(manifest.labels))

    read = read_detector(tmp_path / "m", replace(manifest, architecture=two_parts))
    assert read is not None
    vector_D = unit(np.random.default_rng(1).normal(0, 1, WIDTH))
    assert read.near(vector_D, 1) == references.near(vector_D, 1)


def test_the_command_says_whether_it_is_sure(tmp_path: Path) -> None:
    write_model(tmp_path / "m", network="cnn", width=WIDTH)
    (tmp_path / "a.png").write_bytes(png(0))
    call = ["classify", str(tmp_path / "m"), str(tmp_path / "a.png"), "--device", "cpu"]
    before = json.loads(CliRunner().invoke(app, [*call, "--json"]).stdout)
    assert (before["sure"], before["why_not"]["code"]) == (None, "not_known")

    encoder = TorchEncoder.load(tmp_path / "m", device="cpu")
    preprocessing = encoder.manifest.preprocessing
    pixels_CHW = preprocessing.pixels(preprocessing.decode(png(0)))
    vector_1D, probabilities_1L = encoder.encode(pixels_CHW[None])
    given = np.int32(probabilities_1L.argmax())
    own = OpenSetDetector(
        vectors_KD=vector_1D.repeat(12, axis=0),
        labels_K=given.repeat(12),
        most_distance=0.05,
        least_agreement=0.5,
        refused=0.02,
        fitted_on=50,
    )
    with_references(tmp_path / "m", own)
    near = json.loads(CliRunner().invoke(app, [*call, "--json"]).stdout)
    assert (near["sure"], near["why_not"]) == (True, None)
    with_references(tmp_path / "m", replace(own, vectors_KD=-own.vectors_KD))
    far = CliRunner().invoke(app, call)
    assert "not sure: none of the photos that the model has learnt from is near" in " ".join(
        far.output.split()
    )
