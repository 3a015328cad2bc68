"""Queries per second of vector search beside other libraries, at the same recall.

    pip install hnswlib usearch voyager scann rabitqlib qdrant-edge-py
    python -m benchmarks.search --set fashion --cache /tmp/sets
    python -m benchmarks.search --set clustered --rows 300000 --cache /tmp/sets
    python -m benchmarks.search --filtered --rows 300000 --cache /tmp/sets

The rivals may be in an environment of their own, with numpy and faiss-cpu besides. Every library
builds and searches in a process of its own, all on one core and one thread. They are measured in
turns, round after round, and the best round counts; seconds are the process's own (CPU), so that
other work on the machine takes little from them. Rates at a recall are interpolated between the two
settings around it. What is searched: benchmarks/search/datasets.py; --filtered:
benchmarks/search/filtered.py.
"""

import argparse
import math
import multiprocessing
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path

import faiss

from benchmarks.machine import commit, describe_machine
from benchmarks.search.datasets import K, open_set
from benchmarks.search.filtered import compare_filtered
from benchmarks.search.rivals import COMPARED, ENGINES

TARGETS = (0.99, 0.999)
ENOUGH = 0.9995  # recall from which no harder setting is tried
ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS")


@dataclass
class Setting:
    """One effort of one engine: recall, and the best rates so far."""

    effort: int
    recall: float
    one: float = 0.0  # queries/s, one query per call
    batch: float = 0.0  # queries/s, all queries in one call


@dataclass
class Worker:
    """One library in its own process, and what was measured of it."""

    key: str
    pipe: Connection
    name: str = ""
    build_s: float = 0.0
    size_bytes: int = 0
    resident_bytes: int = 0
    settings: list[Setting] = field(default_factory=list)


def main() -> None:
    """Measure, and print two tables as Markdown."""
    arguments = parse()
    os.sched_setaffinity(0, {arguments.core})
    os.environ.update(dict.fromkeys(ONE_THREAD, "1"))
    if arguments.filtered:
        compare_filtered(arguments.cache, rows=arguments.rows, rounds=arguments.rounds)
        return
    open_set(arguments.set, arguments.cache, rows=arguments.rows, queries=arguments.queries)
    workers = [start(key, arguments) for key in arguments.engines]
    for worker in workers:
        explore(worker)
    for _ in range(arguments.rounds):
        measure_round(workers)
    print(
        f"{describe_machine()}; commit {commit()}; {arguments.set}, {arguments.queries:,} queries, "
        f"recall@{K}; one thread, best of {arguments.rounds} rounds, queries per CPU second\n"
    )
    print_rates(workers)
    print_curves(workers)


def parse() -> argparse.Namespace:
    """Return the arguments, checked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--set", choices=("fashion", "fashion-unit", "clustered"))
    what.add_argument("--filtered", action="store_true", help="few allowed rows of `clustered`")
    parser.add_argument(
        "--cache", type=Path, required=True, help="folder that the sets are kept in"
    )
    parser.add_argument("--rows", type=int, default=1_000_000, help="of the set clustered")
    parser.add_argument("--queries", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--core", type=int, default=max(os.sched_getaffinity(0)))
    parser.add_argument("--engines", default=",".join(ENGINES), help="of " + ", ".join(ENGINES))
    arguments = parser.parse_args()
    arguments.engines = arguments.engines.split(",")
    if unknown := set(arguments.engines) - set(ENGINES):
        parser.error(f"--engines has {', '.join(unknown)}; known are {', '.join(ENGINES)}")
    return arguments


def start(key: str, arguments: argparse.Namespace) -> Worker:
    """Build one engine in a new process; return when it is built."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    context.Process(target=serve, args=(there, key, arguments), daemon=True).start()
    there.close()
    worker = Worker(key, here)
    try:
        worker.name, worker.build_s, worker.size_bytes, worker.resident_bytes = here.recv()
    except EOFError:
        raise SystemExit(f"{key} did not build; its process says why above") from None
    print(f"built {worker.name}: {worker.build_s:.0f} s", flush=True)
    return worker


def explore(worker: Worker) -> None:
    """Find the recall of every setting, up to one that finds enough."""
    for effort in ENGINES[worker.key].efforts:
        worker.pipe.send(("recall", effort))
        worker.settings.append(Setting(effort, worker.pipe.recv()))
        if worker.settings[-1].recall >= ENOUGH:
            return


def measure_round(workers: Sequence[Worker]) -> None:
    """Measure each setting of each engine once, the engines in turns."""
    for position in range(max(len(worker.settings) for worker in workers)):
        for worker in workers:
            if position < len(worker.settings):
                setting = worker.settings[position]
                worker.pipe.send(("rates", setting.effort))
                one, batch = worker.pipe.recv()
                setting.one, setting.batch = max(setting.one, one), max(setting.batch, batch)


def serve(pipe: Connection, key: str, arguments: argparse.Namespace) -> None:
    """Build, say so, then answer (`recall` or `rates`, effort) while asked."""
    faiss.omp_set_num_threads(1)
    data = open_set(arguments.set, arguments.cache, rows=arguments.rows, queries=arguments.queries)
    engine = ENGINES[key]()
    before_bytes, before_s = anonymous_bytes(), time.process_time()
    engine.build(data.base_ND)
    build_s, grown_bytes = time.process_time() - before_s, anonymous_bytes() - before_bytes
    pipe.send((engine.name, build_s, engine.size_bytes(), grown_bytes))
    while True:
        try:
            what, effort = pipe.recv()
        except EOFError:  # the measuring process is done
            return
        engine.set_effort(effort)
        if what == "recall":
            pipe.send(data.recall(engine.search_batch(data.queries_QD, K)))
            continue
        started = time.process_time()
        for query_D in data.queries_QD:
            engine.search_one(query_D, K)
        between = time.process_time()
        engine.search_batch(data.queries_QD, K)
        count = len(data.queries_QD)
        pipe.send((count / (between - started), count / (time.process_time() - between)))


def anonymous_bytes() -> int:
    """Return this process's resident memory, without pages of files as the mapped base rows."""
    with open("/proc/self/status") as file:
        return 1024 * next(int(line.split()[1]) for line in file if line.startswith("RssAnon"))


def rate_at(settings: Sequence[Setting], target: float, kind: str) -> float | None:
    """Return queries/s at a recall, or None where no setting reaches it.

    Between the two settings around it the rate's logarithm is taken as linear in the logarithm of
    the share that is missed.
    """
    ordered = sorted(settings, key=lambda setting: setting.recall)
    above = next((place for place, it in enumerate(ordered) if it.recall >= target), None)
    if above is None:
        return None
    high: float = getattr(ordered[above], kind)
    if above == 0:
        return high
    low: float = getattr(ordered[above - 1], kind)
    missed = [math.log(1 - ordered[place].recall + 1e-6) for place in (above - 1, above)]
    share = (missed[0] - math.log(1 - target)) / (missed[0] - missed[1])
    return math.exp(math.log(low) * (1 - share) + math.log(high) * share)


def print_rates(workers: Sequence[Worker]) -> None:
    """Print rates at the target recalls, each with its ratio to the best of the compared rivals."""
    columns = [(target, kind) for target in TARGETS for kind in ("one", "batch")]
    rates = {
        worker.key: [rate_at(worker.settings, target, kind) for target, kind in columns]
        for worker in workers
    }
    best = [
        max((rates[key][place] or 0 for key in COMPARED if key in rates), default=0)
        for place in range(len(columns))
    ]
    titles = " | ".join(f"{target:g} {kind}" for target, kind in columns)
    print(f"| queries/s (ratio to the best of {', '.join(COMPARED)}) | {titles} ", end="")
    print("| most recall | build CPU s | index MB | resident MB |")
    print("|---" * (len(columns) + 5) + "|")
    for worker in workers:
        cells = [
            "-" if rate is None else f"{rate:,.0f}" + (f" ({rate / base:.2f})" if base else "")
            for rate, base in zip(rates[worker.key], best, strict=True)
        ]
        most = max(setting.recall for setting in worker.settings)
        print(
            f"| {worker.name} | {' | '.join(cells)} | {most:.4f} | {worker.build_s:.1f} | "
            f"{worker.size_bytes / 1e6:,.0f} | {worker.resident_bytes / 1e6:,.0f} |"
        )


def print_curves(workers: Sequence[Worker]) -> None:
    """Print every setting that was measured."""
    print("\n| engine | effort: recall, queries/s one by one / batched |\n|---|---|")
    for worker in workers:
        curve = "; ".join(
            f"{setting.effort}: {setting.recall:.4f}, {setting.one:,.0f} / {setting.batch:,.0f}"
            for setting in worker.settings
        )
        print(f"| {worker.name} | {curve} |")


if __name__ == "__main__":
    main()
