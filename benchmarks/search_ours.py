"""What Lookalike searches with, behind the four calls that every engine of the benchmark has.

For now FAISS directly: rows are rotated onto their widest 160 directions and kept as one byte per
value in the lists of an inverted file; the nearest of those are measured again on float32 rows.
"""

import faiss
import numpy as np

CODE_WIDTH = 160  # bytes per row; 128 ends at recall .9987 on Fashion-MNIST, 160 at .9997
TRAINING_ROWS = 50_000  # for rotation and centres
MARGIN = 1.15  # how far beyond the base rows a query may lie before its byte would wrap around
LARGEST_SINGLE_LEVEL = 300_000  # rows; from here 2,048 lists


class Ours:
    """PCA to bytes -> inverted file -> exact float32 distances of the nearest few."""

    name = "Lookalike"
    efforts: tuple[int, ...] = (4, 8, 12, 16, 24, 32, 48, 64, 96, 192)

    def build(self, vectors_ND: np.ndarray) -> None:
        """Build over all rows."""
        vectors_ND = np.ascontiguousarray(vectors_ND)
        self._vectors_ND = vectors_ND
        count, width = vectors_ND.shape
        lists = 512 if count <= LARGEST_SINGLE_LEVEL else 2048
        sample_ND = vectors_ND[:: max(1, count // TRAINING_ROWS)]
        self._bytes = byte_transform(sample_ND, min(CODE_WIDTH, width // 16 * 16))
        code_width = self._bytes.d_out
        self._quantizer = faiss.IndexFlatL2(code_width)
        self._lists = faiss.IndexIVFScalarQuantizer(
            self._quantizer,
            code_width,
            lists,
            faiss.ScalarQuantizer.QT_8bit_direct,
            faiss.METRIC_L2,
            False,
        )
        self._coarse = faiss.IndexPreTransform(self._bytes, self._lists)
        self._lists.train(self._bytes.apply(sample_ND))
        self._coarse.is_trained = True
        self._rows = faiss.IndexFlatL2(width)
        for start in range(0, count, TRAINING_ROWS):
            part_ND = vectors_ND[start : start + TRAINING_ROWS]
            # FAISS wraps a value beyond 255 around to 0; a row that far out is clipped instead.
            self._lists.add(np.clip(self._bytes.apply(part_ND), 0, 255))
            self._rows.add(part_ND)
        self._coarse.ntotal = count
        self._index = faiss.IndexRefine(self._coarse, self._rows)

    def set_effort(self, effort: int) -> None:
        """Visit so many lists, and measure so many rows again."""
        self._lists.nprobe = effort
        self._index.k_factor = max(3, effort / 5)

    def search_one(self, query_D: np.ndarray, k: int) -> np.ndarray:
        """Return the rows nearest to one query, (k,)."""
        rows_QK: np.ndarray = self._index.search(query_D[None], k)[1]
        return rows_QK[0]

    def search_batch(self, queries_QD: np.ndarray, k: int) -> np.ndarray:
        """Return the rows nearest to each query, (Q, k)."""
        rows_QK: np.ndarray = self._index.search(queries_QD, k)[1]
        return rows_QK

    def search_among(self, query_D: np.ndarray, rows_M: np.ndarray, k: int) -> np.ndarray:
        """Return the rows of `rows_M` nearest to one query, (k,), exactly."""
        # By row numbers where the vectors lie: twice as fast as to gather them first.
        query_D = np.ascontiguousarray(query_D)
        distances_K, rows_K = np.empty(k, np.float32), np.empty(k, np.int64)
        faiss.knn_L2sqr_by_idx(
            faiss.swig_ptr(query_D),
            faiss.swig_ptr(self._vectors_ND),
            faiss.swig_ptr(rows_M),
            len(query_D),
            1,
            len(self._vectors_ND),
            len(rows_M),
            k,
            faiss.swig_ptr(distances_K),
            faiss.swig_ptr(rows_K),
        )
        return rows_K

    def size_bytes(self) -> int:
        """Return what the index takes, the float32 rows included."""
        written: int = faiss.serialize_index(self._index).nbytes
        return written


def byte_transform(sample_ND: np.ndarray, width: int) -> faiss.LinearTransform:
    """Return PCA, then a random rotation, scaled and shifted into 0..255.

    Distances keep their order because all values share one scale; the rotation evens the variances,
    so that one scale fits all of them. FAISS then compares bytes with bytes, its fastest distance.
    """
    pca = faiss.PCAMatrix(sample_ND.shape[1], width)
    pca.train(sample_ND)
    axes_WD = faiss.vector_to_array(pca.A)[: width * sample_ND.shape[1]].reshape(width, -1)
    rng = np.random.default_rng(0)
    rotation_WW = np.linalg.qr(rng.standard_normal((width, width)))[0].astype(np.float32)
    axes_WD = rotation_WW @ axes_WD
    offset_W = -axes_WD @ sample_ND.mean(axis=0)
    largest = np.abs(sample_ND @ axes_WD.T + offset_W).max() * MARGIN
    transform = faiss.LinearTransform(sample_ND.shape[1], width, True)
    faiss.copy_array_to_vector((axes_WD * (127 / largest)).ravel(), transform.A)
    faiss.copy_array_to_vector(offset_W * (127 / largest) + 128, transform.b)
    transform.is_trained = True
    return transform
