"""Search among few allowed rows: 1 % and 0.1 % of clustered unit vectors, chosen at random.

Lookalike is asked through its gallery, with a filter on an item's metadata; hnswlib calls back
into Python for each row it looks at; Qdrant Edge (Qdrant's engine, embedded) has an indexed integer
in the payload and a filter on it. Recall@10 against the exact answer, ties counted; one query per
call; all engines in this process, on one core; queries per CPU second, best of the rounds.
"""

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import faiss
import numpy as np

from benchmarks.machine import commit, describe_machine
from benchmarks.search.datasets import K, SearchSet, exact_kth, open_set
from benchmarks.search.galleries import ONE_IN, clustered_gallery, groups_of
from benchmarks.search.rivals import BUILD_QUEUE, LINKS, library
from index.gallery import Gallery
from index.items.filter import parse_filter

QUERIES = 200
QUEUES = (64, 256)  # of a graph
UPSERTED = 10_000  # points per call


class FilteredEngine(Protocol):
    """What is asked of an engine here; the rows it returns are those of the whole set."""

    name: str
    build_s: float  # CPU seconds
    queues: tuple[int, ...]

    def allow(self, share: int, rows_M: np.ndarray) -> None:
        """Take the rows that searches may return from now on: one in `share`, sorted."""

    def search(self, query_D: np.ndarray, queue: int) -> np.ndarray:
        """Return the nearest K of the allowed rows, best first; fewer if it finds fewer."""


def compare_filtered(cache: Path, *, rows: int, rounds: int) -> None:
    """Build the engines, measure them in turns, and print one table as Markdown."""
    faiss.omp_set_num_threads(1)
    data = open_set("clustered", cache, rows=rows, queries=QUERIES)
    groups = groups_of(rows)
    with tempfile.TemporaryDirectory(dir=cache) as folder:
        engines: list[FilteredEngine] = [
            FilteredOurs(data, cache),
            FilteredHnswlib(data),
            FilteredQdrant(data, groups, Path(folder)),
        ]
        print(
            f"{describe_machine()}; commit {commit()}; {rows:,} x {data.base_ND.shape[1]}, "
            f"{QUERIES} queries, recall@{K}; best of {rounds} rounds, queries per CPU second\n\n"
            "| allowed | engine | queue | recall | queries/s | build CPU s |\n" + "|---" * 6 + "|"
        )
        for share in ONE_IN:
            measure_share(data, engines, share, np.flatnonzero(groups[share] == 0), rounds)


def measure_share(
    data: SearchSet,
    engines: Sequence[FilteredEngine],
    share: int,
    rows_M: np.ndarray,
    rounds: int,
) -> None:
    """Measure all engines on one share of allowed rows, in turns, and print their rows."""
    allowed = SearchSet(
        data.name,
        data.base_ND,
        data.queries_QD,
        exact_kth(data.base_ND[rows_M], data.queries_QD),
    )
    rates: dict[tuple[str, int], float] = {}
    recalls: dict[tuple[str, int], float] = {}
    for engine in engines:
        engine.allow(share, rows_M)
    for _ in range(rounds):
        for engine in engines:
            for queue in engine.queues:
                found_QK = np.full((len(data.queries_QD), K), -1)
                started = time.process_time()
                for place, query_D in enumerate(data.queries_QD):
                    rows_K = engine.search(query_D, queue)
                    found_QK[place, : len(rows_K)] = rows_K
                rate = len(data.queries_QD) / (time.process_time() - started)
                key = engine.name, queue
                rates[key] = max(rates.get(key, 0), rate)
                recalls[key] = allowed.recall(found_QK)
                if not np.isin(found_QK[found_QK >= 0], rows_M).all():
                    raise SystemExit(f"{engine.name} returned a row that is not allowed")
    for engine in engines:
        for queue in engine.queues:
            key = engine.name, queue
            print(
                f"| {100 / share:g} % ({len(rows_M):,}) | {engine.name} | {queue or 'exact'} | "
                f"{recalls[key]:.4f} | {rates[key]:,.0f} | {engine.build_s:.0f} |",
                flush=True,
            )


class FilteredOurs:
    """Lookalike's gallery, given the filter as the API takes it; answers are items."""

    name = "Lookalike, through the gallery"
    queues = (0,)

    def __init__(self, data: SearchSet, cache: Path) -> None:
        started = time.process_time()
        self._gallery = Gallery.open(clustered_gallery(cache, len(data.base_ND)), fingerprint=None)
        self.build_s = time.process_time() - started

    def allow(self, share: int, rows_M: np.ndarray) -> None:
        """Keep the filter whose rows these are, and ask it once, as its first user does."""
        self._filter = parse_filter({"must": [{"key": f"of_{share}", "match": 0}]})
        query_D = np.eye(1, self._gallery.binding.width, dtype=np.float32)[0]
        started = time.process_time()
        self.search(query_D, 0)
        print(f"(the first query with a filter: {(time.process_time() - started) * 1000:.1f} ms)\n")

    def search(self, query_D: np.ndarray, queue: int) -> np.ndarray:
        """Return the nearest K of the allowed rows."""
        found = self._gallery.search(query_D[np.newaxis], k=K, filter=self._filter)
        return np.array([int(hit.id) for hit in found.hits[0]])


class FilteredHnswlib:
    """hnswlib, with a membership test in Python that it calls for each row."""

    name = "hnswlib, filter callback"
    queues = QUEUES

    def __init__(self, data: SearchSet) -> None:
        hnswlib = library("hnswlib", "hnswlib")
        started = time.process_time()
        self._index = hnswlib.Index("l2", data.base_ND.shape[1])
        self._index.init_index(len(data.base_ND), M=LINKS, ef_construction=BUILD_QUEUE)
        self._index.set_num_threads(1)
        self._index.add_items(data.base_ND, num_threads=1)
        self.build_s = time.process_time() - started

    def allow(self, share: int, rows_M: np.ndarray) -> None:
        """Keep the rows as a set."""
        self._is_allowed = set(rows_M.tolist()).__contains__

    def search(self, query_D: np.ndarray, queue: int) -> np.ndarray:
        """Return what is found; nothing when it finds fewer than K, for which it raises."""
        self._index.set_ef(queue)
        try:
            rows_K: np.ndarray = self._index.knn_query(
                query_D, K, num_threads=1, filter=self._is_allowed
            )[0][0]
        except RuntimeError:
            return np.empty(0, np.int64)
        return rows_K


class FilteredQdrant:
    """Qdrant Edge with an integer index on the payload; its planner chooses the way itself."""

    name = "Qdrant Edge, payload index"
    queues = QUEUES

    def __init__(self, data: SearchSet, groups: dict[int, np.ndarray], folder: Path) -> None:
        self._qdrant = qdrant = library("qdrant_edge", "qdrant-edge-py")
        started = time.process_time()
        self._shard = qdrant.EdgeShard.create(
            str(folder),
            qdrant.EdgeConfig(
                vectors=qdrant.EdgeVectorParams(
                    size=data.base_ND.shape[1], distance=qdrant.Distance.Euclid
                ),
                hnsw_config=qdrant.HnswIndexConfig(
                    m=LINKS,
                    ef_construct=BUILD_QUEUE,
                    full_scan_threshold=10_000,  # kB, Qdrant's default
                    max_indexing_threads=1,
                ),
                optimizers=qdrant.EdgeOptimizersConfig(default_segment_number=1),
                max_search_threads=1,
            ),
        )
        update = qdrant.UpdateOperation
        for share in groups:
            self._shard.update(
                update.create_field_index(f"of_{share}", qdrant.PayloadSchemaType.Integer)
            )
        for start in range(0, len(data.base_ND), UPSERTED):
            points = [
                qdrant.Point(
                    row,
                    data.base_ND[row].tolist(),
                    {f"of_{share}": int(group_N[row]) for share, group_N in groups.items()},
                )
                for row in range(start, min(start + UPSERTED, len(data.base_ND)))
            ]
            self._shard.update(update.upsert_points(points))
        self._shard.optimize()
        self.build_s = time.process_time() - started

    def allow(self, share: int, rows_M: np.ndarray) -> None:
        """Keep the filter whose rows these are."""
        condition = self._qdrant.FieldCondition(key=f"of_{share}", match=self._qdrant.MatchValue(0))
        self._filter = self._qdrant.Filter(must=[condition])

    def search(self, query_D: np.ndarray, queue: int) -> np.ndarray:
        """Return the nearest K that Qdrant finds."""
        request = self._qdrant.SearchRequest(
            query=self._qdrant.Query.Nearest(query_D.tolist()),
            limit=K,
            filter=self._filter,
            params=self._qdrant.SearchParams(hnsw_ef=queue),
        )
        return np.array([point.id for point in self._shard.search(request)], np.int64)
