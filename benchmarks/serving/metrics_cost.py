"""What counting one request costs: our dictionaries, and prometheus_client in both its modes.

A request of one image: a counter with three labels, a histogram of its seconds, five stages, and
three counters without labels. Prints a row of Markdown for each way of counting: microseconds of
CPU time per request, median and range over several rounds.

    python -m benchmarks.serving.metrics_cost
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from statistics import median

from prometheus_client import CollectorRegistry, Counter, Histogram

from service.telemetry.metrics import METRICS
from service.telemetry.request_record import RequestRecord
from service.telemetry.worker_metrics import WorkerMetrics

REQUESTS = 10_000  # per round
ROUNDS = 15
ROUTE = "/v1/search"
STAGES = ("body", "queue", "decode", "encode", "search")


def count_with_ours() -> Callable[[], None]:
    """Return what counts one request as the service does."""
    metrics = WorkerMetrics()
    record = RequestRecord(method="POST")
    record.route, record.status, record.seconds = ROUTE, 200, 0.011
    record.stages = [(stage, 0.0, 0.003) for stage in STAGES]  # type: ignore[misc]
    record.images, record.bytes_in, record.bytes_out = 1, 20_000, 900

    def count() -> None:
        metrics.count_request(record)

    return count


def count_with_prometheus_client() -> Callable[[], None]:
    """Return what counts the same with metrics of prometheus_client.

    They keep their values in memory, or, where ``PROMETHEUS_MULTIPROC_DIR`` was set before the
    import, in a mapped file. The children without labels, and of each stage, are looked up once.
    """
    registry = CollectorRegistry()
    requests = Counter("requests", "x", ["method", "route", "status"], registry=registry)
    seconds = Histogram(
        "seconds",
        "x",
        ["route"],
        buckets=METRICS["lookalike_request_seconds"].bounds,
        registry=registry,
    )
    by_stage = Histogram(
        "stages",
        "x",
        ["stage"],
        buckets=METRICS["lookalike_stage_seconds"].bounds,
        registry=registry,
    )
    stages = [by_stage.labels(stage) for stage in STAGES]
    images, received, sent = (Counter(name, "x", registry=registry) for name in "abc")

    def count() -> None:
        requests.labels("POST", ROUTE, "200").inc()
        seconds.labels(ROUTE).observe(0.011)
        for stage in stages:
            stage.observe(0.003)
        images.inc(1)
        received.inc(20_000)
        sent.inc(900)

    return count


def measure(count: Callable[[], None]) -> list[float]:
    """Return the microseconds of CPU time per request, of each round."""
    found = []
    for _ in range(ROUNDS):
        begun = time.process_time()
        for _ in range(REQUESTS):
            count()
        found.append((time.process_time() - begun) / REQUESTS * 1e6)
    return found


WAYS = {
    "ours": count_with_ours,
    "prometheus_client, one process": count_with_prometheus_client,
    "prometheus_client, multiprocess": count_with_prometheus_client,
}


def main() -> None:
    """Measure every way in a process of its own: prometheus_client chooses once, at its import."""
    if len(sys.argv) > 1:
        found = measure(WAYS[sys.argv[1]]())
        print(f"| {sys.argv[1]} | {median(found):.1f} | {min(found):.1f} to {max(found):.1f} |")
        return
    print("| counting | µs per request, median | range |\n|---|---|---|")
    for way in WAYS:
        with tempfile.TemporaryDirectory() as folder:
            chosen = {"PROMETHEUS_MULTIPROC_DIR": folder} if "multi" in way else {}
            command = [sys.executable, "-m", "benchmarks.serving.metrics_cost", way]
            subprocess.run(command, env=os.environ | chosen, check=True)


if __name__ == "__main__":
    main()
