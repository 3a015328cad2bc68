"""The gauges of one worker, and the thread that shares all its numbers once a second."""

import logging
import os
import threading
import time
from pathlib import Path
from typing import Final

from index.errors import VectorIndexError
from index.gallery import Gallery
from service.inference.engine import Engine
from service.request.exchange import WorkerState
from service.telemetry.counters import Labels, Numbers, Series
from service.telemetry.json_log import LogLines
from service.telemetry.prometheus import exposition
from service.telemetry.shared_metrics import Board

PERIOD_S: Final = 1.0  # between two looks
_CPU: Final = "lookalike_worker_cpu_seconds_total"
_DROPPED: Final = "lookalike_log_lines_dropped_total"
_PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")
_TOTAL: Final[Labels] = ()  # of a metric without labels
Gauges = dict[str, Series]
logger = logging.getLogger("lookalike.service")


class Vitals:
    """Looks after the numbers of one worker; ``exposition`` gives those of all workers."""

    def __init__(
        self, state: WorkerState, board: Board, *, log: LogLines, before: Numbers, worker: int
    ) -> None:
        self._state = state
        self._board = board
        self._log = log
        self._worker = (str(worker),)
        self._begun = time.time()
        self._cpu_before = before.counters.get(_CPU, {}).get(self._worker, 0.0)
        self._dropped_before = before.counters.get(_DROPPED, {}).get(_TOTAL, 0.0)
        self._generation = 0  # in use at the last look
        self._generation_loaded = self._begun
        self._trouble: str | None = None  # with the gallery, at the last look
        self._looking = threading.Lock()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="vitals", daemon=True)

    def start(self) -> None:
        """From now on, look and share once a second."""
        self._thread.start()

    def close(self) -> None:
        """Share what was counted until now, and end."""
        self._ended.set()
        self._thread.join()
        self._board.write(self._numbers())

    def exposition(self) -> bytes:
        """Return what Prometheus reads: this worker's numbers of now, others' of a second ago."""
        with self._looking:
            own = self._board.write(self._numbers())
        return exposition([own, *self._board.others()])

    def _run(self) -> None:
        while not self._ended.wait(PERIOD_S):
            with self._looking:
                self._board.write(self._numbers())

    def _numbers(self) -> Numbers:
        engine = self._state.engine
        gauges = self._process_gauges() | self._loading_gauges()
        if engine is not None:
            gauges |= _engine_gauges(engine) | self._gallery_gauges(engine.gallery)
        counters: dict[str, Series] = {
            _CPU: {self._worker: self._cpu_before + time.process_time()},
            _DROPPED: {_TOTAL: self._dropped_before + self._log.dropped},
        }
        return self._state.metrics.numbers(gauges, counters)

    def _process_gauges(self) -> Gauges:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        values = {
            "lookalike_worker_start_timestamp_seconds": self._begun,
            "lookalike_worker_uptime_seconds": time.time() - self._begun,
            "lookalike_worker_resident_bytes": float(pages * _PAGE_BYTES),
            "lookalike_worker_threads": float(len(os.listdir("/proc/self/task"))),
            "lookalike_worker_open_files": float(len(os.listdir("/proc/self/fd"))),
        }
        in_progress = {_TOTAL: float(self._state.metrics.in_progress)}
        return {
            "lookalike_requests_in_progress": in_progress,
            **{name: {self._worker: value} for name, value in values.items()},
        }

    def _loading_gauges(self) -> Gauges:
        seconds = self._state.loading.seconds
        return {
            "lookalike_worker_ready": {self._worker: float(self._state.unready_reason() is None)},
            "lookalike_worker_load_seconds": {
                (*self._worker, stage): took for stage, took in list(seconds.items())
            },
        }

    def _gallery_gauges(self, gallery: Gallery) -> Gauges:
        gauges: Gauges = {}
        try:
            gauges["lookalike_gallery_seq_lag"] = {self._worker: float(gallery.lag())}
            info = gallery.info()  # it catches up, which saves the next search from it
        except VectorIndexError as error:
            if str(error) != self._trouble:
                logger.warning("the gallery cannot be looked at: %s", error)
            self._trouble = str(error)
            return gauges
        self._trouble = None
        if info.generation != self._generation:
            self._generation, self._generation_loaded = info.generation, time.time()
        built = gallery.generation_built()
        if built is not None:
            age = {_TOTAL: max(0.0, time.time() - built)}
            gauges["lookalike_gallery_generation_age_seconds"] = age
        loaded: Series = {self._worker: self._generation_loaded}
        values: Gauges = {
            "lookalike_gallery_items": {_TOTAL: float(info.count)},
            "lookalike_gallery_seq": {_TOTAL: float(info.seq)},
            "lookalike_gallery_recent_items": {_TOTAL: float(info.recent)},
            "lookalike_gallery_generation": {_TOTAL: float(info.generation)},
            "lookalike_gallery_generation_loaded_timestamp_seconds": loaded,
            "lookalike_gallery_read_only": {_TOTAL: float(info.state == "read-only")},
        }
        return gauges | values


def _engine_gauges(engine: Engine) -> Gauges:
    manifest = engine.manifest
    facts: Labels = (
        manifest.name,
        manifest.fingerprint,
        engine.runtime.name,
        engine.runtime.precision,
        engine.device,
    )
    return {
        "lookalike_model_info": {facts: 1.0},
        "lookalike_requests_admitted": {
            ("quick",): float(engine.quick.admitted),
            ("costly",): float(engine.costly.admitted),
        },
        "lookalike_requests_admitted_limit": {
            ("quick",): float(engine.quick.limit),
            ("costly",): float(engine.costly.limit),
        },
        "lookalike_images_in_progress": {_TOTAL: float(engine.pipeline.under_way)},
        "lookalike_jobs_running": {
            (kind,): float(count) for kind, count in engine.jobs.running().items()
        },
    }
