"""What one worker counts: accounts of requests in, numbers out. Routes by template, never by path.

Plain dictionaries and lists, because this runs for every request; ``board.py`` shares them.
"""

from bisect import bisect_left
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Self

from service.telemetry.metric_definitions import MEASURES
from service.telemetry.request_record import RequestRecord

Labels = tuple[str, ...]  # values, in the order of the measure's label names
Series = dict[Labels, float]
Buckets = dict[Labels, list[float]]  # how many per bucket, the last +Inf, and then the sum

_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_REQUEST_BOUNDS: Final = MEASURES["lookalike_request_seconds"].bounds
_STAGE_BOUNDS: Final = MEASURES["lookalike_stage_seconds"].bounds
_BATCH_BOUNDS: Final = MEASURES["lookalike_batch_images"].bounds


@dataclass(frozen=True, slots=True)
class Numbers:
    """Values of metrics, by the metric's name."""

    counters: dict[str, Series] = field(default_factory=dict)
    histograms: dict[str, Buckets] = field(default_factory=dict)
    gauges: dict[str, Series] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return the numbers as plain JSON."""
        return {
            kind: {name: [*series.items()] for name, series in values.items()}
            for kind, values in (
                ("counters", self.counters),
                ("histograms", self.histograms),
                ("gauges", self.gauges),
            )
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Return what ``to_json`` wrote."""
        kinds = [
            {
                name: {tuple(labels): value for labels, value in pairs}
                for name, pairs in data[kind].items()
            }
            for kind in ("counters", "histograms", "gauges")
        ]
        return cls(*kinds)


class Metrics:
    """One worker's counters and histograms, from where a worker before it left off.

    Each of them is moved by one thread alone: requests by the event loop, batches by the network's.
    Any thread may take a copy.
    """

    def __init__(self, before: Numbers | None = None) -> None:
        before = before or Numbers()
        self._counters = {
            name: dict(before.counters.get(name, {})) for name in _names_of("counter")
        }
        self._histograms = {
            name: {labels: list(counts) for labels, counts in old.items()}
            for name in _names_of("histogram")
            for old in [before.histograms.get(name, {})]
        }
        self._requests = self._counters["lookalike_requests_total"]
        self._problems = self._counters["lookalike_problems_total"]
        self._refusals = self._counters["lookalike_image_refusals_total"]
        self._images = _total(self._counters["lookalike_images_total"])
        self._received = _total(self._counters["lookalike_received_bytes_total"])
        self._sent = _total(self._counters["lookalike_sent_bytes_total"])
        self._seconds = self._histograms["lookalike_request_seconds"]
        self._stages = self._histograms["lookalike_stage_seconds"]
        self._batches = self._histograms["lookalike_batch_images"]
        self.in_progress = 0  # requests; moved by the front

    def count_request(
        self, *, method: str, route: str, status: int, seconds: float, account: RequestRecord
    ) -> None:
        """Count one request that has been answered."""
        _add(self._requests, (method if method in _METHODS else "other", route, str(status)))
        _observe(self._seconds, (route,), _REQUEST_BOUNDS, seconds)
        for stage, _, stage_seconds in account.stages:
            _observe(self._stages, (stage,), _STAGE_BOUNDS, stage_seconds)
        self._images[()] += account.images
        self._received[()] += account.bytes_in
        self._sent[()] += account.bytes_out
        if account.problem is not None:
            _add(self._problems, (account.problem,))
        for code in account.item_problems:
            _add(self._problems, (code,))
        for code in account.refusals:
            _add(self._refusals, (code,))

    def count_batch(self, images: int) -> None:
        """Count one batch of the network; on its thread."""
        _observe(self._batches, (), _BATCH_BOUNDS, images)

    def numbers(self, gauges: dict[str, Series], counters: dict[str, Series]) -> Numbers:
        """Return a copy, with these gauges and with these counters that are kept elsewhere."""
        return Numbers(
            {name: dict(series) for name, series in (self._counters | counters).items()},
            {
                name: {labels: list(counts) for labels, counts in list(buckets.items())}
                for name, buckets in self._histograms.items()
            },
            gauges,
        )


def _names_of(kind: str) -> Iterable[str]:
    return [name for name, measure in MEASURES.items() if measure.kind == kind]


def _total(series: Series) -> Series:
    """Return a counter without labels, which is there from the start."""
    series.setdefault((), 0.0)
    return series


def _add(series: Series, labels: Labels) -> None:
    series[labels] = series.get(labels, 0.0) + 1.0


def _observe(buckets: Buckets, labels: Labels, bounds: tuple[float, ...], value: float) -> None:
    counts = buckets.get(labels)
    if counts is None:
        counts = buckets[labels] = [0.0] * (len(bounds) + 2)
    counts[bisect_left(bounds, value)] += 1.0
    counts[-1] += value
