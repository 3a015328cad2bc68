"""The counting of one worker: request records in, a snapshot out.

Plain dictionaries and lists, because counting runs for every request
(docs/decisions/0038-metrics.md).
"""

from bisect import bisect_left
from typing import Final

from service.telemetry.metrics import (
    BATCH_BOUNDS,
    METRICS,
    NO_LABELS,
    REQUEST_BOUNDS,
    STAGE_BOUNDS,
    Labels,
    MetricsSnapshot,
    Series,
)
from service.telemetry.request_record import RequestRecord

_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class WorkerMetrics:
    """One worker's counters and histograms, from where a worker before it left off.

    Each of them is changed by one thread alone: requests by the event loop, batches by the
    network's. Any thread may take a snapshot.
    """

    def __init__(self, predecessor: MetricsSnapshot | None = None) -> None:
        self._metrics = {
            name: _copy((predecessor or {}).get(name, {}))
            for name, spec in METRICS.items()
            if spec.kind != "gauge"
        }
        self._requests = self._metrics["lookalike_requests_total"]
        self._problems = self._metrics["lookalike_problems_total"]
        self._refusals = self._metrics["lookalike_image_refusals_total"]
        self._seconds = self._metrics["lookalike_request_seconds"]
        self._stages = self._metrics["lookalike_stage_seconds"]
        self._batches = self._metrics["lookalike_batch_images"]
        self._images, self._received, self._sent, self._busy = (
            self._metrics[name].setdefault(NO_LABELS, [0.0])  # shown from the start
            for name in (
                "lookalike_images_total",
                "lookalike_received_bytes_total",
                "lookalike_sent_bytes_total",
                "lookalike_encoder_busy_seconds_total",
            )
        )
        self.in_progress = 0  # requests; changed by the gateway

    def count_request(self, record: RequestRecord) -> None:
        """Count one request that has been answered."""
        method = record.method if record.method in _METHODS else "other"
        _add(self._requests, (method, record.route, str(record.status)))
        _observe(self._seconds, (record.route,), REQUEST_BOUNDS, record.seconds)
        for stage, _, stage_seconds in record.stages:
            _observe(self._stages, (stage,), STAGE_BOUNDS, stage_seconds)
        self._images[0] += record.images
        self._received[0] += record.bytes_in
        self._sent[0] += record.bytes_out
        if record.problem is not None:
            _add(self._problems, (record.problem,))
        for code in record.item_problems:
            _add(self._problems, (code,))
        for code in record.refusals:
            _add(self._refusals, (code,))

    def count_batch(self, images: int, busy_s: float) -> None:
        """Count one batch of the network, which was busy for so long; on its thread."""
        self._busy[0] += busy_s
        _observe(self._batches, NO_LABELS, BATCH_BOUNDS, images)

    def snapshot(self) -> MetricsSnapshot:
        """Return a copy of what was counted until now."""
        return {name: _copy(series) for name, series in self._metrics.items()}


def _copy(series: Series) -> Series:
    return {labels: [*values] for labels, values in [*series.items()]}  # a list first: it may grow


def _add(series: Series, labels: Labels) -> None:
    values = series.get(labels)
    if values is None:
        series[labels] = [1.0]
    else:
        values[0] += 1.0


def _observe(series: Series, labels: Labels, bounds: tuple[float, ...], value: float) -> None:
    counts = series.get(labels)
    if counts is None:
        counts = series[labels] = [0.0] * (len(bounds) + 2)
    counts[bisect_left(bounds, value)] += 1.0
    counts[-1] += value
