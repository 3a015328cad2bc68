"""The metrics of all workers of one server: each writes its own to a file, anybody adds them up.

A worker that takes the place of one that died has the same index, and goes on counting from what
is in that one's file; so counters never go backwards. Whoever adds up sees only files, its own
written a moment before, so nothing is ever shown that a later reader misses.
"""

import contextlib
import json
import logging
import operator
import os
import shutil
import tempfile
from collections.abc import Iterable
from itertools import accumulate
from pathlib import Path
from typing import Final, Literal

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString
from pydantic_core import to_json

from files.processes import is_alive, started_ticks
from service.telemetry.metrics import METRICS, NO_LABELS, MetricSpec, MetricsSnapshot, Series

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
_NEWEST_BY: Final = "lookalike_gallery_seq"
logger = logging.getLogger("lookalike.service")


class SharedMetrics:
    """The folder through which the workers of one server share their metrics."""

    def __init__(self, server_id: str, worker: int | Literal["encoder"]) -> None:
        self._folder = shared_folder(server_id)
        self._file = self._folder / f"worker-{worker}.json"
        self._failed = False

    def predecessor(self) -> MetricsSnapshot:
        """Return what the worker wrote whose place this one takes; nothing if there was none."""
        return _read(self._file)

    def write(self, snapshot: MetricsSnapshot) -> None:
        """Show this worker's metrics to all workers.

        If the folder cannot be written to, the log says so, once: a service goes on without.
        """
        process = {"pid": os.getpid(), "started": started_ticks(os.getpid())}
        metrics = [(name, [*series.items()]) for name, series in snapshot.items()]
        unfinished = self._file.with_suffix(".new")
        try:
            self._folder.mkdir(mode=0o700, exist_ok=True)
            unfinished.write_bytes(to_json({**process, "metrics": metrics}))
            unfinished.replace(self._file)
        except OSError as error:
            if not self._failed:
                logger.warning("workers cannot add up their metrics: %s", error)
            self._failed = True
        else:
            self._failed = False

    def others(self) -> list[MetricsSnapshot]:
        """Return what the other workers wrote last, also those that ended and were not replaced."""
        paths = sorted(self._folder.glob("worker-*.json"))
        return [_read(path) for path in paths if path != self._file]


def shared_folder(server_id: str) -> Path:
    """Return the folder of one server, which may not exist yet."""
    return Path(tempfile.gettempdir()) / f"lookalike-metrics-{server_id}"


def remove_shared_folder(server_id: str) -> None:
    """Remove the folder, at the end of the server."""
    with contextlib.suppress(FileNotFoundError):  # there is no folder for temporary files at all
        shutil.rmtree(shared_folder(server_id), ignore_errors=True)


def _read(path: Path) -> MetricsSnapshot:
    """Return what a worker wrote: of one that has ended no gauges, and nothing if it is damaged."""
    try:
        data = json.loads(path.read_bytes())
        has_ended = not is_alive(data["pid"], data["started"])
        return {
            name: {tuple(labels): values for labels, values in series}
            for name, series in data["metrics"]
            if not has_ended or METRICS[name].kind != "gauge"
        }
    except (OSError, ValueError, KeyError):  # none there, or not one that we wrote
        return {}


def prometheus_text(snapshots: Iterable[MetricsSnapshot]) -> bytes:
    """Return the text that Prometheus reads, over all workers, with every metric in it."""
    registry = CollectorRegistry()
    registry.register(_AllWorkers([*snapshots]))
    return generate_latest(registry)


class _AllWorkers(Collector):
    def __init__(self, snapshots: list[MetricsSnapshot]) -> None:
        self._snapshots = snapshots

    def collect(self) -> Iterable[Metric]:
        for spec in METRICS.values():
            yield _family(spec, _merge(spec, self._snapshots))


def _merge(spec: MetricSpec, snapshots: list[MetricsSnapshot]) -> Series:
    if spec.over_workers == "newest":
        return max(snapshots, key=_newness, default={}).get(spec.name, {})
    combine = max if spec.over_workers == "max" else operator.add
    merged: Series = {}
    for snapshot in snapshots:
        for labels, values in snapshot.get(spec.name, {}).items():
            before = merged.get(labels)
            merged[labels] = values if before is None else [*map(combine, before, values)]
    return merged


def _family(spec: MetricSpec, series: Series) -> Metric:
    if spec.kind == "histogram":
        histogram = HistogramMetricFamily(spec.name, spec.help, labels=spec.labels)
        bounds = [*map(floatToGoString, spec.bounds), "+Inf"]
        for labels, (*counts, total) in series.items():
            histogram.add_metric(labels, [*zip(bounds, accumulate(counts), strict=True)], total)
        return histogram
    kind = CounterMetricFamily if spec.kind == "counter" else GaugeMetricFamily
    family = kind(spec.name, spec.help, labels=spec.labels)
    for labels, (value,) in series.items():
        family.add_metric(labels, value)
    return family


def _newness(snapshot: MetricsSnapshot) -> float:
    return snapshot.get(_NEWEST_BY, {}).get(NO_LABELS, [-1.0])[0]
