"""A gallery folder in, what a classifier can learn from its labelled items out.

Shape suffixes: N labelled items, D vector width.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import scipy.sparse
from numpy.typing import NDArray
from scipy.sparse.csgraph import connected_components

from index.transfer.stored_items import Provenance, open_contents

CONTENT_DIGITS: Final = (
    16  # of a SHA-256: 8 bytes, as ``training.data.images.photo_identity.number_of`` keeps
)
GROUP: Final = "group"  # member of the metadata: the thing that several photos show


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Labelled:
    """The labelled items of a gallery at one moment, oldest first."""

    facts: Provenance  # of the gallery
    vectors_ND: NDArray[np.float32]  # unit length
    names: tuple[str, ...]  # of the labels, in the order of their code points
    labels_N: NDArray[np.int64]  # positions in ``names``
    contents_N: NDArray[np.uint64]  # of the images' files
    lots_N: NDArray[np.int64]  # equal for copies of one file, and for photos of one group

    def __len__(self) -> int:
        return len(self.labels_N)


def read_labelled(gallery: Path) -> Labelled:
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
    return Labelled(
        facts=facts,
        vectors_ND=vectors_ND[: len(labels)],
        names=names,
        labels_N=np.array([place_of[label] for label in labels], np.int64),
        contents_N=contents_N,
        lots_N=_lots(contents_N, groups),
    )


def _group_of(metadata: str) -> str | None:
    group = json.loads(metadata).get(GROUP)
    return None if group is None else json.dumps(group, sort_keys=True)


def _lots(contents_N: NDArray[np.uint64], groups: list[str | None]) -> NDArray[np.int64]:
    """Return the same number for items that share their content or their group, or one that does.

    Items and what they may share are the nodes of a graph.
    """
    shared_of: dict[object, int] = {}
    pairs = [
        (item, shared_of.setdefault(shared, len(groups) + len(shared_of)))
        for item, both in enumerate(zip(contents_N.tolist(), groups, strict=True))
        for shared in both
        if shared is not None
    ]
    nodes = len(groups) + len(shared_of)
    edges = np.array(pairs, np.int64).reshape(-1, 2)
    graph = scipy.sparse.coo_array((np.ones(len(edges)), edges.T), shape=(nodes, nodes))
    lots: NDArray[np.int32] = connected_components(graph, directed=False)[1]
    return lots[: len(groups)].astype(np.int64)
