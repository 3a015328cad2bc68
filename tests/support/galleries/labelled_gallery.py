"""Labelled images for tests, known by their pixels."""

import numpy as np
from numpy.typing import NDArray

from training.data.images.labelled_images import LabelledImages
from training.data.images.photo_hashes import NO_PHASH, hash_64


def labelled(
    images_NCHW: NDArray[np.uint8], labels_N: NDArray[np.int64], label_names: tuple[str, ...]
) -> LabelledImages:
    """Return images that stand for files with these pixels; equal ones are copies."""
    numbers = [hash_64(image.tobytes()) for image in images_NCHW]
    contents_N = np.array(numbers, np.uint64)
    return LabelledImages(
        images_NCHW=images_NCHW,
        labels_N=labels_N,
        label_names=label_names,
        contents_N=contents_N,
        phashes_N=np.full(len(labels_N), NO_PHASH, np.uint64),
        photos_N=contents_N.view(np.int64),
        item_ids_N=np.full(len(labels_N), -1),
        group_keys_N=contents_N,
    )
