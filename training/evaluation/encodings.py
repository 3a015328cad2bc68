"""Images of a dataset in, what a network says of all of them out."""

from training.data.dataset import Dataset
from training.evaluation.views import VIEWS
from training.statistics.same_item import MOST_PHOTOS
from vision.inference.encoder import Encoding, ImageEncoder, encode_all


def encode_parts(encoder: ImageEncoder, dataset: Dataset) -> tuple[Encoding, Encoding]:
    """Return what the network says of the test images and of those that are searched."""
    queries = encode_all(encoder, dataset.test.images_NCHW)
    if dataset.train is dataset.test:
        return queries, queries
    return queries, encode_all(encoder, dataset.train.images_NCHW)


def images_to_encode(dataset: Dataset) -> int:
    """Return about how many images a measurement encodes, made views included."""
    searched = 0 if dataset.train is dataset.test else len(dataset.train)
    return len(dataset.test) + searched + VIEWS * min(MOST_PHOTOS, len(dataset.test))
