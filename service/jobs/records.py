"""The records of jobs in a gallery's folder: one JSON file each, for all processes that serve it.

``<id>.json`` is the record, always whole. ``<id>.lock`` is locked by the process that runs the job,
for as long as it does; the kernel lets go of it when that process ends, however it ends. So a
record that says "running" while nobody holds its lock is of a process that died. ``<id>.cancel``
asks whoever runs the job to stop.
"""

import errno
import logging
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from files.durable import replace_file, sync_folder
from files.locks import is_locked, locked, take_lock
from index.errors import DiskFullError, StorageError
from service.errors import JobConflictError, JobInterruptedError, UnknownJobError
from service.http.problem_details import to_failure
from service.schemas.responses import Job, JobKind

KEPT: Final = 100  # records, the newest
STAMP: Final = "%Y%m%dT%H%M%S"  # at the beginning of an id: the second in which the job began
STAMP_CHARACTERS: Final = 15
ACTIVE: Final = ("queued", "running")
_CONFLICTS: Final[dict[JobKind, set[JobKind]]] = {  # besides another of its own kind
    "rebuild": {"tune"},
    "tune": {"rebuild"},
}
logger = logging.getLogger("lookalike.service")


class JobLease:
    """The right to run one job; until ``release`` nobody takes it for abandoned."""

    def __init__(self, path: Path, job: Job, lock: int) -> None:
        self.job = job
        self._path = path  # of the record
        self._lock = lock

    @property
    def is_cancelled(self) -> bool:
        """Whether anybody, in any process, asked to cancel the job."""
        return self._path.with_suffix(".cancel").exists()

    def save(self, **changes: Any) -> None:
        """Write the record with ``changes``; they are there after a power cut.

        Raises:
            DiskFullError, StorageError: not written; the record on disk is as it was.
        """
        self.job = self.job.model_copy(update=changes)
        _write(self._path, self.job)

    def release(self) -> None:
        """Give the lease up, after the last ``save``."""
        self._path.with_suffix(".lock").unlink(missing_ok=True)
        self._path.with_suffix(".cancel").unlink(missing_ok=True)
        os.close(self._lock)


class JobRecords:
    """The jobs of one gallery. For any number of threads and processes."""

    def __init__(self, folder: Path, *, clock: Callable[[], datetime]) -> None:
        self.folder = folder
        self._clock = clock

    def all(self) -> list[Job]:
        """Return all jobs there are records of, the newest first."""
        read = map(self._read, self.folder.glob("*.json"))
        jobs = [job for job in read if job is not None]
        return sorted(jobs, key=_order, reverse=True)

    def get(self, job_id: str) -> Job:
        """Return one job.

        Raises:
            UnknownJobError: there is none of this id, or not any more.
        """
        known = {path.stem: path for path in self.folder.glob("*.json")}  # no path of a client's
        job = self._read(known[job_id]) if job_id in known else None
        if job is None:
            raise UnknownJobError(f"no job has this id; the newest {KEPT} are remembered")
        return job

    def begin(self, kind: JobKind, parameters: dict[str, Any]) -> JobLease:
        """Return the lease on a new job, which is queued.

        Raises:
            JobConflictError: one that would be in its way has not ended, in whichever process.
            DiskFullError, StorageError: the record cannot be written.
        """
        with _translate_errors(), self._alone():
            jobs = self.all()
            for job in jobs:
                if job.state in ACTIVE and job.kind in {kind, *_CONFLICTS.get(kind, ())}:
                    raise JobConflictError(
                        f"the job {job.id} ({job.kind}) is {job.state}; wait for it, or cancel it"
                    )
            self._prune(jobs)
            return self._lease(kind, parameters, newest=jobs[0] if jobs else None)

    def cancel(self, job_id: str) -> Job:
        """Ask to cancel a job, unless it has ended, and return it as it is now.

        Raises:
            UnknownJobError: there is none of this id.
            DiskFullError, StorageError: it cannot be asked.
        """
        job = self.get(job_id)
        if job.state in ACTIVE:
            with _translate_errors():
                (self.folder / f"{job.id}.cancel").touch()
        return job

    def _lease(self, kind: JobKind, parameters: dict[str, Any], *, newest: Job | None) -> JobLease:
        now = self._clock()
        created, stamp = now.isoformat(timespec="milliseconds"), now.strftime(STAMP)
        if newest is not None and (stamp, created) < _order(newest)[:2]:
            # The clock was set back: the newest job must not be the first to be forgotten.
            before = datetime.strptime(newest.id[:STAMP_CHARACTERS], STAMP)
            stamp = (before + timedelta(seconds=1)).strftime(STAMP)
        job = Job(
            id=f"{stamp}-{secrets.token_hex(4)}",
            kind=kind,
            parameters=parameters,
            state="queued",
            stage=None,
            progress=None,
            created=created,
            started=None,
            ended=None,
            problem=None,
            result=None,
        )
        path = self.folder / f"{job.id}.json"
        lease = JobLease(path, job, take_lock(path.with_suffix(".lock"), wait=True))
        try:
            lease.save()
        except BaseException:
            lease.release()
            raise
        return lease

    def _read(self, path: Path) -> Job | None:
        """Return the job in a record, or ``None`` when there is no such record any more."""
        job = _load(path)
        if job is None or job.state not in ACTIVE or is_locked(path.with_suffix(".lock")):
            return job
        job = _load(path)  # it may have ended between the first look and the second
        if job is None or job.state not in ACTIVE:
            return job
        lost = JobInterruptedError("the process that ran the job ended before the job did")
        job = job.model_copy(
            update={
                "state": "failed",
                "ended": self._clock().isoformat(timespec="milliseconds"),
                "problem": to_failure(lost),
            }
        )
        try:
            _write(path, job)
        except StorageError as error:  # then it is found out again the next time
            logger.warning("the record of job %s: %s", job.id, error)
        return job

    def _prune(self, jobs: list[Job]) -> None:
        """Delete the oldest records that have ended, and what dead processes left behind."""
        ended = [job for job in jobs if job.state not in ACTIVE]
        for job in ended[KEPT - 1 :]:  # the one that begins is one more
            (self.folder / f"{job.id}.json").unlink()
        active = {job.id for job in jobs if job.state in ACTIVE}
        for path in self.folder.iterdir():
            if path.suffix in (".lock", ".cancel", ".new") and path.stem not in active:
                path.unlink(missing_ok=True)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Let the block begin a job, and nobody else meanwhile; the folder is made."""
        if not self.folder.is_dir():
            self.folder.mkdir(exist_ok=True)
            sync_folder(self.folder.parent)
        with locked(self.folder / "begin", wait=True):
            yield


def _order(job: Job) -> tuple[str, str, str]:
    return job.id[:STAMP_CHARACTERS], job.created, job.id


def _load(path: Path) -> Job | None:
    try:
        return Job.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValidationError) as error:
        logger.warning("the record %s cannot be read: %s", path.name, error)
        return None


def _write(path: Path, job: Job) -> None:
    with _translate_errors():
        replace_file(path, job.model_dump_json(indent=1).encode())


@contextmanager
def _translate_errors() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFullError("no room left for the record of the job") from error
        raise StorageError(f"the record of the job cannot be written: {error.strerror}") from error
