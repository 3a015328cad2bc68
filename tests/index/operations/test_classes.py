"""Labels that items were given in a gallery become the classes of a model."""

import hashlib
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from cli.commands import app
from index.gallery import Gallery
from index.items.item import NewItem
from tests.support.images.pngs import encoded, picture
from tests.support.models import write_model
from tests.support.server.servers import running_server
from tests.vision.export.test_export_model import export
from tests.vision.inference.test_encoders import KINDS, opened
from vision.errors import ModelFolderError
from vision.inference.encoder import ImageEncoder
from vision.inference.open_encoder import open_encoder
from vision.inference.openvino_encoder import RUNTIME
from vision.inference.torch_encoder import TorchEncoder
from vision.model.export_folder import read_export
from vision.model.manifest import WEIGHTS_NAME, Manifest, read_manifest
from vision.model.open_set import read_detector
from vision.model.vector_classifier import CLASSIFIER_NAME, read_classifier

LABELS = ("Δελτα", "खत", "雪 خط")  # in the order of their code points
PNG = {"Content-Type": "image/png"}


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(one) for one in arguments])


def said(result: Result) -> str:
    return " ".join(result.stderr.replace("\u2502", " ").split())


def photo(kind: int, number: int) -> bytes:
    """Return a picture of one of three kinds, told apart by their colour."""
    image = np.asarray(picture(1000 * kind + number, (40, 36))) // 2
    image[:, :, kind] += 90
    return encoded(Image.fromarray(image))


def vectors_of(encoder: ImageEncoder, files: list[bytes]) -> "np.ndarray[tuple[int, int]]":
    preprocessing = encoder.manifest.preprocessing
    pixels = np.stack([preprocessing.pixels(preprocessing.decode(data)) for data in files])
    return encoder.encode(pixels).vectors_BD


def probabilities_of(encoder: ImageEncoder, data: bytes) -> list[float]:
    preprocessing = encoder.manifest.preprocessing
    pixels = preprocessing.pixels(preprocessing.decode(data))[None]
    return [round(float(one), 4) for one in encoder.encode(pixels).probabilities_BL[0]]


def write_gallery(folder: Path, model: Path, labels: list[str | None]) -> None:
    """Write a gallery of a photo for each of the labels; their kinds take turns."""
    encoder = TorchEncoder.load(model, device="cpu")
    files = [photo(number % 3, number) for number in range(len(labels))]
    vectors = vectors_of(encoder, files) if files else []
    with Gallery.create(
        folder,
        model_name=encoder.manifest.name,
        fingerprint=encoder.manifest.fingerprint,
        width=encoder.manifest.architecture.width,
        model_folder=model,
    ) as gallery:
        gallery.put(
            [
                NewItem(
                    id=f"photo-{number}",
                    vector_D=vectors[number],
                    label=label,
                    metadata={},
                    thumbnail=None,
                    content_sha256=hashlib.sha256(files[number]).hexdigest(),
                )
                for number, label in enumerate(labels)
            ]
        )


def of_kinds(count: int, *, unlabelled: int = 0) -> list[str | None]:
    return [*(LABELS[number % 3] for number in range(count)), *[None] * unlabelled]


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model without classes, exported, and a gallery of it with some labels."""
    folder = tmp_path_factory.mktemp("plain")
    write_model(folder / "model", labels=())
    export(folder / "model", precision="fp32")
    write_gallery(folder / "gallery", folder / "model", of_kinds(60, unlabelled=12))
    return folder


@pytest.fixture(scope="module")
def classed(plain: Path) -> Path:
    """The same folder, with the model that the command makes."""
    made = run("index", "classes", plain / "gallery", "--out", plain / "classed", "--json")
    assert made.exit_code == 0, made.output
    (plain / "said.json").write_text(made.stdout)
    return plain


def test_the_vectors_stay_what_they_are(classed: Path) -> None:
    old, new = (read_manifest(classed / name) for name in ("model", "classed"))
    assert new.fingerprint == old.fingerprint
    assert new.architecture == old.architecture
    weights = [(classed / name / WEIGHTS_NAME).read_bytes() for name in ("model", "classed")]
    assert weights[0] == weights[1]
    assert new.labels == LABELS
    exports = [
        read_export(classed / name, of, RUNTIME) for name, of in (("model", old), ("classed", new))
    ]
    assert exports[0].files == exports[1].files


def test_it_says_what_was_learnt_and_how_sure_that_is(classed: Path) -> None:
    figures = json.loads((classed / "said.json").read_text())
    assert (figures["classes_before"], figures["classes"]) == (0, 3)
    assert (figures["items"], figures["labelled"], figures["measured"]) == (72, 60, 60)
    assert figures["labels"] == list(LABELS)
    low, high = figures["accuracy_interval"]
    assert 0.9 < low < figures["accuracy"] <= high <= 1
    assert read_manifest(classed / "classed").metrics["held_out_accuracy"] == figures["accuracy"]


@pytest.mark.parametrize("kind", KINDS)
def test_new_photos_get_their_class_by_every_runtime(classed: Path, kind: str) -> None:
    encoder = opened(classed / "classed", kind)
    by_torch = TorchEncoder.load(classed / "classed", device="cpu")
    right = 0
    for number in range(30):
        chances = probabilities_of(encoder, photo(number % 3, 500 + number))
        assert sum(chances) == pytest.approx(1, abs=1e-3)
        exact = probabilities_of(by_torch, photo(number % 3, 500 + number))
        assert chances == pytest.approx(exact, abs=2e-3)
        right += int(np.argmax(chances)) == number % 3
    assert right >= 28


def test_most_new_photos_are_sure_and_a_chessboard_is_not(classed: Path) -> None:
    model = classed / "classed"
    manifest = read_manifest(model)
    references = read_detector(model, manifest)
    assert references is not None
    assert references.fitted_on == 60
    encoder = TorchEncoder.load(model, device="cpu")
    files = [photo(number % 3, 500 + number) for number in range(40)]
    sure = [
        references.judge(vector_D, number % 3).sure
        for number, vector_D in enumerate(vectors_of(encoder, files))
    ]
    assert sum(map(bool, sure)) >= 36
    board = np.indices((36, 40)).sum(axis=0)[:, :, None] % 2 * np.full(3, 255)
    chess = vectors_of(encoder, [encoded(Image.fromarray(board.astype(np.uint8)))])[0]
    assert not references.judge(chess, 0).sure


def test_the_new_folder_serves_the_old_gallery_and_search_is_the_same(
    plain: Path, tmp_path: Path
) -> None:
    """A model without classes, labels over HTTP, the command, and the same gallery served again."""
    model, gallery, new = plain / "model", tmp_path / "gallery", tmp_path / "new"
    write_gallery(gallery, model, [None] * 6)
    with running_server(model, gallery, tmp_path / "log") as server, server.client() as client:
        refused = client.post("/v1/classify", content=photo(0, 1), headers=PNG)
        assert refused.status_code == 409
        assert "lookalike index classes" in refused.json()["detail"]
        for number in range(30):
            label = {"label": LABELS[number % 3]}
            put = client.put(
                f"/v1/items/new-{number}",
                params=label,
                content=photo(number % 3, number),
                headers=PNG,
            )
            put.raise_for_status()
        before = _hits(client)

    made = run("index", "classes", gallery, "--model", model, "--out", new)

    assert made.exit_code == 0, made.output
    with running_server(new, gallery, tmp_path / "log2") as server, server.client() as client:
        assert _hits(client) == before
        assert client.get("/v1/model").json()["labels"] == list(LABELS)
        for kind in range(3):
            answer = client.post("/v1/classify", content=photo(kind, 900), headers=PNG)
            assert answer.status_code == 200
            assert answer.json()["label"] == LABELS[kind]
            assert answer.json()["sure"] in (True, False)


def _hits(client: httpx.Client) -> object:
    answer = client.post("/v1/search", content=photo(1, 777), headers=PNG)
    answer.raise_for_status()
    return answer.json()["hits"]


def test_classes_that_a_model_had_are_replaced_which_is_said(tmp_path: Path) -> None:
    write_model(tmp_path / "model")
    write_gallery(tmp_path / "gallery", tmp_path / "model", of_kinds(45))

    first = run("index", "classes", tmp_path / "gallery", "--out", tmp_path / "first")
    again = run(
        *("index", "classes", tmp_path / "gallery", "--out", tmp_path / "again"),
        *("--model", tmp_path / "first"),
    )

    assert "had 10 classes, which these replace" in " ".join(first.stdout.split())
    assert "had 3 classes, which these replace" in " ".join(again.stdout.split())
    # It cannot be known what this model had learnt from.
    assert "flattering" in first.stdout
    old, new = (read_manifest(tmp_path / name) for name in ("first", "again"))
    assert (old.fingerprint, old.classes_sha256) == (new.fingerprint, new.classes_sha256)
    photos = [photo(number % 3, 500 + number) for number in range(6)]
    encoder = TorchEncoder.load(tmp_path / "again", device="cpu")
    assert [int(np.argmax(probabilities_of(encoder, data))) for data in photos] == [0, 1, 2] * 2


def test_copies_and_groups_are_held_out_together_and_classes_of_one_are_named(
    plain: Path, tmp_path: Path
) -> None:
    labels = [*of_kinds(30), "alone"]
    write_gallery(tmp_path / "gallery", plain / "model", labels)
    with Gallery.open(tmp_path / "gallery", fingerprint=None) as gallery:
        alone, first = gallery.get("photo-30"), gallery.get("photo-0")
        gallery.put(
            [
                NewItem(
                    id=f"copy-{copy}",
                    vector_D=gallery.vector(of.id),
                    label=of.label,
                    metadata=metadata,
                    thumbnail=None,
                    content_sha256=content,
                )
                for copy, (of, metadata, content) in enumerate(
                    [
                        (alone, {"group": 7}, alone.content_sha256),
                        (alone, {"group": 7}, "ab" * 32),
                        (first, {"group": "7"}, "cd" * 32),
                    ]
                )
            ]
        )

    made = run("index", "classes", tmp_path / "gallery", "--out", tmp_path / "new", "--json")

    figures = json.loads(made.stdout)
    assert (figures["classes"], figures["classes_of_one_photo"]) == (4, 1)
    assert (figures["labelled"], figures["measured"]) == (34, 31)


@pytest.mark.parametrize(
    ("labels", "sentence"),
    [
        ([], "the gallery is empty"),
        ([None] * 5, "none of the 5 items has a label"),
        (["ear", "ear", None], "all 2 labelled items have the label 'ear': at least two labels"),
        (["ear", "eye", "ear"], "3 labelled items of 2 labels are too few: at least two labels"),
    ],
)
def test_labels_that_nothing_can_be_learnt_from_are_refused_in_a_sentence(
    plain: Path, tmp_path: Path, labels: list[str | None], sentence: str
) -> None:
    write_gallery(tmp_path / "gallery", plain / "model", labels)

    refused = run("index", "classes", tmp_path / "gallery", "--out", tmp_path / "new")

    assert refused.exit_code == 1
    assert sentence in str(refused.exception)
    assert os.listdir(tmp_path) == ["gallery"]


def test_another_model_and_a_folder_that_is_there_are_refused(plain: Path, tmp_path: Path) -> None:
    write_model(tmp_path / "other", seed=1, labels=())
    (tmp_path / "there").mkdir()

    other, there = (
        run("index", "classes", plain / "gallery", *options)
        for options in (
            ("--model", tmp_path / "other", "--out", tmp_path / "new"),
            ("--out", tmp_path / "there"),
        )
    )

    assert "holds vectors of model" in str(other.exception)
    assert "exists already" in str(there.exception)
    assert sorted(os.listdir(tmp_path)) == ["other", "there"]


def test_a_gallery_that_can_only_be_read_is_enough(plain: Path, tmp_path: Path) -> None:
    gallery = Path(shutil.copytree(plain / "gallery", tmp_path / "gallery"))
    for path in (gallery, *gallery.rglob("*")):
        path.chmod(0o555 if path.is_dir() else 0o444)
    before = sorted(path.name for path in gallery.rglob("*"))
    try:
        made = run("index", "classes", gallery, "--out", tmp_path / "new")
    finally:
        gallery.chmod(0o755)

    assert made.exit_code == 0, made.output
    assert sorted(path.name for path in gallery.rglob("*")) == before


def test_a_changed_byte_of_the_classes_is_refused(classed: Path, tmp_path: Path) -> None:
    model = Path(shutil.copytree(classed / "classed", tmp_path / "model"))
    data = bytearray((model / CLASSIFIER_NAME).read_bytes())
    data[-1] ^= 1
    (model / CLASSIFIER_NAME).write_bytes(data)
    with pytest.raises(ModelFolderError, match="was changed"):
        open_encoder(model, device="cpu", runtime="torch", threads=1)
    (model / CLASSIFIER_NAME).unlink()
    with pytest.raises(ModelFolderError, match=f"has no {CLASSIFIER_NAME}"):
        open_encoder(model, device="cpu", runtime="openvino", threads=1)


def test_the_manifest_tells_of_classes_only_where_there_are_some(classed: Path) -> None:
    old, new = (read_manifest(classed / name) for name in ("model", "classed"))
    assert b"classes_sha256" not in old.to_bytes()
    assert b'"format_version": 1' in old.to_bytes()
    assert b'"format_version": 2' in new.to_bytes()
    assert Manifest.from_bytes(new.to_bytes()) == new
    with pytest.raises(ModelFolderError, match="has no"):
        read_classifier(classed / "model", replace(new, weights_sha256=old.weights_sha256))


def test_the_card_says_where_the_classes_come_from(classed: Path) -> None:
    card = (classed / "classed" / "README.md").read_text()
    assert "learnt from the labels of 60 items of a gallery" in card
    assert all(label in card for label in LABELS)
    assert "`classes.safetensors`" in card
