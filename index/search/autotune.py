"""Builds ANN indexes over a gallery's own vectors and measures them. A sample in, a spec out.

An ANN index reaches a recall when that holds with 95 % confidence, of rows as they are and of rows
moved a little alike, and when queries from outside are either found out as such, and answered by a
scan, or find nearly all that is near them.

Shape suffixes: Q queries, K hits, D vector width.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Final

import faiss
import numpy as np
from numpy.typing import NDArray

from index.search.ann_index import MEASURED_K, AnnIndex
from index.search.index_spec import EXACT, IndexSpec
from index.search.recall_confidence import Recall, recall_between
from index.search.tuning_sample import Queries, Sample

OUTSIDE: Final = 0.95  # recall of each kind of queries from outside, with those that are scanned
K_FACTORS: Final = (2.0, 3.0, 4.0, 6.0, 8.0, 12.0)  # tried, when the spec names none
FIRST_SEARCH_DEPTH: Final = {"lists": 1, "graph": 16, "quantized": 1}
PATIENCE: Final = 32  # search depth from which a recall that stands still will not grow
STANDSTILL: Final = 0.0005  # recall gained by twice the search depth
ROUNDS: Final = 3  # of timing; the quickest counts
ROUND_S: Final = 0.1


@dataclass(frozen=True, slots=True)
class TuningTrial:
    """One ANN index, as hard as it must look to reach the recall; or that it never does."""

    spec: IndexSpec  # with what was measured
    reached: bool
    build_s: float


def autotune(
    spec: IndexSpec, sample: Sample, *, target: float
) -> tuple[TuningTrial, AnnIndex | None]:
    """Build what ``spec`` says and find the least search depth that reaches ``target`` recall@10.

    Returns:
        What was measured, and the ANN index, without the rows that were held out; none of exact.
    """
    if spec.kind == "exact":
        microseconds = round(_scan_microseconds(sample), 1)
        spec = replace(EXACT, recall_target=target, microseconds=microseconds)
        return TuningTrial(spec, True, 0.0), None
    started = time.perf_counter()
    ann_index = AnnIndex.build(sample.matrix, spec, count=sample.built)
    build_s = time.perf_counter() - started
    factors = [spec.k_factor] if spec.k_factor else K_FACTORS
    scan_us = _scan_microseconds(sample)
    found: list[TuningTrial] = []
    for k_factor in factors:
        spec, reached = _least_search_depth(ann_index, sample, target, k_factor, most_us=scan_us)
        found.append(TuningTrial(spec, reached, round(build_s, 2)))
        if len(found) > 1 and found[-2].reached and _cost(found[-1]) > _cost(found[-2]):
            break  # to refine more costs more from here on
    reached_by = [trial for trial in found if trial.reached]
    best = (
        min(reached_by, key=_cost)
        if reached_by
        else max(found, key=lambda trial: trial.spec.recall_low or 0.0)
    )
    return best, ann_index.with_spec(best.spec)


def shares_found(ann_index: AnnIndex, asked: Queries) -> NDArray[np.float64]:
    """Return the share of its nearest rows that each query (Q,) finds; equally near ones count.

    Queries that ``ann_index`` knows it cannot answer are scanned, and so find all.
    """
    k = asked.truth_QK.shape[1]
    scores_QK, rows_QK, lost_Q = ann_index.adaptive_search(asked.queries_QD, k)
    distances_QK = np.where(rows_QK >= 0, 2 - 2 * scores_QK, np.inf)
    limit_Q1 = asked.truth_QK[:, -1:] + 1e-6
    found_Q: NDArray[np.float64] = np.sum(distances_QK <= limit_Q1, axis=1) / k
    if lost_Q is not None:
        found_Q[lost_Q] = 1.0
    return found_Q


def recall_of(ann_index: AnnIndex, sample: Sample) -> Recall:
    """Return the recall of the rows held out, as they are or moved a little: the lower one."""
    k = sample.inside[0].truth_QK.shape[1]
    both = [recall_between(shares_found(ann_index, asked), k=k) for asked in sample.inside]
    return min(both, key=lambda recall: recall.low)


@contextmanager
def one_thread() -> Iterator[None]:
    """Let FAISS use one thread in the block, as a server's request does."""
    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(threads)


def _least_search_depth(
    ann_index: AnnIndex, sample: Sample, target: float, k_factor: float, *, most_us: float
) -> tuple[IndexSpec, bool]:
    """Double the search depth until the recall is reached, then close in on the least that does.

    A search depth that makes a query take longer than ``most_us``, a scan, is not raised further.

    Returns:
        The spec, and whether it reaches the recall.
    """

    def tried(search_depth: int) -> tuple[IndexSpec, bool, float]:
        """Return also what is found, inside and outside, to be compared."""
        spec = replace(
            ann_index.spec,
            search_depth=search_depth,
            k_factor=k_factor,
            floors=sample.floors,
            queries=len(sample.inside[0].queries_QD),
            recall_target=target,
        )
        searched = ann_index.with_spec(spec)
        recall = recall_of(searched, sample)
        outside = min(float(shares_found(searched, kind).mean()) for kind in sample.outside)
        spec = replace(spec, recall=recall.mean, recall_low=recall.low, recall_high=recall.high)
        return spec, recall.low >= target and outside >= OUTSIDE, recall.mean + outside

    low, high, most = 0, FIRST_SEARCH_DEPTH[ann_index.spec.kind], ann_index.max_search_depth
    best, reached, found = tried(high)
    while not reached and high < most:
        low, high, before = high, min(2 * high, most), found
        best, reached, found = tried(high)
        if found - before < STANDSTILL and low >= PATIENCE:
            break  # more search depth finds next to nothing new: the codes end here
        if (
            not reached
            and high >= PATIENCE
            and _search_microseconds(ann_index, best, sample) > most_us
        ):
            break
    while reached and high - low > max(1, high // 16):
        middle = (low + high) // 2
        spec, enough, _ = tried(middle)
        if enough:
            high, best = middle, spec
        else:
            low = middle
    microseconds = _search_microseconds(ann_index, best, sample)
    return replace(best, microseconds=round(microseconds, 1)), reached


def _cost(trial: TuningTrial) -> float:
    return np.inf if trial.spec.microseconds is None else trial.spec.microseconds


def _scan_microseconds(sample: Sample) -> float:
    flat = sample.matrix.flat_of(sample.built)
    return _microseconds(lambda query: flat.search(query, MEASURED_K), sample)


def _search_microseconds(ann_index: AnnIndex, spec: IndexSpec, sample: Sample) -> float:
    chosen = ann_index.with_spec(spec)
    return _microseconds(lambda query: chosen.adaptive_search(query, MEASURED_K), sample)


def _microseconds(search: Callable[[NDArray[np.float32]], object], sample: Sample) -> float:
    """Return what one query takes, asked alone on one thread: the best of a few short rounds.

    In time of the processor, so that other processes count little.
    """
    queries_QD = sample.inside[0].queries_QD
    queries = [queries_QD[row : row + 1] for row in range(len(queries_QD))]
    best = np.inf
    with one_thread():
        for _ in range(ROUNDS):
            asked, started = 0, time.thread_time()
            for query in queries:
                search(query)
                asked += 1
                if time.thread_time() - started > ROUND_S:
                    break
            best = min(best, (time.thread_time() - started) / asked)
    return float(best) * 1e6
