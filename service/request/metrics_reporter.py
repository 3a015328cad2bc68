"""The gauges of one worker, and the thread that shares all its metrics once a second."""

import logging
import os
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Final, get_args

from files.version import VERSION
from index.errors import VectorIndexError
from index.gallery import Gallery
from service.inference.engine import Engine
from service.request.worker_context import WorkerContext
from service.schemas.responses import JobKind
from service.telemetry.json_log import LogQueue
from service.telemetry.metrics import NO_LABELS, Labels, MetricsSnapshot, Series
from service.telemetry.shared_metrics import SharedMetrics, prometheus_text

PERIOD_S: Final = 1.0  # between two looks
_CPU: Final = "lookalike_worker_cpu_seconds_total"
_DROPPED: Final = "lookalike_log_lines_dropped_total"
_JOBS_ENDED: Final = "lookalike_jobs_ended_total"
# All from the start, at 0: Prometheus sees no increase in a series that begins with 1.
_JOB_ENDS: Final = [
    (kind, state) for kind in get_args(JobKind) for state in ("done", "failed", "cancelled")
]
_PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")
logger = logging.getLogger("lookalike.service")


class MetricsReporter:
    """Shares the metrics of one worker, and gives Prometheus those of all."""

    def __init__(
        self,
        context: WorkerContext,
        shared: SharedMetrics,
        *,
        log: LogQueue,
        predecessor: MetricsSnapshot,
    ) -> None:
        self._context = context
        self._shared = shared
        self._log = log
        self._worker = (str(context.number),)
        self._started = time.time()
        self._began = time.monotonic()  # what lasts is measured with a clock that nobody sets
        self._cpu_before = _value(predecessor, _CPU, self._worker)
        self._dropped_before = _value(predecessor, _DROPPED, NO_LABELS)
        self._jobs_before = {ends: _value(predecessor, _JOBS_ENDED, ends) for ends in _JOB_ENDS}
        self._jobs_ended: Series = {ends: [count] for ends, count in self._jobs_before.items()}
        self._generation = 0  # in use at the last look
        self._generation_loaded = self._started
        self._generation_built: float | None = None  # on the monotonic clock
        self._trouble: str | None = None  # with the gallery, at the last look
        self._looking = threading.Lock()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="metrics", daemon=True)

    def start(self) -> None:
        """From now on, look and share once a second."""
        self._thread.start()

    def close(self) -> None:
        """Share what was counted until now, and end."""
        self._ended.set()
        self._thread.join()
        self._share()

    def prometheus_text(self) -> bytes:
        """Return what Prometheus reads: this worker's metrics of now, others' of a second ago."""
        return prometheus_text([self._share(), *self._shared.others()])

    def _run(self) -> None:
        while not self._ended.wait(PERIOD_S):
            self._share()

    def _share(self) -> MetricsSnapshot:
        with self._looking:
            snapshot = self._snapshot()
            self._shared.write(snapshot)
        return snapshot

    def _snapshot(self) -> MetricsSnapshot:
        snapshot = self._context.metrics.snapshot() | self._worker_metrics()
        engine = self._context.engine
        if engine is not None:
            snapshot |= _engine_gauges(engine) | self._gallery_gauges(engine.gallery)
            ended = engine.jobs.ended()
            self._jobs_ended = {ends: [n + ended[ends]] for ends, n in self._jobs_before.items()}
        return snapshot | {_JOBS_ENDED: self._jobs_ended}

    def _worker_metrics(self) -> MetricsSnapshot:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        of_worker = {
            "lookalike_worker_ready": float(self._context.unready_reason() is None),
            "lookalike_worker_start_timestamp_seconds": self._started,
            "lookalike_worker_uptime_seconds": time.monotonic() - self._began,
            "lookalike_worker_resident_bytes": float(pages * _PAGE_BYTES),
            "lookalike_worker_threads": float(len(os.listdir("/proc/self/task"))),
            "lookalike_worker_open_files": float(len(os.listdir("/proc/self/fd"))),
            _CPU: self._cpu_before + time.process_time(),
        }
        loading: Series = {
            (*self._worker, stage): [took]
            for stage, took in [*self._context.loading.seconds.items()]
        }
        authorizer = self._context.authorizer
        keys = None if authorizer is None else authorizer.keys
        return {
            "lookalike_build_info": {(VERSION,): [1.0]},
            "lookalike_requests_in_progress": _total(self._context.metrics.in_progress),
            "lookalike_workers_expected": _total(self._context.server_readiness().size),
            "lookalike_key_file_failing": {} if keys is None else _total(keys.is_failing),
            "lookalike_worker_load_seconds": loading,
            _DROPPED: _total(self._dropped_before + self._log.dropped),
            **{name: {self._worker: [value]} for name, value in of_worker.items()},
        }

    def _gallery_gauges(self, gallery: Gallery) -> MetricsSnapshot:
        failing = gallery.maintenance_error is not None
        gauges: MetricsSnapshot = {"lookalike_gallery_upkeep_failing": _total(failing)}
        with suppress(OSError):  # a disk that is gone; the gallery says so
            disk = os.statvfs(gallery.folder)
            gauges["lookalike_gallery_disk_size_bytes"] = _total(disk.f_blocks * disk.f_frsize)
            gauges["lookalike_gallery_disk_free_bytes"] = _total(disk.f_bavail * disk.f_frsize)
        try:
            gauges["lookalike_gallery_seq_lag"] = {self._worker: [float(gallery.lag())]}
            info = gallery.info()  # it catches up, which saves the next search from it
        except VectorIndexError as error:
            if str(error) != self._trouble:
                logger.warning("the gallery's metrics cannot be read: %s", error)
            self._trouble = str(error)
            return gauges
        self._trouble = None
        if info.generation != self._generation:
            self._generation, self._generation_loaded = info.generation, time.time()
            built = gallery.generation_built()
            age_s = None if built is None else max(0.0, time.time() - built)
            self._generation_built = None if age_s is None else time.monotonic() - age_s
        if self._generation_built is not None:
            age_s = time.monotonic() - self._generation_built
            gauges["lookalike_gallery_generation_age_seconds"] = _total(age_s)
        return gauges | {
            "lookalike_gallery_items": _total(info.count),
            "lookalike_gallery_seq": _total(info.seq),
            "lookalike_gallery_recent_items": _total(info.recent),
            "lookalike_gallery_generation": _total(info.generation),
            "lookalike_gallery_generation_loaded_timestamp_seconds": {
                self._worker: [self._generation_loaded]
            },
            "lookalike_gallery_read_only": _total(info.state == "read-only"),
        }


def _engine_gauges(engine: Engine) -> MetricsSnapshot:
    manifest, running = engine.manifest, engine.jobs.running()
    model: Labels = (
        manifest.name,
        manifest.fingerprint,
        engine.runtime.name,
        engine.runtime.precision,
        engine.device,
    )
    return {
        "lookalike_model_info": {model: [1.0]},
        "lookalike_requests_admitted": {
            ("quick",): [float(engine.quick.admitted)],
            ("costly",): [float(engine.costly.admitted)],
        },
        "lookalike_requests_admitted_limit": {
            ("quick",): [float(engine.quick.limit)],
            ("costly",): [float(engine.costly.limit)],
        },
        "lookalike_images_in_progress": _total(engine.batcher.under_way),
        "lookalike_encoders": _total(not engine.network.is_apart),
        "lookalike_jobs_running": {(kind,): [float(running[kind])] for kind in get_args(JobKind)},
    }


def _total(value: float) -> Series:
    """Return the series of a metric without labels."""
    return {NO_LABELS: [float(value)]}


def _value(snapshot: MetricsSnapshot, name: str, labels: Labels) -> float:
    """Return a counter's value, 0 where it was never counted."""
    return snapshot.get(name, {}).get(labels, [0.0])[0]
