"""Which rows a search may return: one bit for each, as numpy and FAISS read them."""

from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray


class LiveRows:
    """Which rows a search may return: one bit for each, and FAISS's selector of them."""

    def __init__(self, bits: NDArray[np.uint8]) -> None:
        self.bits = bits
        self.selector = faiss.IDSelectorBitmap(bits)
        self.parameters: dict[tuple[int, float], Any] = {}  # of searches among them

    @classmethod
    def only(cls, rows: NDArray[np.int64], *, count: int) -> "LiveRows":
        """Return the selection of ``rows`` out of ``count``."""
        flags = np.zeros(count, np.bool_)
        flags[rows] = True
        return cls(np.packbits(flags, bitorder="little"))

    def without(self, rows: NDArray[np.int64]) -> "LiveRows":
        """Return a selection in which ``rows`` are tombstoned too."""
        bits = self.bits.copy()
        np.bitwise_and.at(bits, rows >> 3, ~(1 << (rows & 7)).astype(np.uint8))
        return LiveRows(bits)

    def among(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return those of ``rows`` that are selected, in their order."""
        return rows[self.flags(rows)]

    def flags(self, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return for each of ``rows``, of any shape, whether it is selected."""
        selected: NDArray[np.bool_] = (self.bits[rows >> 3] >> (rows & 7)) & 1 == 1
        return selected
