"""Rows of float32 that numpy and FAISS both read where they lie, in memory or in a mapped file.

A copy of the vectors for FAISS alone would double what a gallery takes. FAISS reads an index
without copying when its serialised form is in memory already, so the rows are kept right behind the
header that FAISS itself would have written: ``IxF2``, a flat index by L2, as of FAISS 1.12.

Shape suffixes: N rows, D width.
"""

from pathlib import Path
from typing import Any, Final, Self

import faiss
import numpy as np
from numpy.typing import NDArray

HEADER_BYTES: Final = 64  # zeros, then FAISS's header: the rows after it are aligned
_ROWS_AT: Final = slice(8, 16)  # of FAISS's header: number of rows
_NUMBERS_AT: Final = slice(37, 45)  # and of the numbers in all of them
ALIGNMENT: Final = 64


class Matrix:
    """An unchanging block of vectors, as a numpy array and as a flat FAISS index by L2."""

    def __init__(self, block: NDArray[np.uint8], *, count: int, width: int) -> None:
        self.rows_ND: NDArray[np.float32] = (
            block[HEADER_BYTES:].view(np.float32).reshape(count, width)
        )
        self._block = block  # FAISS points into it
        self._index = block[HEADER_BYTES - len(_flat_header(width)) :]
        self.flat = self.flat_of(count)

    @classmethod
    def of(cls, vectors_ND: NDArray[np.float32], *, order: NDArray[np.int64] | None = None) -> Self:
        """Return a matrix in memory that holds a copy of the rows, or of those ``order`` names."""
        count, width = vectors_ND.shape if order is None else (len(order), vectors_ND.shape[1])
        size = HEADER_BYTES + count * width * vectors_ND.itemsize
        spare = np.empty(size + ALIGNMENT, np.uint8)
        start = -spare.ctypes.data % ALIGNMENT
        block = spare[start : start + size]
        block[:HEADER_BYTES] = np.frombuffer(matrix_header(count, width), np.uint8)
        rows_ND = block[HEADER_BYTES:].view(np.float32).reshape(count, width)
        if order is None:
            rows_ND[:] = vectors_ND
        else:
            np.take(vectors_ND, order, axis=0, out=rows_ND)
        return cls(block, count=count, width=width)

    @classmethod
    def mapped(cls, path: Path, *, count: int, width: int) -> Self:
        """Return the matrix in a file of ``matrix_header`` and rows, shared by all that map it."""
        block = np.asarray(np.memmap(path, np.uint8, mode="r"))
        return cls(block, count=count, width=width)

    def flat_of(self, count: int) -> Any:
        """Return a flat FAISS index by L2 over the first ``count`` rows, without copying them."""
        reader = faiss.ZeroCopyIOReader(faiss.swig_ptr(self._index), len(self._index))
        flat = faiss.read_index(reader)
        flat.ntotal = count
        return flat


def matrix_header(count: int, width: int) -> bytes:
    """Return what stands before ``count`` rows of ``width`` numbers in a file of them."""
    header = bytearray(_flat_header(width))
    header[_ROWS_AT] = count.to_bytes(8, "little")
    header[_NUMBERS_AT] = (count * width).to_bytes(8, "little")
    return bytes(HEADER_BYTES - len(header)) + bytes(header)


def _flat_header(width: int) -> bytes:
    return bytes(faiss.serialize_index(faiss.IndexFlatL2(width)))
