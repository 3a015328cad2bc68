"""What `lookalike index` may be pointed at with `--data`: Fashion-MNIST, a folder or a table."""

import io
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dataset.errors import DatasetError
from dataset.findings import Findings
from dataset.source import list_source
from index.items.source_entries import ImageEntry, image_entries
from training.data.images.fashion_mnist import LABELS, find_fashion_mnist, read_fashion_mnist
from training.data.images.load import FASHION_MNIST

SHOWN = 3  # folders that a sentence names


@dataclass(frozen=True, slots=True)
class ImageSource:
    """Images to index, one after another."""

    identity: str  # the same each time
    count: int
    entries: Iterable[ImageEntry]
    findings: Findings
    unread: frozenset[str] = frozenset()  # ids of images that are as they were stored


def open_image_source(data: str, *, prune: bool = False, group: str | None = None) -> ImageSource:
    """Return the images of ``fashion-mnist`` (the 60,000 training images), a folder or a table.

    Args:
        data: what a person named.
        prune: what the source does not hold will be deleted.
        group: what says which photos show one thing, as in ``dataset.source``.

    Raises:
        DatasetError, TrainingError: there are none, or they cannot be read; or with ``prune`` a
            part of them cannot be looked into.
    """
    if data == FASHION_MNIST:
        if group is not None:
            raise DatasetError(f"{data} does not say which photos show one thing: no --group")
        folder = find_fashion_mnist()
        (images_NHW, labels_N), _test = read_fashion_mnist(folder)
        entries = _fashion_mnist_entries(images_NHW, labels_N)
        return ImageSource(FASHION_MNIST, len(images_NHW), entries, Findings())
    listing = list_source(Path(data), group=group)
    if prune and listing.unread:
        more = f" and {len(listing.unread) - SHOWN} more" if len(listing.unread) > SHOWN else ""
        raise DatasetError(
            f"{', '.join(listing.unread[:SHOWN])}{more} in {data} cannot be looked into now, so "
            "what is missing there may only be out of reach: mend or remove that first, or leave "
            "out --prune"
        )
    listed = image_entries(listing)
    return ImageSource(str(listing.source.resolve()), len(listed), listed, listing.findings)


def _fashion_mnist_entries(
    images_NHW: NDArray[np.uint8], labels_N: NDArray[np.int64]
) -> Iterator[ImageEntry]:
    for number, (image_HW, label) in enumerate(zip(images_NHW, labels_N, strict=True)):
        yield ImageEntry(
            id=f"fashion-mnist:train:{number:05d}",
            data=_png(image_HW),
            label=LABELS[label],
            metadata={"split": "train", "number": number},
        )


def _png(image_HW: NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image_HW).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()
