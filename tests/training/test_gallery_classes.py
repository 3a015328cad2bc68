"""A model that was given classes later is a model like any other: measured, exported, packed."""

import hashlib
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from index.transfer.stored_items import Provenance
from tests.index.operations.test_classes import (
    LABELS,
    of_kinds,
    photo,
    probabilities_of,
    run,
    write_gallery,
)
from tests.support.fakes import unit
from tests.support.models import manifest as small_manifest
from tests.support.models import write_model
from tests.support.server.servers import clean_environment
from training.data.gallery_labels import LabelledItems
from training.data.images.training_record import (
    TRAINING_RECORD_NAME,
    TRAINING_RECORD_SHA256,
    TrainingRecord,
    read_training_record,
)
from training.fit.initialization.predecessor import Predecessor
from training.heads.vector_classifier import FittedClassifier, fit_classes
from vision.inference.open_encoder import open_encoder
from vision.inference.openvino_encoder import RUNTIME
from vision.model.export_folder import read_export
from vision.model.manifest import MANIFEST_NAME, read_manifest
from vision.networks.network import build_network


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model without classes, one with classes of its gallery, and new photos of these."""
    folder = tmp_path_factory.mktemp("classed")
    write_model(folder / "model", labels=())
    write_gallery(folder / "gallery", folder / "model", of_kinds(60))
    made = run("index", "classes", folder / "gallery", "--out", folder / "classed")
    assert made.exit_code == 0, made.output
    for number in range(36):
        path = folder / "photos" / LABELS[number % 3] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(photo(number % 3, 500 + number))
    return folder


def test_it_is_measured_by_its_classes(folder: Path, tmp_path: Path) -> None:
    done = run(
        *("evaluate", folder / "classed", "--data", folder / "photos"),
        *("--report", tmp_path / "report", "--json"),
    )
    assert done.exit_code == 0, done.output
    figures = json.loads(done.stdout)
    assert figures["accuracy"] > 0.9
    assert figures["novelty"]["fitted_on"] == 60


def test_it_is_compared_with_the_model_it_was_made_of(folder: Path) -> None:
    done = run(
        *("compare", folder / "model", folder / "classed", "--data", folder / "photos"),
        *("--must-not-lose", "same_item", "--json"),
    )
    assert done.exit_code == 0, done.output
    assert "same_item" in done.stdout


def test_it_is_exported_anew_with_its_classes(folder: Path) -> None:
    done = run(
        *("export", folder / "classed", "--data", folder / "photos", "--precision", "fp32"),
        *("--min-overlap", "0", "--max-accuracy-loss", "100"),
    )
    assert done.exit_code == 0, done.output
    exported = read_export(folder / "classed", read_manifest(folder / "classed"), RUNTIME)
    assert exported.manifest.difference.accuracy is not None
    assert exported.manifest.difference.accuracy > 0.9
    chances = [
        probabilities_of(
            open_encoder(folder / "classed", device="cpu", runtime=runtime, threads=1), photo(1, 77)
        )
        for runtime in ("torch", "openvino")
    ]
    assert chances[0] == pytest.approx(chances[1], abs=2e-3)


def test_it_is_packed_with_its_classes(folder: Path, tmp_path: Path) -> None:
    packed = subprocess.run(
        [sys.executable, "-m", "cli.main", "pack", str(folder / "classed"), "--json"],
        env=clean_environment(BENTOML_HOME=str(tmp_path), BENTOML_DO_NOT_TRACK="True"),
        capture_output=True,
        text=True,
        check=True,
    )
    name, version = json.loads(packed.stdout)["tag"].split(":")
    stored = tmp_path / "models" / name / version
    encoder = open_encoder(stored, device="cpu", runtime="torch", threads=1)
    assert encoder.manifest.labels == LABELS
    assert int(np.argmax(probabilities_of(encoder, photo(2, 900)))) == 2


def test_a_training_that_goes_on_from_it_begins_its_classifier_anew(folder: Path) -> None:
    """The rows of later classes read vectors, those of a network's classifier the embedding."""
    wanted = small_manifest(labels=LABELS)
    network = build_network(wanted.architecture, wanted.preprocessing)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    Predecessor(folder / "classed", read_manifest(folder / "classed")).warm_start(network, LABELS)
    after = network.state_dict()
    kept = {name for name, tensor in before.items() if torch.equal(tensor, after[name])}
    assert {name for name in kept if name.endswith("weight")} == {"classifier.2.weight"}
    assert "classifier.2.bias" in kept


def test_what_it_learnt_from_is_left_out_of_what_measures_it(folder: Path, tmp_path: Path) -> None:
    """The items join the record of the network, where there is one."""
    write_model(tmp_path / "model", labels=())
    old = TrainingRecord(contents_K=np.array([1, 2], np.uint64), phashes_K=np.zeros(2, np.uint64))
    base = read_manifest(tmp_path / "model")
    sha256 = hashlib.sha256(old.to_bytes()).hexdigest()
    base = replace(base, data={**base.data, TRAINING_RECORD_SHA256: sha256})
    (tmp_path / "model" / TRAINING_RECORD_NAME).write_bytes(old.to_bytes())
    (tmp_path / "model" / MANIFEST_NAME).write_bytes(base.to_bytes())
    new = tmp_path / "new"
    made = run("index", "classes", folder / "gallery", "--model", tmp_path / "model", "--out", new)
    assert made.exit_code == 0, made.output
    record = read_training_record(new, read_manifest(new))
    assert record is not None
    contents = {
        int(hashlib.sha256(photo(number % 3, number)).hexdigest()[:16], 16) for number in range(60)
    }
    assert set(record.contents_K.tolist()) == contents | {1, 2}


def labelled(
    vectors_ND: "np.ndarray[tuple[int, int]]", labels_N: "np.ndarray[tuple[int]]"
) -> LabelledItems:
    count, width = vectors_ND.shape
    return LabelledItems(
        facts=Provenance(model_name="m", fingerprint="f", width=width, count=count, seq=1),
        vectors_ND=vectors_ND,
        names=tuple(f"label-{label}" for label in range(labels_N.max() + 1)),
        labels_N=labels_N,
        contents_N=np.arange(count, dtype=np.uint64),
        groups_N=np.arange(count),
    )


def fit(items: LabelledItems, learnt_N: NDArray[np.bool_]) -> FittedClassifier:
    """Return the classes of vectors that have one part."""
    return fit_classes(items, learnt_N, small_manifest(width=items.facts.width).architecture)


def some(count: int, classes: int, *, spread: float, width: int = 24) -> LabelledItems:
    """Return vectors of classes that lie about as far apart as images of one class."""
    rng = np.random.default_rng(0)
    labels_N = rng.integers(0, classes, count)
    means_LD = rng.normal(size=(classes, width))
    noise_ND = rng.normal(size=(count, width))
    return labelled(unit(means_LD[labels_N] + spread * noise_ND), labels_N)


def test_the_classifier_is_scikit_learns() -> None:
    items = some(900, 4, spread=1.5)
    fitted = fit(items, np.zeros(900, np.bool_))
    theirs = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=fitted.shrinkage)
    theirs.fit(items.vectors_ND, items.labels_N)  # who shrinks to what is even in all directions
    ours_NL = items.vectors_ND @ fitted.classes.weight_LD.T + fitted.classes.bias_L
    logs_L = np.log(np.bincount(items.labels_N) / 900)
    ours_NL = (ours_NL - logs_L) * 900 / (900 - 4) + logs_L  # theirs divides the spread by images
    theirs_NL = theirs.decision_function(items.vectors_ND)
    apart_NL = (ours_NL - ours_NL.mean(axis=1, keepdims=True)) - (
        theirs_NL - theirs_NL.mean(axis=1, keepdims=True)
    )
    assert np.abs(apart_NL).max() < 1e-3 * np.abs(theirs_NL).max()


def test_what_is_said_of_held_out_items_holds_for_new_ones() -> None:
    everything = some(3000, 4, spread=2.5)
    known, new = np.arange(600), np.arange(600, 3000)
    items = labelled(everything.vectors_ND[known], everything.labels_N[known])
    fitted = fit(items, np.zeros(600, np.bool_))
    probabilities_NL = fitted.classes.probabilities(everything.vectors_ND[new], fitted.temperature)
    right_N = probabilities_NL.argmax(axis=1) == everything.labels_N[new]
    assert fitted.interval[0] <= right_N.mean() <= fitted.interval[1]
    assert abs(probabilities_NL.max(axis=1).mean() - right_N.mean()) < 0.04
    refused = [
        not fitted.references.judge(everything.vectors_ND[row], int(given)).sure
        for row, given in zip(new, probabilities_NL.argmax(axis=1), strict=True)
    ]
    assert fitted.references.refused == 0.02
    assert np.mean(refused) < 0.05


def test_items_that_the_network_knew_the_labels_of_are_not_measured_where_there_are_others() -> (
    None
):
    items = some(400, 4, spread=2.5)
    learnt_N = np.arange(400) < 250
    fitted = fit(items, learnt_N)
    assert (fitted.measured, fitted.all_new) == (150, True)
    flattering = fit(items, np.arange(400) < 350)
    assert (flattering.measured, flattering.all_new) == (400, False)


def test_a_label_of_each_item_but_a_few_costs_no_more_than_its_vectors() -> None:
    """Thousands of labels of one photo each are learnt, and those of two are measured."""
    rng = np.random.default_rng(0)
    labels_N = np.concatenate([np.repeat(np.arange(20), 2), np.arange(20, 3000)])
    vectors_ND = unit(rng.normal(size=(3000, 8))[labels_N] + 0.01 * rng.normal(size=(3020, 8)))
    fitted = fit(labelled(vectors_ND, labels_N), np.zeros(3020, np.bool_))
    assert (fitted.measured, fitted.alone) == (40, 2980)
    assert fitted.accuracy > 0.9
    predicted_N = fitted.classes.probabilities(vectors_ND, fitted.temperature).argmax(axis=1)
    assert (predicted_N == labels_N).mean() > 0.99
    assert np.abs(fitted.classes.weight_LD).max() < 1e5  # else rounding decides


def test_of_very_few_items_chances_are_careful() -> None:
    everything = some(400, 3, spread=1.5)
    first = np.concatenate([np.flatnonzero(everything.labels_N == label)[:4] for label in range(3)])
    items = labelled(everything.vectors_ND[first], everything.labels_N[first])
    fitted = fit(items, np.zeros(12, np.bool_))
    rest = np.setdiff1d(np.arange(400), first)
    chances_NL = fitted.classes.probabilities(everything.vectors_ND[rest], fitted.temperature)
    right = (chances_NL.argmax(axis=1) == everything.labels_N[rest]).mean()
    assert right > 0.7
    assert chances_NL.max(axis=1).mean() < right + 0.05
