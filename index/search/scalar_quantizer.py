"""Vectors as bytes: a rotation onto the directions that matter, one scale, 0 to 255.

Distances between such bytes order rows as the distances between the vectors do, nearly: the rest is
for the exact refinement. FAISS compares bytes with bytes in integers, the quickest of its
distances, and 160 of them hold what 784 floats mean.

The scale is taken from all rows, but not from the few that lie far outside: one of them would
leave all the others a handful of codes. Their numbers are cut off, and
`index.search.unindexed_rows` sees to it that they are found all the same.

The principal components come first (they keep the most of the distances), then a random rotation,
which spreads what they keep evenly: so one scale fits every place. Half a step is added, because
FAISS cuts a query's fractions off.

Shape suffixes: N rows, D vector width, W bytes per row.
"""

from typing import Any, Final

import faiss
import numpy as np
from numpy.typing import NDArray

STEP: Final = 32  # rows of so many bytes are compared in integers, by FAISS with AVX-512
MAX_WIDTH: Final = 160  # on Fashion-MNIST, 128 bytes end at recall .9987 and 160 at .9997
MARGIN: Final = 1.15  # how much further than the rows a query may lie before a byte overflows
CUT_SHARE: Final = 0.001  # of the rows may be cut off,
CUT_REACH: Final = 1.5  # when the farthest lies so many times as far out as all but them
LARGEST: Final = 255.49
SAMPLE_ROWS: Final = 50_000  # that the directions are taken from
CODED_ROWS: Final = 65_536  # turned into bytes at a time


def code_width(width: int) -> int:
    """Return how many bytes stand for a vector of ``width`` numbers."""
    return min(MAX_WIDTH, -(-width // STEP) * STEP)


def scalar_quantizer_transform(
    sample_ND: NDArray[np.float32], rows_ND: NDArray[np.float32], *, seed: int
) -> Any:
    """Return FAISS's linear transform from vectors to numbers that lie within 0 and 255.

    Args:
        sample_ND: rows to take the directions from.
        rows_ND: all rows; nearly all of them are to lie within.
        seed: of the rotation.
    """
    width = sample_ND.shape[1]
    coded = code_width(width)
    mean_D = sample_ND.mean(axis=0, dtype=np.float64)
    centred_ND = (sample_ND - mean_D).astype(np.float32)
    _, directions_DD = np.linalg.eigh((centred_ND.T @ centred_ND).astype(np.float64))
    kept_WD = directions_DD[:, ::-1].T[:coded]  # eigh gives the widest last
    rotation_WW, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(coded, coded)))
    axes_WD = rotation_WW[:, : len(kept_WD)] @ kept_WD
    scale = 127 / max(_reach(rows_ND, axes_WD, mean_D) * MARGIN, 1e-9)
    transform = faiss.LinearTransform(width, coded, True)
    faiss.copy_array_to_vector((axes_WD * scale).astype(np.float32).ravel(), transform.A)
    offset_W = -(axes_WD @ mean_D) * scale + 128.5
    faiss.copy_array_to_vector(offset_W.astype(np.float32), transform.b)
    transform.is_trained = True
    return transform


def _reach(
    rows_ND: NDArray[np.float32], axes_WD: NDArray[np.float64], mean_D: NDArray[np.float64]
) -> float:
    """Return how far from the mean the rows lie along any axis, but for the few farthest."""
    offset_W = axes_WD @ mean_D
    axes_DW = axes_WD.T.astype(np.float32)
    farthest = [
        np.abs(rows_ND[start : start + CODED_ROWS] @ axes_DW - offset_W).max(axis=1)
        for start in range(0, len(rows_ND), CODED_ROWS)
    ]
    sorted_N = np.sort(np.concatenate(farthest))
    usual = float(sorted_N[-1 - int(CUT_SHARE * len(sorted_N))])
    return min(float(sorted_N[-1]), CUT_REACH * usual)


def train_quantized(index: Any, rows_ND: NDArray[np.float32]) -> None:
    """Train what stands behind the byte transform of ``index``."""
    _behind(index).train(_coded(index, rows_ND))
    index.is_trained = True


def add_quantized(index: Any, rows_ND: NDArray[np.float32]) -> None:
    """Add rows behind the byte transform; one that lies too far out is cut off, not wrapped."""
    behind = _behind(index)
    for start in range(0, len(rows_ND), CODED_ROWS):
        behind.add(_coded(index, rows_ND[start : start + CODED_ROWS]))
    index.ntotal = behind.ntotal


def _behind(index: Any) -> Any:
    return faiss.downcast_index(index.index)


def _coded(index: Any, rows_ND: NDArray[np.float32]) -> NDArray[np.float32]:
    transform = faiss.downcast_VectorTransform(index.chain.at(0))
    numbers_NW: NDArray[np.float32] = transform.apply(np.ascontiguousarray(rows_ND))
    return np.clip(numbers_NW, 0, LARGEST, out=numbers_NW)
