"""A gallery folder in, what a classifier can learn from its labelled items out.

Shape suffixes: N labelled items, D vector width.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from index.transfer.stored_items import Provenance, open_contents
from training.data.images.near_duplicates import link_groups, number_groups

CONTENT_DIGITS: Final = (
    16  # of a SHA-256: 8 bytes, as ``training.data.images.photo_hashes.hash_64`` keeps
)
GROUP: Final = "group"  # member of the metadata: the thing that several photos show


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LabelledItems:
    """The labelled items of a gallery at one moment, oldest first."""

    facts: Provenance  # of the gallery
    vectors_ND: NDArray[np.float32]  # unit length
    names: tuple[str, ...]  # of the labels, in the order of their code points
    labels_N: NDArray[np.int64]  # positions in ``names``
    contents_N: NDArray[np.uint64]  # of the images' files
    groups_N: NDArray[np.int64]  # equal for copies of one file, and for photos of one group

    def __len__(self) -> int:
        return len(self.labels_N)


def read_labelled_items(gallery: Path) -> LabelledItems:
    """Return the labelled items of a gallery, which may be in use, or on a read-only disk.

    Memory is that of the vectors; an item costs some 10 µs, with a label or without.

    Raises:
        GalleryFolderError, StorageError: it is no gallery, damaged, or cannot be read.
    """
    labels: list[str] = []
    found: list[int] = []
    groups: list[str | None] = []
    with open_contents(gallery) as stored:
        facts = stored.provenance
        vectors_ND = np.empty((facts.count, facts.width), np.float32)
        for item in stored.items(thumbnails=False):
            if item.label is not None:
                vectors_ND[len(labels)] = item.vector_D
                labels.append(item.label)
                found.append(int(item.content_sha256[:CONTENT_DIGITS], 16))
                groups.append(_group_of(item.metadata))
    names = tuple(sorted(set(labels)))
    place_of = {name: place for place, name in enumerate(names)}
    contents_N = np.array(found, np.uint64)
    return LabelledItems(
        facts=facts,
        vectors_ND=vectors_ND[: len(labels)],
        names=names,
        labels_N=np.array([place_of[label] for label in labels], np.int64),
        contents_N=contents_N,
        groups_N=link_groups(contents_N, number_groups(groups)),
    )


def _group_of(metadata: str) -> str | None:
    group = json.loads(metadata).get(GROUP)
    return None if group is None else json.dumps(group, sort_keys=True)
