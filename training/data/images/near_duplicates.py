"""Hashes of photos in, those that are copies of one another out.

Two files are copies if their bytes or their pixels are equal, or if one photo was saved twice: with
another quality or size, or cut by a hundredth. Those have perceptual hashes that differ in few bits
and, so that photos that only look alike are not taken for copies, nearly equal thumbnails.

Shape suffixes: M images, P pairs, B images of a block, T bytes of a thumbnail, Q pixels of it, C
channels.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import numpy as np
from numpy.typing import NDArray

from files.resource_limits import usable_cores
from training.data.images.photo_hashes import NO_PHASH, PhotoHashArrays

# Chosen on 3,409 photos of clothes, 5.8 million pairs: no false pair, and every copy of quality 30
# to 95 or scaled by half to one and a half (docs/decisions/0019-what-is-measured.md).
MOST_BITS: Final = 10  # of 64, that the hashes of copies differ in
LEAST_CORRELATION: Final = 0.985  # of their thumbnails' values
MOST_DISTANCE: Final = 12  # mean distance of their values, of 255

NO_ITEM: Final = -1  # the item that a photo of no group shows
BLOCK: Final = 512  # images that are compared with all others at once: some MB
PAIRS_AT_ONCE: Final = 4096


def group_near_duplicates(hashes: PhotoHashArrays) -> NDArray[np.int64]:
    """Return a number (M,) for each image, equal for copies: 0 and up, without gaps.

    Copies of copies are copies. Compares all pairs: 40,000 images take a few seconds.
    """
    pairs_P2 = np.concatenate(
        [
            _equal_pairs(hashes.contents_M),
            _equal_pairs(hashes.pixels_M),
            _near_pairs(hashes),
        ]
    )
    return _components(pairs_P2, len(hashes.contents_M))


def number_groups(groups: Sequence[str | None]) -> NDArray[np.int64]:
    """Return a number (M,) for each image, equal for those of one group; ``NO_ITEM`` of none."""
    numbers: dict[str, int] = {}
    ids = [NO_ITEM if one is None else numbers.setdefault(one, len(numbers)) for one in groups]
    return np.array(ids, np.int64)


def link_groups(
    photos_M: NDArray[np.int64] | NDArray[np.uint64], item_ids_M: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Return a number (M,) for each image, equal for copies and for photos of one item.

    The numbers go up in the order of the images, without gaps.
    """
    of_items = np.flatnonzero(item_ids_M >= 0)
    pairs_P2 = np.concatenate(
        [_equal_pairs(photos_M), of_items[_equal_pairs(item_ids_M[of_items])]]
    )
    return _components(pairs_P2, len(photos_M))


def _components(pairs_P2: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """Return a number for each of ``count`` images, equal for those that pairs link."""
    from scipy.sparse import coo_array  # noqa: PLC0415 - takes a second
    from scipy.sparse.csgraph import connected_components  # noqa: PLC0415

    links = coo_array((np.ones(len(pairs_P2)), pairs_P2.T), shape=(count, count))
    groups_M: NDArray[np.int64] = connected_components(links, directed=False)[1].astype(np.int64)
    return groups_M


def _equal_pairs(numbers_M: NDArray[np.uint64] | NDArray[np.int64]) -> NDArray[np.int64]:
    """Return pairs (P, 2) that link all images of equal numbers."""
    order_M = np.argsort(numbers_M, kind="stable")
    same = np.flatnonzero(numbers_M[order_M][1:] == numbers_M[order_M][:-1])
    return np.stack([order_M[same], order_M[same + 1]], axis=1)


def _near_pairs(hashes: PhotoHashArrays) -> NDArray[np.int64]:
    """Return every pair (P, 2) of images that are near copies of each other."""
    looking = np.flatnonzero(hashes.phashes_M != NO_PHASH)
    phashes = hashes.phashes_M[looking]
    found = [np.zeros((0, 2), np.int64)]
    # numpy counts bits without the interpreter's lock, so threads are enough
    with ThreadPoolExecutor(usable_cores()) as pool:
        for pairs_P2 in pool.map(
            lambda start: _alike(phashes, start), range(0, len(phashes), BLOCK)
        ):
            for start in range(0, len(pairs_P2), PAIRS_AT_ONCE):
                some_P2 = looking[pairs_P2[start : start + PAIRS_AT_ONCE]]
                found.append(some_P2[_same_picture(hashes.thumbs_MT, some_P2)])
    return np.concatenate(found)


def _alike(phashes_M: NDArray[np.uint64], start: int) -> NDArray[np.int64]:
    """Return pairs (P, 2) of near hashes: an image of the block at ``start``, and a later one."""
    block_B = phashes_M[start : start + BLOCK]
    bits_BM = np.bitwise_count(block_B[:, None] ^ phashes_M[None, start:])
    rows, columns = np.nonzero(bits_BM <= MOST_BITS)
    later = columns > rows
    return np.stack([rows[later], columns[later]], axis=1) + start


def _same_picture(thumbs_MT: NDArray[np.uint8], pairs_P2: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return for each pair (P,) whether its thumbnails are nearly equal."""
    first_PQC, second_PQC = (
        thumbs_MT[pairs_P2[:, side]].reshape(len(pairs_P2), -1, 3).astype(np.float32)
        for side in (0, 1)
    )
    distances_P = np.abs(first_PQC - second_PQC).mean(axis=(1, 2))
    # Each channel less its mean: else a common colour would already be a correlation.
    first_PQC -= first_PQC.mean(axis=1, keepdims=True)
    second_PQC -= second_PQC.mean(axis=1, keepdims=True)
    lengths_P = np.sqrt((first_PQC**2).sum(axis=(1, 2)) * (second_PQC**2).sum(axis=(1, 2)))
    products_P = (first_PQC * second_PQC).sum(axis=(1, 2))
    near_P: NDArray[np.bool_] = (distances_P <= MOST_DISTANCE) & (
        products_P >= LEAST_CORRELATION * lengths_P
    )
    return near_P
