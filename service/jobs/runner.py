"""Runs jobs, each on a thread of its own: a function in, its record kept true until it has ended.

Any process may ask to stop a job, by a file beside its record; a second thread looks for that file,
because the function may be waiting for another process.
"""

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable
from datetime import datetime
from typing import Any, Final, Literal

from index.errors import StorageError
from service.errors import JobInterruptedError
from service.http.problem_details import to_failure
from service.jobs.records import JobLease, JobRecords
from service.schemas.responses import Job, JobKind

POLL_S: Final = 0.1  # between two checks whether somebody cancelled
SAVE_S: Final = 0.5  # between two records of how far it is
_THREAD: Final = "job-"
CLOSE_S: Final = 20.0  # for a job to stop
logger = logging.getLogger("lookalike.service")

StopReason = Literal["cancelled", "closing"]


class JobStoppedError(Exception):
    """The job was cancelled, or the service stops. Caught in this file."""


class JobContext:
    """What a job's function gets: it reports its progress here, and learns that it is to stop."""

    def __init__(self, lease: JobLease) -> None:
        self._lease = lease
        self._lock = threading.Lock()
        self._stops: list[Callable[[], None]] = []
        self._saved = time.monotonic()
        self.stop_reason: StopReason | None = None

    def set_stage(self, name: str) -> None:
        """Record the stage that begins.

        Raises:
            JobStoppedError: the job is to stop.
        """
        self._raise_if_stopped()
        self._save(stage=name)

    def set_progress(self, share: float) -> None:
        """Record how much is done, in [0, 1]; to be called often.

        Raises:
            JobStoppedError: the job is to stop.
        """
        self._raise_if_stopped()
        if time.monotonic() - self._saved >= SAVE_S:
            self._save(progress=min(max(share, 0.0), 1.0))

    def on_stop(self, stop: Callable[[], None]) -> None:
        """Call ``stop``, on another thread, when the job is to stop; now if that is the case."""
        with self._lock:
            self._stops.append(stop)
            is_late = self.stop_reason is not None
        if is_late:
            stop()

    def stop(self, end: StopReason) -> None:
        """Ask the function to stop; the first call decides the reason."""
        with self._lock:
            if self.stop_reason is not None:
                return
            self.stop_reason = end
            stops = list(self._stops)
        for stop in stops:
            stop()

    def _raise_if_stopped(self) -> None:
        if self.stop_reason is not None:
            raise JobStoppedError

    def _save(self, **changes: Any) -> None:
        try:
            self._lease.save(**changes)
        except StorageError as error:  # the job itself may well go on
            logger.warning("job %s: %s", self._lease.job.id, error)
        self._saved = time.monotonic()


JobFunction = Callable[[JobContext], dict[str, Any]]  # returns the result of the job, as plain JSON


class JobRunner:
    """Runs jobs on one gallery in this process; the records are those of all processes."""

    def __init__(self, records: JobRecords, *, clock: Callable[[], datetime]) -> None:
        self.records = records
        self._clock = clock
        self._closing = threading.Event()
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._ended: Counter[tuple[str, str]] = Counter()

    def start(self, kind: JobKind, parameters: dict[str, Any], function: JobFunction) -> Job:
        """Begin a job and return its record, which is on disk.

        Raises:
            JobConflictError, DiskFullError, StorageError: as of ``JobRecords.begin``.
        """
        lease = self.records.begin(kind, parameters)
        queued = lease.job
        thread = threading.Thread(
            target=self._run, args=(lease, function), name=f"{_THREAD}{kind}", daemon=True
        )
        with self._lock:
            thread.start()
            self._threads = [one for one in self._threads if one.is_alive()] + [thread]
        return queued

    def running(self) -> Counter[str]:
        """Return how many jobs of each kind this process is at."""
        with self._lock:
            names = [thread.name for thread in self._threads if thread.is_alive()]
        return Counter(name.removeprefix(_THREAD) for name in names)

    def ended(self) -> Counter[tuple[str, str]]:
        """Return how many jobs of this process have ended, by kind and last state."""
        with self._lock:
            return self._ended.copy()

    def close(self) -> None:
        """Stop the jobs of this process, and wait until they have stopped."""
        self._closing.set()
        deadline = time.monotonic() + CLOSE_S
        with self._lock:
            threads = list(self._threads)
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))

    def _run(self, lease: JobLease, function: JobFunction) -> None:
        context, ended = JobContext(lease), threading.Event()
        watcher = threading.Thread(target=self._watch, args=(lease, context, ended), daemon=True)
        watcher.start()
        state = "failed"
        try:
            lease.save(state="running", started=self._now())
            last = self._outcome(context, function)
            lease.save(**last, ended=self._now())
            state = lease.job.state
            logger.info("job %s (%s) is %s", lease.job.id, lease.job.kind, lease.job.state)
        except StorageError as error:  # without its lock, the record says that it was interrupted
            logger.error("job %s: %s", lease.job.id, error)  # noqa: TRY400 - a sentence is enough
        finally:
            with self._lock:
                self._ended[lease.job.kind, state] += 1
            ended.set()
            watcher.join()
            lease.release()

    def _outcome(self, context: JobContext, function: JobFunction) -> dict[str, Any]:
        """Return what the record says in the end."""
        try:
            result = function(context)
        except Exception as error:  # the thread's edge: it goes into the record
            if context.stop_reason == "cancelled":
                return {"state": "cancelled"}
            why = error
            if context.stop_reason == "closing":
                why = JobInterruptedError("the service was stopped before the job had ended")
            return {"state": "failed", "problem": to_failure(why)}
        return {"state": "done", "progress": 1.0, "result": result}

    def _watch(self, lease: JobLease, context: JobContext, ended: threading.Event) -> None:
        while not ended.wait(POLL_S):
            if lease.is_cancelled:
                context.stop("cancelled")
            elif self._closing.is_set():
                context.stop("closing")

    def _now(self) -> str:
        return self._clock().isoformat(timespec="milliseconds")
