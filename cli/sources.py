"""What a command may be pointed at with `--data`: Fashion-MNIST, or a folder of images."""

import io
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from index.source import Entry, folder_entries
from training.data import FASHION_MNIST, default_cache
from training.fashion_mnist import LABELS, find_fashion_mnist, read_fashion_mnist


@dataclass(frozen=True, slots=True)
class Source:
    """Images to index, one after another."""

    name: str
    count: int
    entries: Iterable[Entry]


def open_source(data: str) -> Source:
    """Return the images of ``fashion-mnist`` (the 60,000 training images) or of a folder.

    Raises:
        VectorIndexError, TrainingError: there are none, or they cannot be read.
    """
    if data == FASHION_MNIST:
        folder = find_fashion_mnist(default_cache() / FASHION_MNIST)
        (images_NHW, labels_N), _test = read_fashion_mnist(folder)
        return Source(FASHION_MNIST, len(images_NHW), _fashion_mnist_entries(images_NHW, labels_N))
    entries = folder_entries(Path(data))
    return Source(Path(data).name, len(entries), entries)


def _fashion_mnist_entries(
    images_NHW: NDArray[np.uint8], labels_N: NDArray[np.int64]
) -> Iterator[Entry]:
    for number, (image_HW, label) in enumerate(zip(images_NHW, labels_N, strict=True)):
        yield Entry(
            id=f"fashion-mnist:train:{number:05d}",
            data=_png(image_HW),
            label=LABELS[label],
            metadata={"split": "train", "number": number},
        )


def _png(image_HW: NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image_HW).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()
