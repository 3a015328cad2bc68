"""What Lookalike searches with, behind the calls that every engine of the benchmark has."""

import tempfile
from dataclasses import replace
from pathlib import Path

import faiss
import numpy as np

from benchmarks.search.galleries import built
from index.gallery import Gallery
from index.search.ann_index import AnnIndex
from index.search.index_spec import IndexSpec, candidate_specs
from index.search.vector_matrix import Matrix

# Lists visited, or a graph's queue, and candidates refined per hit: as measurements choose them.
LISTS = ((4, 3), (8, 3), (10, 3), (12, 3), (14, 3), (16, 3), (18, 4), (20, 5), (24, 6), (32, 6))
LISTS_ON = (*LISTS, (48, 8), (96, 12), (192, 12))
GRAPH = ((16, 3), (24, 3), (32, 4), (48, 4), (64, 4), (96, 6), (128, 6), (192, 8), (288, 8))


class Ours:
    """A search structure of a gallery, without the gallery: rows in, rows out."""

    name = "Lookalike: lists of bytes"
    kind = "lists"
    settings: tuple[tuple[int, float], ...] = LISTS_ON
    efforts = tuple(range(len(LISTS_ON)))  # places in the settings

    def build(self, vectors_ND: np.ndarray) -> None:
        """Build over all rows, without the measurements that choose its settings."""
        self._vectors_ND = vectors_ND
        matrix = Matrix.of(vectors_ND)
        spec = next(spec for spec in candidate_specs(*vectors_ND.shape) if spec.kind == self.kind)
        self._built = AnnIndex.build(matrix, spec, count=len(vectors_ND))
        self._structure = self._built

    def set_effort(self, search_depth: int) -> None:
        """Look so hard from now on."""
        self._structure = self._built.with_spec(self._spec(search_depth))

    def search_one(self, query_D: np.ndarray, k: int) -> np.ndarray:
        """Return the rows nearest to one query, (k,)."""
        return self._structure.search(query_D[np.newaxis], k)[1][0]

    def search_batch(self, queries_QD: np.ndarray, k: int) -> np.ndarray:
        """Return the rows nearest to each query, (Q, k)."""
        return self._structure.search(queries_QD, k)[1]

    def size_bytes(self) -> int:
        """Return what the index takes, the float32 rows included."""
        coded: int = faiss.serialize_index(self._built.index).nbytes
        return coded + self._vectors_ND.nbytes

    def _spec(self, search_depth: int) -> IndexSpec:
        spec = self._built.spec
        return replace(
            spec,
            search_depth=self.settings[search_depth][0],
            k_factor=self.settings[search_depth][1],
        )


class OursGraph(Ours):
    """The structure for rows without clusters."""

    name = "Lookalike: graph on bytes"
    kind = "graph"
    settings = GRAPH
    efforts = tuple(range(len(GRAPH)))


class OursGallery(Ours):
    """The same lists through a gallery: unit rows only; answers are items with their metadata."""

    name = "Lookalike: gallery"

    def build(self, vectors_ND: np.ndarray) -> None:
        """Store all rows as items, and build and measure the structure over them."""
        self._vectors_ND = vectors_ND
        self._folder = tempfile.TemporaryDirectory()
        self._gallery = Gallery.open(
            built(Path(self._folder.name) / "gallery", np.asarray(vectors_ND)), fingerprint=None
        )
        view = self._gallery._follower.snapshot.immutable
        assert view is not None
        assert view.segment.ann_index is not None
        self._base, self._built = view.segment, view.segment.ann_index

    def set_effort(self, search_depth: int) -> None:
        """Look so hard from now on."""
        self._base.ann_index = self._built.with_spec(self._spec(search_depth))

    def search_one(self, query_D: np.ndarray, k: int) -> np.ndarray:
        """Return the rows nearest to one query, (k,)."""
        hits = self._gallery.search(query_D[np.newaxis], k=k).hits[0]
        return np.array([int(hit.id) for hit in hits])

    def search_batch(self, queries_QD: np.ndarray, k: int) -> np.ndarray:
        """Return the rows nearest to each query, (Q, k)."""
        found = self._gallery.search(queries_QD, k=k).hits
        return np.array([[int(hit.id) for hit in hits] for hits in found])
