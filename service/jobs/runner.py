"""Runs jobs, each on a thread of its own: work in, its record kept true until it has ended.

Any process may ask for the end of a job, by a file beside its record; a second thread looks for it,
because the work may be waiting for another process and look at nothing.
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
from service.jobs.records import Claim, JobFolder
from service.schemas.responses import Job, JobKind

LOOK_S: Final = 0.1  # between two looks whether somebody cancelled
SAVE_S: Final = 0.5  # between two records of how far it is
_THREAD: Final = "job-"
CLOSE_S: Final = 20.0  # for a job to end once it was told to
logger = logging.getLogger("lookalike.service")

End = Literal["cancelled", "closing"]


class JobStoppedError(Exception):
    """The work is to end here: the job was cancelled, or the service stops. Caught in this file."""


class Course:
    """How a job goes on: its work says what it is at, and hears here that it shall stop."""

    def __init__(self, claim: Claim) -> None:
        self._claim = claim
        self._lock = threading.Lock()
        self._stops: list[Callable[[], None]] = []
        self._saved = time.monotonic()
        self.end: End | None = None

    def stage(self, name: str) -> None:
        """Say what begins.

        Raises:
            JobStoppedError: nothing is to begin any more.
        """
        self._check()
        self._save(stage=name)

    def progress(self, share: float) -> None:
        """Say how much is done, in [0, 1]; to be called often.

        Raises:
            JobStoppedError: nothing more is to be done.
        """
        self._check()
        if time.monotonic() - self._saved >= SAVE_S:
            self._save(progress=min(max(share, 0.0), 1.0))

    def when_stopped(self, stop: Callable[[], None]) -> None:
        """Have ``stop`` called, on another thread, when the work is to stop; now if it is."""
        with self._lock:
            self._stops.append(stop)
            is_late = self.end is not None
        if is_late:
            stop()

    def stop(self, end: End) -> None:
        """Tell the work to stop; the first to tell says why."""
        with self._lock:
            if self.end is not None:
                return
            self.end = end
            stops = list(self._stops)
        for stop in stops:
            stop()

    def _check(self) -> None:
        if self.end is not None:
            raise JobStoppedError

    def _save(self, **changes: Any) -> None:
        try:
            self._claim.save(**changes)
        except StorageError as error:  # the work itself may well go on
            logger.warning("job %s: %s", self._claim.job.id, error)
        self._saved = time.monotonic()


Work = Callable[[Course], dict[str, Any]]  # returns the result of the job, as plain JSON


class Jobs:
    """The jobs of one gallery: those of this process run here, those of others can be seen."""

    def __init__(self, folder: JobFolder, *, clock: Callable[[], datetime]) -> None:
        self.folder = folder
        self._clock = clock
        self._closing = threading.Event()
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []

    def start(self, kind: JobKind, parameters: dict[str, Any], work: Work) -> Job:
        """Begin a job and return its record, which is on disk.

        Raises:
            JobConflictError, DiskFullError, StorageError: as of ``JobFolder.begin``.
        """
        claim = self.folder.begin(kind, parameters)
        queued = claim.job
        thread = threading.Thread(
            target=self._run, args=(claim, work), name=f"{_THREAD}{kind}", daemon=True
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

    def close(self) -> None:
        """Stop the jobs of this process, and wait until they have stopped."""
        self._closing.set()
        deadline = time.monotonic() + CLOSE_S
        with self._lock:
            threads = list(self._threads)
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))

    def _run(self, claim: Claim, work: Work) -> None:
        course, ended = Course(claim), threading.Event()
        watcher = threading.Thread(target=self._watch, args=(claim, course, ended), daemon=True)
        watcher.start()
        try:
            claim.save(state="running", started=self._now())
            last = self._outcome(course, work)
            claim.save(**last, ended=self._now())
            logger.info("job %s (%s) is %s", claim.job.id, claim.job.kind, claim.job.state)
        except StorageError as error:  # without its lock, the record says that it was interrupted
            logger.error("job %s: %s", claim.job.id, error)  # noqa: TRY400 - a sentence is enough
        finally:
            ended.set()
            watcher.join()
            claim.release()

    def _outcome(self, course: Course, work: Work) -> dict[str, Any]:
        """Return what the record says in the end."""
        try:
            result = work(course)
        except Exception as error:  # the thread's edge: it goes into the record
            if course.end == "cancelled":
                return {"state": "cancelled"}
            why = error
            if course.end == "closing":
                why = JobInterruptedError("the service was stopped before the job had ended")
            return {"state": "failed", "problem": to_failure(why)}
        return {"state": "done", "progress": 1.0, "result": result}

    def _watch(self, claim: Claim, course: Course, ended: threading.Event) -> None:
        while not ended.wait(LOOK_S):
            if claim.is_cancelled:
                course.stop("cancelled")
            elif self._closing.is_set():
                course.stop("closing")

    def _now(self) -> str:
        return self._clock().isoformat(timespec="milliseconds")
