"""A FAISS index over the rows of a matrix, whose best candidates are refined with exact distances.

Works on squared L2 distances, which order unit vectors as the cosine does: score = 1 - distance/2.

Shape suffixes: N rows, Q queries, K hits, D vector width.
"""

from dataclasses import replace
from functools import cached_property
from typing import Any, Final

import faiss
import numpy as np
from numpy.typing import NDArray

from index.search.index_spec import IndexSpec
from index.search.live_rows import LiveRows
from index.search.scalar_quantizer import (
    SAMPLE_ROWS,
    add_quantized,
    scalar_quantizer_transform,
    train_quantized,
)
from index.search.unindexed_rows import UnindexedRows
from index.search.vector_matrix import Matrix

TRAINING_ROWS: Final = 100_000  # enough to learn principal components and codes from
MAX_SEARCH_DEPTH: Final = 4_096
ASKED_ROWS: Final = 8_192  # asked for at a time, to see which are not found
MEASURED_K: Final = 10  # what a spec's recall was measured for
HARDER: Final = (
    8  # times the search depth, where what was found lies farther away than a spec's floors
)
HARDER_K_FACTOR: Final = 2  # times as many candidates, there
FAR: Final = 1.3  # times a floor's squared distance; what lies beyond even then is left to a scan
_MINUS_HALF: Final = np.array(-0.5, np.float32)  # Python's numbers take numpy twice as long
_ONE: Final = np.array(1, np.float32)


class AnnIndex:
    """An approximate index that never changes; any number of threads may search it."""

    def __init__(
        self, index: Any, matrix: Matrix, spec: IndexSpec, unindexed: UnindexedRows | None = None
    ) -> None:
        self.index = index
        self.spec = spec
        self.unindexed = unindexed  # looked at besides
        self._flat = matrix.flat_of(index.ntotal)
        self._refined = faiss.IndexRefine(index, self._flat)
        self._matrix = matrix  # FAISS points into it
        self._parameters: dict[tuple[int, float], Any] = {}
        self._floors: dict[tuple[int, float], tuple[int, float]] = {}  # by k and times

    @classmethod
    def build(cls, matrix: Matrix, spec: IndexSpec, *, count: int, seed: int = 0) -> "AnnIndex":
        """Return the ANN index that ``spec`` describes over the first ``count`` rows.

        Uses all threads that FAISS has.
        """
        rows_ND = matrix.rows_ND[:count]
        chosen = np.random.default_rng(seed).permutation(count)[:TRAINING_ROWS]
        sample_ND = rows_ND[np.sort(chosen)]
        if spec.scalar_quantizer:
            index = _quantized_index(spec, sample_ND, rows_ND, seed)
        else:
            index = faiss.index_factory(rows_ND.shape[1], spec.factory, faiss.METRIC_L2)
            if spec.kind == "graph":
                bare_index(index).hnsw.efConstruction = spec.construction
            index.train(sample_ND)
        return cls(_filled(index, rows_ND, spec), matrix, spec)

    def completed(self) -> "AnnIndex":
        """Add the rows of the matrix that are not in it yet, and return it."""
        rest_ND = self._matrix.rows_ND[self.index.ntotal :]
        return AnnIndex(_filled(self.index, rest_ND, self.spec), self._matrix, self.spec)

    def with_spec(self, spec: IndexSpec) -> "AnnIndex":
        """Return the same index, searched as ``spec`` says."""
        return AnnIndex(self.index, self._matrix, spec, self.unindexed)

    def with_unindexed_rows(self, rows: NDArray[np.int64] | None = None) -> "AnnIndex":
        """Return the same index, complete, which looks at ``rows`` in every search.

        And at the row that equals the query. Reads all rows; without ``rows``, searches for all of
        them to see which ones it may not find.
        """
        rows = self._find_unindexed_rows() if rows is None else rows
        return AnnIndex(self.index, self._matrix, self.spec, UnindexedRows(rows, self._matrix))

    def _find_unindexed_rows(self) -> NDArray[np.int64]:
        """Return the rows that may not be found by their own vectors, the least alike first.

        Every row is asked for with half the candidates. A row of which a twin came back is none of
        them. Uses all threads that FAISS has.
        """
        rows_ND = self.rows_ND
        careful = self.with_spec(replace(self.spec, k_factor=max(1.0, self.spec.k_factor / 2)))
        unindexed, likeness = [], []
        for start in range(0, len(rows_ND), ASKED_ROWS):
            block_ND = rows_ND[start : start + ASKED_ROWS]
            scores_N1, found_N1 = careful.search(block_ND, 1)
            others_ND = rows_ND[np.maximum(found_N1[:, 0], 0)]
            astray = np.flatnonzero((others_ND != block_ND).any(axis=1) | (found_N1[:, 0] < 0))
            unindexed.append(astray + start)
            likeness.append(scores_N1[astray, 0])
        return np.concatenate(unindexed)[np.argsort(np.concatenate(likeness), kind="stable")]

    @property
    def unindexed_rows(self) -> NDArray[np.int64]:
        """The rows that every search looks at besides."""
        return np.empty(0, np.int64) if self.unindexed is None else self.unindexed.rows

    @property
    def max_search_depth(self) -> int:
        """What more than this finds no more."""
        lists = getattr(bare_index(self.index), "nlist", MAX_SEARCH_DEPTH)
        return min(MAX_SEARCH_DEPTH, lists)

    @property
    def rows_ND(self) -> NDArray[np.float32]:
        """The rows that are in it."""
        return self._matrix.rows_ND[: self.index.ntotal]

    def adaptive_search(
        self,
        queries_QD: NDArray[np.float32],
        k: int,
        *,
        live: LiveRows | None = None,
        share: float = 1.0,
    ) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.bool_] | None]:
        """Search, and search harder where what is found lies farther away than it mostly does.

        Then the query comes from where the rows do not lie, and its nearest are scattered.

        Returns:
            As ``search``; and for which queries (Q,) they are far away still, so that only a scan
            is to be believed. ``None``: for none.
        """
        scores_QK, rows_QK = self.search(queries_QD, k, live=live, share=share)
        doubtful_Q = self._below(scores_QK, 1.0)
        if doubtful_Q is None:
            return scores_QK, rows_QK, None
        again = np.flatnonzero(doubtful_Q)
        scores_QK[again], rows_QK[again] = self._harder.search(
            np.ascontiguousarray(queries_QD[again]), k, live=live, share=share
        )
        return scores_QK, rows_QK, self.far(scores_QK)

    def far(self, scores_QK: NDArray[np.float32]) -> NDArray[np.bool_] | None:
        """Return which queries (Q,) lie far from all that they found; ``None``: none of them."""
        return self._below(scores_QK, FAR)

    def _below(self, scores_QK: NDArray[np.float32], times: float) -> NDArray[np.bool_] | None:
        """Return which answers (Q,) are ``times`` as far away as the spec's floor, or farther."""
        if not self.spec.floors:
            return None
        place, floor = self._floor(scores_QK.shape[1], times)
        if len(scores_QK) == 1:
            return np.ones(1, np.bool_) if scores_QK.item(place) < floor else None
        below_Q: NDArray[np.bool_] = scores_QK[:, place] < floor
        return below_Q if np.count_nonzero(below_Q) else None

    def _floor(self, k: int, times: float) -> tuple[int, float]:
        """Return the place of the hit to look at among ``k``, and the score that it must reach."""
        known = self._floors.get((k, times))
        if known is None:
            place = min(k, len(self.spec.floors)) - 1
            known = place, max(1 - times * (1 - self.spec.floors[place]), -1.0)
            self._floors[k, times] = known
        return known

    @cached_property
    def _harder(self) -> "AnnIndex":
        spec, more = self.spec, HARDER_K_FACTOR
        search_depth = min(MAX_SEARCH_DEPTH, HARDER * spec.search_depth)
        return self.with_spec(
            replace(spec, search_depth=search_depth, k_factor=more * spec.k_factor)
        )

    def search(
        self,
        queries_QD: NDArray[np.float32],
        k: int,
        *,
        live: LiveRows | None = None,
        share: float = 1.0,
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Return scores and rows (Q, k), best first; rows of -1 where no more were found.

        Args:
            queries_QD: finite unit vectors, C-contiguous.
            k: at least 1.
            live: the rows that may be returned; ``None`` for all.
            share: of the rows that are live; the fewer, the harder it looks for them.
        """
        scores_QK = np.empty((len(queries_QD), k), np.float32)
        rows_QK = np.empty((len(queries_QD), k), np.int64)
        # The method below Python's wrapper: its checks and copies cost a tenth of a search.
        self._refined.search_c(
            len(queries_QD),
            faiss.swig_ptr(queries_QD),
            k,
            faiss.swig_ptr(scores_QK),
            faiss.swig_ptr(rows_QK),
            self._search_parameters(k, live, share),
        )
        np.multiply(scores_QK, _MINUS_HALF, scores_QK)
        np.add(scores_QK, _ONE, scores_QK)
        if len(scores_QK) > 1 or scores_QK.item(-1) < -1:  # of opposite vectors, by rounding
            np.maximum(scores_QK, -1, out=scores_QK)
        if self.unindexed is not None:
            self.unindexed.work_in(queries_QD, scores_QK, rows_QK, live)
        return scores_QK, rows_QK

    def _search_parameters(self, k: int, live: LiveRows | None, share: float) -> Any:
        """Return FAISS's parameters of a search; making them costs as much as a tenth of it."""
        known = self._parameters if live is None else live.parameters
        parameters = known.get((k, share))
        if parameters is not None:
            return parameters
        depth, selector = self.search_depth(k, share), None if live is None else live.selector
        if self.spec.kind == "graph":
            inner = faiss.SearchParametersHNSW(efSearch=depth, sel=selector)
        else:
            inner = faiss.SearchParametersIVF(nprobe=depth, sel=selector)
        if isinstance(self.index, faiss.IndexPreTransform):
            inner = faiss.SearchParametersPreTransform(index_params=inner)
        known[k, share] = parameters = faiss.IndexRefineSearchParameters(
            k_factor=self.spec.k_factor, base_index_params=inner
        )
        return parameters

    def search_depth(self, k: int, share: float) -> int:
        """Return how hard to look for ``k`` hits when only a ``share`` of the rows counts."""
        more = max(1.0, k / MEASURED_K) ** (1.0 if self.spec.kind == "graph" else 0.5)
        return min(MAX_SEARCH_DEPTH, int(self.spec.search_depth * more / share))


def _quantized_index(
    spec: IndexSpec, sample_ND: NDArray[np.float32], rows_ND: NDArray[np.float32], seed: int
) -> Any:
    """Return an index without rows, trained to hold them as bytes."""
    every = -(-len(sample_ND) // SAMPLE_ROWS)
    transform = scalar_quantizer_transform(sample_ND[::every], rows_ND, seed=seed)
    width, code = transform.d_out, faiss.ScalarQuantizer.QT_8bit_direct
    if spec.kind == "graph":
        behind = faiss.IndexHNSWSQ(width, code, int(spec.factory.removeprefix("HNSW")))
        behind.hnsw.efConstruction = spec.construction
    else:
        coarse = faiss.IndexFlatL2(width)
        lists = int(spec.factory.removeprefix("IVF"))
        behind = faiss.IndexIVFScalarQuantizer(coarse, width, lists, code, faiss.METRIC_L2, False)
        behind.cp.min_points_per_centroid = 1  # few rows are no reason for a warning
    index = faiss.IndexPreTransform(transform, behind)
    train_quantized(index, sample_ND)
    return index


def _filled(index: Any, rows_ND: NDArray[np.float32], spec: IndexSpec) -> Any:
    if spec.scalar_quantizer:
        add_quantized(index, rows_ND)
    else:
        index.add(rows_ND)
    return index


def bare_index(index: Any) -> Any:
    """Return the index behind the transformations of its input."""
    return (
        faiss.downcast_index(index.index) if isinstance(index, faiss.IndexPreTransform) else index
    )
