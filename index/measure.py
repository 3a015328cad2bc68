"""Builds structures over a gallery's own vectors and measures them. Vectors in, a plan out.

Some rows are held out: they are the queries, and the structures that are measured do not hold
them. The truth is an exact scan of the same rows.

Shape suffixes: N rows, Q queries, K hits, D vector width.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Final

import faiss
import numpy as np
from numpy.typing import NDArray

from index.matrix import Matrix
from index.plan import EXACT, Plan
from index.structure import MAX_EFFORT, MEASURED_K, Structure

QUERIES: Final = 1_000  # held out
TRUTH: Final = 60e9  # rows x width x queries of the exact scan at most: a few seconds
MAX_SHARE: Final = 0.1  # of the rows, held out at most
K_FACTORS: Final = (2.0, 3.0, 4.0, 6.0, 8.0, 12.0)  # tried, when the plan names none
FIRST_EFFORT: Final = {"lists": 1, "graph": 16, "quantized": 1}
PATIENCE: Final = 32  # effort from which a recall that stands still will not grow
STANDSTILL: Final = 0.0005  # recall gained by twice the effort
ROUNDS: Final = 3  # of timing; the quickest counts
ROUND_S: Final = 0.1


@dataclass(frozen=True, slots=True)
class Trial:
    """One structure, as hard as it must look to reach the recall; or that it never does."""

    plan: Plan  # with what was measured
    reached: bool
    build_s: float


@dataclass(frozen=True, slots=True)
class Sample:
    """All rows: the ones that are measured, then the ones held out as queries, and the truth."""

    matrix: Matrix
    built: int  # so many of the first rows are in the structures that are measured
    truth_QK: NDArray[np.float32]  # squared distances of the K nearest of those

    @property
    def queries_QD(self) -> NDArray[np.float32]:
        """The rows that were held out."""
        return self.matrix.rows_ND[self.built :]


def hold_out(
    keys_N: NDArray[np.int64], vectors_ND: NDArray[np.float32], *, seed: int = 0
) -> tuple[NDArray[np.int64], Sample]:
    """Return the keys in a new order, some random ones last, and the rows in that order."""
    quick = int(TRUTH / vectors_ND.size)
    queries = max(1, min(QUERIES, quick, int(MAX_SHARE * len(keys_N))))
    held = np.zeros(len(keys_N), np.bool_)
    held[np.random.default_rng(seed).permutation(len(keys_N))[:queries]] = True
    order = np.concatenate([np.flatnonzero(~held), np.flatnonzero(held)])
    matrix = Matrix.of(vectors_ND, order=order)
    built = len(order) - queries
    k = min(MEASURED_K, built)
    truth_QK, _ = matrix.flat_of(built).search(matrix.rows_ND[built:], k)
    return keys_N[order], Sample(matrix, built, truth_QK)


def measure(plan: Plan, sample: Sample, *, target: float) -> tuple[Trial, Structure | None]:
    """Build what ``plan`` says and find the least effort that reaches ``target`` recall@10.

    Returns:
        What was measured, and the structure, without the rows that were held out; none of exact.
    """
    if plan.kind == "exact":
        return _measure_exact(sample, target), None
    started = time.perf_counter()
    structure = Structure.build(sample.matrix, plan, count=sample.built)
    build_s = time.perf_counter() - started
    factors = [plan.k_factor] if plan.k_factor else K_FACTORS
    found: list[Plan] = []
    for k_factor in factors:
        found.append(_least_effort(structure, sample, target, k_factor))
        if len(found) > 1 and _reaches(found[-2], target) and _cost(found[-1]) > _cost(found[-2]):
            break  # to refine more costs more from here on
    reached = [one for one in found if _reaches(one, target)]
    best = min(reached, key=_cost) if reached else max(found, key=lambda one: one.recall or 0.0)
    best = replace(best, recall_target=target)
    return Trial(best, bool(reached), round(build_s, 2)), structure.with_plan(best)


def recall_of(structure: Structure, sample: Sample) -> float:
    """Return the share of the nearest rows that ``structure`` finds; equally near ones count."""
    k = sample.truth_QK.shape[1]
    scores_QK, rows_QK = structure.search(sample.queries_QD, k)
    distances_QK = np.where(rows_QK >= 0, 2 - 2 * scores_QK, np.inf)
    limit_Q1 = sample.truth_QK[:, -1:] + 1e-6
    return float(np.mean(np.sum(distances_QK <= limit_Q1, axis=1) / k))


@contextmanager
def one_thread() -> Iterator[None]:
    """Let FAISS use one thread in the block, as a server's request does."""
    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(threads)


def _least_effort(structure: Structure, sample: Sample, target: float, k_factor: float) -> Plan:
    """Double the effort until the recall is reached, then close in on the least that does."""

    def tried(effort: int) -> tuple[Plan, float]:
        plan = replace(structure.plan, effort=effort, k_factor=k_factor)
        return plan, recall_of(structure.with_plan(plan), sample)

    low, high = 0, FIRST_EFFORT[structure.plan.kind]
    best, recall = tried(high)
    while recall < target and high < MAX_EFFORT:
        low, high = high, min(2 * high, MAX_EFFORT)
        better, more = tried(high)
        stands_still = more - recall < STANDSTILL and low >= PATIENCE
        best, recall = better, more
        if stands_still:  # more effort finds next to nothing new: the codes end here
            break
    while recall >= target and high - low > max(1, high // 16):
        middle = (low + high) // 2
        plan, here = tried(middle)
        if here >= target:
            high, best, recall = middle, plan, here
        else:
            low = middle
    chosen = structure.with_plan(best)
    microseconds = _microseconds(lambda query: chosen.search(query, MEASURED_K), sample)
    return replace(best, recall=round(recall, 4), microseconds=round(microseconds, 1))


def _reaches(plan: Plan, target: float) -> bool:
    return plan.recall is not None and plan.recall >= target


def _cost(plan: Plan) -> float:
    return np.inf if plan.microseconds is None else plan.microseconds


def _measure_exact(sample: Sample, target: float) -> Trial:
    flat = sample.matrix.flat_of(sample.built)
    microseconds = _microseconds(lambda query: flat.search(query, MEASURED_K), sample)
    plan = replace(EXACT, recall_target=target, microseconds=round(microseconds, 1))
    return Trial(plan, True, 0.0)


def _microseconds(search: Callable[[NDArray[np.float32]], object], sample: Sample) -> float:
    """Return what one query takes, asked alone on one thread: the best of a few short rounds.

    In time of the processor, so that other processes count little.
    """
    queries = [sample.queries_QD[row : row + 1] for row in range(len(sample.queries_QD))]
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
