"""Bases with real structures over rows that lie in clusters, and the slow twin of their search."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from index.maintenance.compaction import Compaction, _best, _choose, compact
from index.search.ann_index import AnnIndex
from index.search.index_spec import EXACT, RECALL, IndexSpec, candidate_specs
from index.search.policy import SearchPolicy
from index.search.recall_confidence import Recall
from index.search.tuning_sample import hold_out
from index.search.vector_matrix import Matrix
from index.snapshot.segments.generations import Generations
from index.snapshot.segments.immutable_segment import ImmutableSegment
from index.store.store import Store
from tests.support.fakes import unit

GRAPH = IndexSpec(kind="graph", factory="HNSW24_SQ8", construction=120, search_depth=64, k_factor=4)
QUANTIZED = IndexSpec(kind="quantized", factory="IVF16,PQ8x4fsr", search_depth=8, k_factor=8)
LISTS = IndexSpec(kind="lists", factory="IVF16", scalar_quantizer=True, search_depth=8, k_factor=4)
BYTE_GRAPH = IndexSpec(
    kind="graph",
    factory="HNSW24",
    scalar_quantizer=True,
    construction=120,
    search_depth=64,
    k_factor=4,
)
SPECS = [GRAPH, QUANTIZED, LISTS, BYTE_GRAPH]


def clustered(
    count: int, width: int, *, seed: int, clusters: int = 100
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return unit vectors (count, width) in clusters of uneven size, as embeddings are; and whose.

    Rows with the same ``clusters`` and ``width`` share the centres, whatever the ``seed``.
    """
    centres = np.random.default_rng(clusters).normal(size=(clusters, width))
    rng = np.random.default_rng(seed)
    cluster_N = (rng.random(count) ** 1.5 * clusters).astype(np.int64)
    return unit(centres[cluster_N] + 0.6 * rng.normal(size=(count, width))), cluster_N


def base_of(
    vectors_ND: NDArray[np.float32],
    spec: IndexSpec = EXACT,
    *,
    keys_N: NDArray[np.int64] | None = None,
    generation: int = 1,
) -> ImmutableSegment:
    """Return a base in memory, under the keys 1, 2, ... unless told others."""
    matrix = Matrix.of(vectors_ND)
    exact = spec.kind == "exact"
    return ImmutableSegment(
        generation=generation,
        seq=0,
        keys_N=np.arange(1, len(vectors_ND) + 1) if keys_N is None else keys_N,
        matrix=matrix,
        spec=spec,
        ann_index=None if exact else AnnIndex.build(matrix, spec, count=len(vectors_ND)),
    )


def measured_base(vectors_ND: NDArray[np.float32], *, target: float = RECALL) -> ImmutableSegment:
    """Return the base that a rebuild makes of the rows, under the keys 1, 2, ..., in memory."""
    keys_N, sample = hold_out(np.arange(1, len(vectors_ND) + 1), vectors_ND, target=target)
    wanted = candidate_specs(*vectors_ND.shape)
    ann_index, trials = _choose(sample, wanted, target=target, all_of_them=False, tuned=None)
    if ann_index is not None:
        ann_index = ann_index.completed()
        ann_index = ann_index.with_unindexed_rows()
    return ImmutableSegment(
        generation=1,
        seq=0,
        keys_N=keys_N,
        matrix=sample.matrix,
        spec=_best(trials).spec,
        ann_index=ann_index,
    )


def scores_of(vectors_ND: NDArray[np.float32], query_D: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return every cosine, summed in double precision: float32 (N,)."""
    products_ND = vectors_ND.astype(np.float64) * query_D
    return np.clip(products_ND.sum(axis=1), -1, 1).astype(np.float32)


def best(
    keys_N: NDArray[np.int64], scores_N: NDArray[np.float32], k: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return the best ``k``, best first, ties by the smaller key: the slow twin of a search."""
    order = sorted(range(len(keys_N)), key=lambda row: (-scores_N[row], keys_N[row]))[:k]
    return keys_N[order], scores_N[order]


# Filters that let more than eight rows of eight numbers through are answered by the ANN index.
SMALL = SearchPolicy(scan_numbers=8 * 8)


def small_structures(patch: pytest.MonkeyPatch) -> None:
    """Let a few dozen rows be measured, 100 have a graph, and 250 inverted lists of codes.

    Galleries under ``SMALL`` have filtered searches use it unless a handful of rows is allowed.
    """

    def few(rows: int, width: int) -> list[IndexSpec]:
        graph = replace(BYTE_GRAPH, search_depth=0, k_factor=0)
        quantized = replace(
            QUANTIZED, factory=f"IVF4,PQ{width // 2}x4fsr", search_depth=0, k_factor=0
        )
        lists = replace(LISTS, factory="IVF4", scalar_quantizer=True, search_depth=0, k_factor=0)
        if rows < 100:
            return [EXACT]
        if rows < 250:
            return [graph, lists, EXACT]
        return [quantized, graph, EXACT] if rows < 380 else [lists, quantized, graph, EXACT]

    patch.setattr("index.maintenance.compaction.candidate_specs", few)
    patch.setattr(
        "index.maintenance.compaction.EASY_SEARCH_DEPTH",
        {"lists": 4096, "graph": 4096, "quantized": 4096},
    )
    patch.setattr("index.maintenance.compaction.LEAST_ROWS", 40)
    patch.setattr("index.search.index_spec.EXACT_ROWS", 100)
    patch.setattr("index.search.autotune.ROUNDS", 1)
    patch.setattr("index.search.autotune.recall_between", as_measured)


def as_measured(found_Q: NDArray[np.float64], *, k: int) -> Recall:
    """Return the mean alone, as if there had been queries without end."""
    del k
    return Recall(*[round(float(found_Q.mean()), 5)] * 3)


def rebuilt(
    folder: Path,
    *,
    target: float | None = None,
    tune: bool = False,
    on_stage: Callable[[str], None] = lambda _: None,
) -> Compaction:
    """Compact the gallery in ``folder`` as another process would, and return what was made."""
    store = Store.open(folder)
    try:
        return compact(store, Generations.of(store), target=target, tune=tune, on_stage=on_stage)
    finally:
        store.close()
