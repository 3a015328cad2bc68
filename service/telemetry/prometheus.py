"""Reports of workers in, the text that Prometheus reads out."""

from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import Final

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from service.telemetry.counters import Buckets, Labels, Numbers, Series
from service.telemetry.metric_definitions import MEASURES, Measure
from service.telemetry.shared_metrics import Report

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
_NEWEST_BY: Final = "lookalike_gallery_seq"


def exposition(reports: Sequence[Report]) -> bytes:
    """Return the text over all workers, every metric of ``MEASURES`` in it."""
    registry = CollectorRegistry()
    registry.register(_Merged(reports))
    return generate_latest(registry)


class _Merged(Collector):
    def __init__(self, reports: Sequence[Report]) -> None:
        self._all = [report.numbers for report in reports]
        self._living = [report.numbers for report in reports if report.is_of_the_living]

    def collect(self) -> Iterable[Metric]:
        for measure in MEASURES.values():
            if measure.kind == "histogram":
                yield _histogram(measure, self._all)
            elif measure.kind == "counter":
                yield _counter(measure, self._all)
            else:
                yield _gauge(measure, self._living)


def _counter(measure: Measure, workers: list[Numbers]) -> Metric:
    family = CounterMetricFamily(measure.name, measure.text, labels=measure.labels)
    for labels, value in _summed(worker.counters.get(measure.name, {}) for worker in workers):
        family.add_metric(labels, value)
    return family


def _gauge(measure: Measure, workers: list[Numbers]) -> Metric:
    family = GaugeMetricFamily(measure.name, measure.text, labels=measure.labels)
    all_series = [worker.gauges.get(measure.name, {}) for worker in workers]
    if measure.over_workers == "sum":
        merged = dict(_summed(all_series))
    elif measure.over_workers == "max":
        merged = {}
        for series in all_series:
            for labels, value in series.items():
                merged[labels] = max(value, merged.get(labels, value))
    else:
        merged = max(workers, key=_newness).gauges.get(measure.name, {}) if workers else {}
    for labels, value in merged.items():
        family.add_metric(labels, value)
    return family


def _histogram(measure: Measure, workers: list[Numbers]) -> Metric:
    family = HistogramMetricFamily(measure.name, measure.text, labels=measure.labels)
    merged: Buckets = {}
    for worker in workers:
        for labels, counts in worker.histograms.get(measure.name, {}).items():
            before = merged.get(labels, [0.0] * len(counts))
            merged[labels] = [one + other for one, other in zip(before, counts, strict=True)]
    bounds = [*map(floatToGoString, measure.bounds), "+Inf"]
    for labels, (*counts, total) in merged.items():
        family.add_metric(labels, [*zip(bounds, accumulate(counts), strict=True)], total)
    return family


def _summed(all_series: Iterable[Series]) -> Iterable[tuple[Labels, float]]:
    sums: Series = {}
    for series in all_series:
        for labels, value in series.items():
            sums[labels] = sums.get(labels, 0.0) + value
    return sums.items()


def _newness(worker: Numbers) -> float:
    return worker.gauges.get(_NEWEST_BY, {}).get((), -1.0)
