"""Galleries that benchmarks search in: built once from a set of vectors, and kept."""

from pathlib import Path

import numpy as np

from benchmarks.search.datasets import clustered
from index.gallery import Gallery
from index.items.item import NewItem
from vision.image.thumbnail import Thumbnail

CHUNK = 1000  # items per transaction
FINGERPRINT = "b0" * 32
ONE_IN = (100, 1000)  # an item's metadata puts it into one of so many groups: 1 %, 0.1 %


def groups_of(rows: int) -> dict[int, np.ndarray]:
    """Return, for each number of groups, the group of each row, chosen at random."""
    return {share: np.random.default_rng(share).integers(0, share, rows) for share in ONE_IN}


def clustered_gallery(folder: Path, rows: int) -> Path:
    """Return a gallery of clustered unit vectors of 128 numbers, built at the first call."""
    path = folder / f"gallery-clustered-{rows}"
    return path if path.exists() else built(path, clustered(rows)[0])


def built(folder: Path, vectors_ND: np.ndarray) -> Path:
    """Return a gallery of ``vectors_ND`` with its structure, built at the first call."""
    if folder.exists():
        return folder
    thumbnail = Thumbnail("image/jpeg", b"\0" * 512)
    groups = groups_of(len(vectors_ND))
    with Gallery.create(
        folder, model_name="benchmark", fingerprint=FINGERPRINT, width=vectors_ND.shape[1]
    ) as gallery:
        for start in range(0, len(vectors_ND), CHUNK):
            gallery.put(
                [
                    NewItem(
                        id=str(row),
                        vector_D=vectors_ND[row],
                        label=f"l{row % 10}",
                        metadata={f"of_{share}": int(of[row]) for share, of in groups.items()},
                        thumbnail=thumbnail,
                        content_sha256=f"{row:064x}",
                    )
                    for row in range(start, min(start + CHUNK, len(vectors_ND)))
                ]
            )
        gallery.rebuild()
    return folder
