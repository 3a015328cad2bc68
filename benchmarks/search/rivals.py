"""Other search libraries, each behind the same calls, on one thread; imported only when asked for.

All graphs have 24 links a row (48 on the lowest level) and are built with a queue of 200.
"""

import importlib
import tempfile
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

import numpy as np

from benchmarks.search.ours import Ours, OursGallery, OursGraph

LINKS, BUILD_QUEUE = 24, 200
SYMPHONY_DEGREE = 32
QUEUES = (10, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512)


class Engine(Protocol):
    """What the benchmark asks of a library; rows are numbered from 0, -1 stands for none."""

    name: str
    efforts: tuple[int, ...]

    def build(self, vectors_ND: np.ndarray) -> None:
        """Build over all rows."""

    def set_effort(self, effort: int) -> None:
        """Search so hard from now on."""

    def search_one(self, query_D: np.ndarray, k: int) -> np.ndarray:
        """Return the rows nearest to one query, (k,)."""

    def search_batch(self, queries_QD: np.ndarray, k: int) -> np.ndarray:
        """Return the rows nearest to each query, (Q, k)."""

    def size_bytes(self) -> int:
        """Return what the index takes when it is written, its vectors included."""


def library(module: str, package: str) -> ModuleType:
    """Import a rival, or stop with the sentence that says how to install it."""
    try:
        return importlib.import_module(module)
    except ImportError:
        raise SystemExit(
            f"{package} is not installed here: pip install {package}, or choose other --engines"
        ) from None


def written_bytes(save: Any) -> int:
    """Return the size of the file that `save(path)` writes."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "index"
        save(str(path))
        return path.stat().st_size


class Hnswlib:
    """hnswlib: HNSW on float32."""

    name = "hnswlib"
    efforts = QUEUES

    def build(self, vectors_ND: np.ndarray) -> None:
        """Build over all rows."""
        hnswlib = library("hnswlib", "hnswlib")
        self._index = hnswlib.Index("l2", vectors_ND.shape[1])
        self._index.init_index(len(vectors_ND), M=LINKS, ef_construction=BUILD_QUEUE)
        self._index.set_num_threads(1)
        self._index.add_items(vectors_ND, num_threads=1)

    def set_effort(self, effort: int) -> None:
        """Set the length of the queue."""
        self._index.set_ef(effort)

    def search_one(self, query_D: np.ndarray, k: int) -> np.ndarray:
        """Return the rows nearest to one query, (k,)."""
        rows_QK: np.ndarray = self._index.knn_query(query_D, k, num_threads=1)[0]
        return rows_QK[0]

    def search_batch(self, queries_QD: np.ndarray, k: int) -> np.ndarray:
        """Return the rows nearest to each query, (Q, k)."""
        rows_QK: np.ndarray = self._index.knn_query(queries_QD, k, num_threads=1)[0]
        return rows_QK

    def size_bytes(self) -> int:
        """Return the size of the index's file."""
        return written_bytes(self._index.save_index)


class Usearch:
    """usearch: HNSW on float32."""

    name = "usearch"
    efforts = QUEUES
    number = "f32"

    def build(self, vectors_ND: np.ndarray) -> None:
        """Build over all rows."""
        usearch = library("usearch.index", "usearch")
        self._index = usearch.Index(
            ndim=vectors_ND.shape[1],
            metric="l2sq",
            dtype=self.number,
            connectivity=LINKS,
            expansion_add=BUILD_QUEUE,
        )
        self._index.add(np.arange(len(vectors_ND)), vectors_ND, threads=1)

    def set_effort(self, effort: int) -> None:
        """Set the length of the queue."""
        self._index.expansion_search = effort

    def search_one(self, query_D: np.ndarray, k: int) -> np.ndarray:
        """Return the rows nearest to one query, (k,)."""
        rows_K: np.ndarray = self._index.search(query_D, k, threads=1).keys
        return rows_K

    def search_batch(self, queries_QD: np.ndarray, k: int) -> np.ndarray:
        """Return the rows nearest to each query, (Q, k)."""
        rows_QK: np.ndarray = self._index.search(queries_QD, k, threads=1).keys
        return rows_QK

    def size_bytes(self) -> int:
        """Return the size of the index's file."""
        return written_bytes(self._index.save)


class UsearchHalf(Usearch):
    """usearch: HNSW on float16."""

    name = "usearch f16"
    number = "f16"


class Voyager:
    """voyager: HNSW on float32."""

    name = "voyager"
    efforts = QUEUES

    def build(self, vectors_ND: np.ndarray) -> None:
        """Build over all rows."""
        voyager = library("voyager", "voyager")
        self._index = voyager.Index(
            voyager.Space.Euclidean,
            vectors_ND.shape[1],
            M=LINKS,
            ef_construction=BUILD_QUEUE,
            max_elements=len(vectors_ND),
        )
        self._index.add_items(vectors_ND, num_threads=1)

    def set_effort(self, effort: int) -> None:
        """Set the length of the queue."""
        self._effort = effort

    def search_one(self, query_D: np.ndarray, k: int) -> np.ndarray:
        """Return the rows nearest to one query, (k,)."""
        rows_K: np.ndarray = self._index.query(query_D, k, query_ef=self._effort)[0]
        return rows_K

    def search_batch(self, queries_QD: np.ndarray, k: int) -> np.ndarray:
        """Return the rows nearest to each query, (Q, k)."""
        rows_QK: np.ndarray = self._index.query(
            queries_QD, k, num_threads=1, query_ef=self._effort
        )[0]
        return rows_QK

    def size_bytes(self) -> int:
        """Return the size of the index's file."""
        return written_bytes(self._index.save)


class Scann:
    """ScaNN: k-means tree, anisotropic 4-bit codes, exact distances of the nearest."""

    name = "scann"
    efforts = (4, 8, 12, 16, 24, 32, 48, 64, 96, 128)  # leaves; five times as many rows reordered

    def build(self, vectors_ND: np.ndarray) -> None:
        """Build over all rows, with 2.5 sqrt(N) leaves."""
        scann = library("scann", "scann")
        leaves = int(2.5 * len(vectors_ND) ** 0.5)
        self._index = (
            scann.scann_ops_pybind.builder(np.array(vectors_ND), 10, "squared_l2")
            .tree(leaves, 16, training_sample_size=min(len(vectors_ND), 250_000))
            .score_ah(2, anisotropic_quantization_threshold=0.2)
            .reorder(100)
            .set_n_training_threads(1)
            .build()
        )
        self._index.set_num_threads(1)

    def set_effort(self, effort: int) -> None:
        """Visit so many leaves, and measure five times as many rows again (at least 60)."""
        self._leaves, self._reordered = effort, max(60, 5 * effort)

    def search_one(self, query_D: np.ndarray, k: int) -> np.ndarray:
        """Return the rows nearest to one query, (k,)."""
        rows_K: np.ndarray = self._index.search(
            query_D,
            final_num_neighbors=k,
            leaves_to_search=self._leaves,
            pre_reorder_num_neighbors=self._reordered,
        )[0]
        return rows_K

    def search_batch(self, queries_QD: np.ndarray, k: int) -> np.ndarray:
        """Return the rows nearest to each query, (Q, k)."""
        rows_QK: np.ndarray = self._index.search_batched(
            queries_QD,
            final_num_neighbors=k,
            leaves_to_search=self._leaves,
            pre_reorder_num_neighbors=self._reordered,
        )[0]
        return rows_QK

    def size_bytes(self) -> int:
        """Return the size of the index's files."""
        with tempfile.TemporaryDirectory() as folder:
            self._index.serialize(folder)
            return sum(path.stat().st_size for path in Path(folder).iterdir())


class FaissHnsw:
    """FAISS: HNSW on float32."""

    name = "FAISS HNSW"
    efforts = QUEUES

    def build(self, vectors_ND: np.ndarray) -> None:
        """Build over all rows."""
        self._faiss = library("faiss", "faiss-cpu")
        self._index = self._faiss.IndexHNSWFlat(vectors_ND.shape[1], LINKS)
        self._index.hnsw.efConstruction = BUILD_QUEUE
        self._index.add(vectors_ND)

    def set_effort(self, effort: int) -> None:
        """Set the length of the queue."""
        self._index.hnsw.efSearch = effort

    def search_one(self, query_D: np.ndarray, k: int) -> np.ndarray:
        """Return the rows nearest to one query, (k,)."""
        rows_QK: np.ndarray = self._index.search(query_D[None], k)[1]
        return rows_QK[0]

    def search_batch(self, queries_QD: np.ndarray, k: int) -> np.ndarray:
        """Return the rows nearest to each query, (Q, k)."""
        rows_QK: np.ndarray = self._index.search(queries_QD, k)[1]
        return rows_QK

    def size_bytes(self) -> int:
        """Return the size of the index's file."""
        return written_bytes(lambda path: self._faiss.write_index(self._index, path))


class Symphony:
    """rabitqlib: SymphonyQG, a graph whose links carry one-bit codes, on float32 rows."""

    name = "SymphonyQG"
    efforts = QUEUES

    def build(self, vectors_ND: np.ndarray) -> None:
        """Build over all rows, with 32 links a row."""
        rabitqlib = library("rabitqlib", "rabitqlib")
        self._index = rabitqlib.SymqgIndex(vectors_ND.shape[1], SYMPHONY_DEGREE)
        self._index.build(np.array(vectors_ND), BUILD_QUEUE, num_threads=1)

    def set_effort(self, effort: int) -> None:
        """Set the length of the queue."""
        self._effort = effort

    def search_one(self, query_D: np.ndarray, k: int) -> np.ndarray:
        """Return the rows nearest to one query, (k,)."""
        rows_QK: np.ndarray = self._index.search(query_D[None], k, self._effort)[0]
        return rows_QK[0]

    def search_batch(self, queries_QD: np.ndarray, k: int) -> np.ndarray:
        """Return the rows nearest to each query, (Q, k)."""
        rows_QK: np.ndarray = self._index.search_batch(queries_QD, k, self._effort)[0]
        return rows_QK

    def size_bytes(self) -> int:
        """Return the size of the index's file."""
        return written_bytes(self._index.save)


ENGINES: dict[str, type[Engine]] = {
    "ours": Ours,
    "ours-graph": OursGraph,
    "ours-gallery": OursGallery,
    "hnswlib": Hnswlib,
    "usearch": Usearch,
    "usearch-f16": UsearchHalf,
    "voyager": Voyager,
    "scann": Scann,
    "faiss-hnsw": FaissHnsw,
    "symphonyqg": Symphony,
}
# Ratios are against the best of these: they can filter or delete and are in common use.
COMPARED = ("hnswlib", "usearch", "usearch-f16", "voyager", "scann")
