"""Jobs of several callers that take turns: one of each, however many each has."""

import threading
from collections import deque
from typing import Generic, TypeVar

Caller = TypeVar("Caller")
Job = TypeVar("Job")


class Turns(Generic[Caller, Job]):
    """A queue that any thread may fill and empty."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._jobs: dict[Caller, deque[Job]] = {}  # of each caller, whose turn it is first

    def put(self, caller: Caller, job: Job) -> None:
        """Add a job to its caller's."""
        with self._lock:
            jobs = self._jobs.get(caller)
            if jobs is None:
                self._jobs[caller] = deque((job,))
            else:
                jobs.append(job)

    def take(self) -> Job | None:
        """Return the oldest job of the caller whose turn it is; None: there is none."""
        with self._lock:
            for caller in self._jobs:
                jobs = self._jobs.pop(caller)
                job = jobs.popleft()
                if jobs:
                    self._jobs[caller] = jobs  # behind all others
                return job
        return None
