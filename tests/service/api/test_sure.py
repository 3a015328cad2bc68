"""A served model that keeps photos to compare with says whether it is sure."""

from collections.abc import Iterator

import httpx
import numpy as np
import pytest

from tests.support.galleries.small_galleries import write_gallery
from tests.support.images.pngs import png
from tests.support.models import with_references, write_model
from tests.support.server.servers import running_server
from vision.inference.torch_encoder import TorchEncoder
from vision.model.open_set import OpenSetDetector

PNG = {"Content-Type": "image/png"}


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """Of a server whose model has learnt from `png(0)` alone."""
    folder = tmp_path_factory.mktemp("sure")
    write_model(folder / "model")
    encoder = TorchEncoder.load(folder / "model", device="cpu")
    preprocessing = encoder.manifest.preprocessing
    vectors_1D, probabilities_1L = encoder.encode(
        preprocessing.pixels(preprocessing.decode(png(0)))[None]
    )
    with_references(
        folder / "model",
        OpenSetDetector(
            vectors_KD=vectors_1D.repeat(12, axis=0),
            labels_K=np.int32(probabilities_1L.argmax()).repeat(12),
            most_distance=1e-4,
            least_agreement=0.5,
            refused=0.02,
            fitted_on=50,
        ),
    )
    write_gallery(folder / "gallery", folder / "model")
    with (
        running_server(folder / "model", folder / "gallery", folder / "log.txt") as running,
        running.client() as client,
    ):
        yield client


def test_a_picture_like_those_that_were_learnt_is_sure(client: httpx.Client) -> None:
    answer = client.post("/v1/classify", content=png(0), headers=PNG).json()
    assert (answer["sure"], answer["why_not"]) == (True, None)


def test_a_picture_far_from_all_of_them_is_not_and_says_why(client: httpx.Client) -> None:
    answer = client.post("/v1/classify", content=png(7), headers=PNG).json()
    assert answer["sure"] is False
    assert answer["why_not"]["code"] == "far_from_all"
    assert (
        "none of the photos that the model has learnt from is near" in (answer["why_not"]["detail"])
    )
    assert (
        answer["label"] == answer["predictions"][0]["label"]
    )  # the best guess is told all the same


def test_of_several_pictures_each_is_judged(client: httpx.Client) -> None:
    files = [("image", png(number)) for number in (0, 7)]
    results = client.post("/v1/classify", files=files).json()["results"]
    assert [one["sure"] for one in results] == [True, False]
