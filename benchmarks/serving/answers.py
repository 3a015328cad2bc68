"""Whether a server's answers are those of the network in torch: checked before any timing."""

import io
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks.serving.load import Upload
from benchmarks.serving.pictures import photo
from benchmarks.serving.rivals.classifier import Classifier
from training.data.images.fashion_mnist import PACKAGE_FOLDER, SIDE, read_fashion_mnist

TOLERANCE = 1e-3  # of a probability; batches of other sizes round differently
SAME_LABELS, COSINE = 0.99, 0.99  # what an exported runtime must reach
PHOTOS, GARMENTS = 24, 200


@dataclass(frozen=True)
class Reference:
    """Pictures with the label, probability and vector that torch gives them."""

    pictures: list[bytes]
    answers: list[tuple[str, float]]
    vectors_ND: NDArray[np.float32]

    @classmethod
    def of(cls, folder: Path) -> "Reference":
        """Return the reference of a model folder; garments for a network of their size."""
        classifier = Classifier(folder)
        garments = classifier.preprocessing.size == SIDE and PACKAGE_FOLDER.exists()
        pictures = _garments() if garments else [photo(number) for number in range(PHOTOS)]
        pixels_NCHW = np.stack([classifier.pixels(picture) for picture in pictures])
        answers = [
            (answer["label"], answer["probability"]) for answer in classifier.answers(pixels_NCHW)
        ]
        return cls(pictures, answers, classifier.vectors(pixels_NCHW))

    def compare(self, url: str, *, upload: str, part: str) -> str:
        """Return how a server's answers differ; posts every picture.

        Raises:
            SystemExit: it gave no answer, or the answers differ by more than an exported network's.
        """
        same, worst = 0, 0.0
        with httpx.Client(timeout=60) as client:
            for picture, (label, probability) in zip(self.pictures, self.answers, strict=True):
                answer = ask(client, url, picture, upload=upload, part=part)
                if answer["label"] == label:
                    same += 1
                    worst = max(worst, abs(answer["probability"] - probability))
        share = same / len(self.pictures)
        if share < SAME_LABELS:
            raise SystemExit(f"{url}: only {share:.1%} of the labels are those of torch")
        if share == 1 and worst <= TOLERANCE:
            return "same"
        return f"{share:.1%} of labels, probabilities within {worst:.3f}"

    def least_cosine(self, url: str) -> float:
        """Return the least cosine between torch's vectors and those of /v1/embed."""
        with httpx.Client(timeout=60) as client:
            rows = []
            for picture in self.pictures:
                form = Upload.raw(picture)
                headers = {"Content-Type": form.content_type}
                reply = client.post(f"{url}/v1/embed", content=form.body, headers=headers)
                rows.append(reply.raise_for_status().json()["results"][0]["vector"])
        return float((np.asarray(rows) * self.vectors_ND).sum(axis=1).min())


def ask(
    client: httpx.Client, url: str, picture: bytes, *, upload: str, part: str
) -> dict[str, object]:
    """Return a server's answer to one picture.

    Raises:
        httpx.HTTPError: it gave none.
    """
    form = Upload.raw(picture) if upload == "raw" else Upload.form([picture], part=part)
    reply = client.post(url, content=form.body, headers={"Content-Type": form.content_type})
    answer: dict[str, object] = reply.raise_for_status().json()
    return answer


def _garments() -> list[bytes]:
    _, (test_images_NHW, _) = read_fashion_mnist(PACKAGE_FOLDER)
    return [_png(image) for image in test_images_NHW[:GARMENTS]]


def _png(pixels_HW: NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels_HW).save(buffer, "PNG")
    return buffer.getvalue()
