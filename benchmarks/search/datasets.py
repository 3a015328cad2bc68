"""The vectors that searches are measured on: base rows, queries, and the exact answer.

N base rows, Q queries, D width. Distances are squared Euclidean; unit rows order as by cosine.
"""

import gzip
from dataclasses import dataclass
from pathlib import Path

import faiss
import numpy as np

FASHION = Path("/usr/share/datasets/fashion-mnist")  # of the Debian package dataset-fashion-mnist
IDX3_HEADER_BYTES = 16
K = 10
SLACK = 32  # nearest rows that are measured again in float64 to find the exact K-th distance
CLUSTERS, SUBSPACES, SUBSPACE_WIDTH, WIDTH = 2000, 16, 24, 128


@dataclass(frozen=True)
class SearchSet:
    """Base rows, queries, and how near a row must be to count as found."""

    name: str
    base_ND: np.ndarray  # float32, a memory map
    queries_QD: np.ndarray  # float32
    kth_Q: np.ndarray  # float64, exact squared distance of the K-th nearest row

    def recall(self, rows_QK: np.ndarray) -> float:
        """Return the share of found rows that are among the K nearest, in [0, 1].

        A row as near as the K-th counts, so ties are right; a row named twice counts once.
        """
        rows_QK = np.sort(np.asarray(rows_QK, np.int64), axis=1)
        known_QK = rows_QK >= 0
        known_QK[:, 1:] &= rows_QK[:, 1:] != rows_QK[:, :-1]
        distances_QK = squared_distances(self.base_ND, self.queries_QD, np.maximum(rows_QK, 0))
        near_QK = distances_QK <= self.kth_Q[:, None] * (1 + 1e-12)
        return float((near_QK & known_QK).sum() / (len(rows_QK) * K))


def open_set(name: str, cache: Path, *, rows: int, queries: int) -> SearchSet:
    """Return the named set; the first call writes it into `cache`, with its exact answer.

    Args:
        name: One of `fashion`, `fashion-unit`, `clustered`.
        rows: Base rows of `clustered`; the others have 60,000.
        queries: At most so many queries are taken.
    """
    cache.mkdir(parents=True, exist_ok=True)
    stem = f"{name}-{rows}" if name == "clustered" else name
    base, asked, kth = (cache / f"{stem}-{part}.npy" for part in ("base", "queries", "kth"))
    if not base.exists():
        base_ND, queries_QD = clustered(rows) if name == "clustered" else fashion(name)
        np.save(asked, queries_QD)
        np.save(kth, exact_kth(base_ND, queries_QD))
        np.save(base, base_ND)  # last: its presence says that all three are there
    return SearchSet(
        stem,
        np.asarray(np.load(base, mmap_mode="c")),  # voyager refuses an array that is read-only
        np.load(asked)[:queries],
        np.load(kth)[:queries],
    )


def fashion(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Return 60,000 training and 10,000 test images of Fashion-MNIST as rows of 784 values.

    `fashion` has pixels in 0..255, as ann-benchmarks' fashion-mnist-784-euclidean; `fashion-unit`
    the same rows scaled to length 1.
    """
    if not FASHION.exists():
        raise SystemExit(f"{FASHION} is missing: apt-get install dataset-fashion-mnist")
    base_ND, queries_QD = (
        np.frombuffer(gzip.decompress(path.read_bytes()), np.uint8, offset=IDX3_HEADER_BYTES)
        .reshape(-1, 784)
        .astype(np.float32)
        for path in (FASHION / f"{part}-images-idx3-ubyte.gz" for part in ("train", "t10k"))
    )
    return (base_ND, queries_QD) if name == "fashion" else (unit(base_ND), unit(queries_QD))


def clustered(rows: int, queries: int = 1000, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return unit rows around 2,000 centres, each spread within one of 16 random 24-d subspaces."""
    rng = np.random.default_rng(seed)
    centres_CD = unit(rng.standard_normal((CLUSTERS, WIDTH), np.float32))
    frames = rng.standard_normal((SUBSPACES, WIDTH, SUBSPACE_WIDTH))
    subspaces_SDW = np.linalg.qr(frames)[0].astype(np.float32)

    def draw(count: int) -> np.ndarray:
        rows_ND = centres_CD[rng.integers(0, CLUSTERS, count)]
        subspace_N = rng.integers(0, SUBSPACES, count)
        for subspace in range(SUBSPACES):
            inside = np.flatnonzero(subspace_N == subspace)
            spread = rng.standard_normal((len(inside), SUBSPACE_WIDTH), np.float32)
            rows_ND[inside] += 0.8 / SUBSPACE_WIDTH**0.5 * spread @ subspaces_SDW[subspace].T
        rows_ND += 0.01 * rng.standard_normal((count, WIDTH), np.float32)
        return unit(rows_ND)

    return draw(rows), draw(queries)


def unit(rows_ND: np.ndarray) -> np.ndarray:
    """Return the rows scaled to length 1."""
    scaled: np.ndarray = rows_ND / np.linalg.norm(rows_ND, axis=1, keepdims=True)
    return scaled.astype(np.float32)


def exact_kth(base_ND: np.ndarray, queries_QD: np.ndarray) -> np.ndarray:
    """Return the squared distance of each query's K-th nearest row, in float64."""
    _, rows_QS = faiss.knn(queries_QD, np.ascontiguousarray(base_ND), min(SLACK, len(base_ND)))
    return np.sort(squared_distances(base_ND, queries_QD, rows_QS), axis=1)[:, K - 1]


def squared_distances(
    base_ND: np.ndarray, queries_QD: np.ndarray, rows_QK: np.ndarray
) -> np.ndarray:
    """Return the squared distances of the named rows, in float64, (Q, K)."""
    distances_QK = np.empty(rows_QK.shape)
    for start in range(0, len(rows_QK), 256):
        part = slice(start, start + 256)
        near_BKD = base_ND[rows_QK[part]].astype(np.float64)
        distances_QK[part] = ((near_BKD - queries_QD[part, None]) ** 2).sum(axis=2)
    return distances_QK
