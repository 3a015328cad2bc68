"""What Lookalike searches with, behind the calls that every engine of the benchmark has."""

import tempfile
from dataclasses import replace
from pathlib import Path

import faiss
import numpy as np

from benchmarks.search.galleries import built
from index.gallery import Gallery
from index.search.ann_index import Structure
from index.search.index_spec import Plan, candidates
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
        plan = next(plan for plan in candidates(*vectors_ND.shape) if plan.kind == self.kind)
        self._built = Structure.build(matrix, plan, count=len(vectors_ND))
        self._structure = self._built

    def set_effort(self, effort: int) -> None:
        """Look so hard from now on."""
        self._structure = self._built.with_plan(self._plan(effort))

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

    def _plan(self, effort: int) -> Plan:
        plan = self._built.plan
        return replace(plan, effort=self.settings[effort][0], k_factor=self.settings[effort][1])


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
        view = self._gallery._follower.snapshot.base
        assert view is not None
        assert view.base.structure is not None
        self._base, self._built = view.base, view.base.structure

    def set_effort(self, effort: int) -> None:
        """Look so hard from now on."""
        self._base.structure = self._built.with_plan(self._plan(effort))

    def search_one(self, query_D: np.ndarray, k: int) -> np.ndarray:
        """Return the rows nearest to one query, (k,)."""
        hits = self._gallery.search(query_D[np.newaxis], k=k).hits[0]
        return np.array([int(hit.id) for hit in hits])

    def search_batch(self, queries_QD: np.ndarray, k: int) -> np.ndarray:
        """Return the rows nearest to each query, (Q, k)."""
        found = self._gallery.search(queries_QD, k=k).hits
        return np.array([[int(hit.id) for hit in hits] for hits in found])
