"""Workers in place of others: of those that ended, and of all of them when that is asked for.

What BentoML's supervisor sees goes in, once a second; what it is to do comes out. A worker whose
start fails is tried again after longer and longer waits. A server none of whose workers can answer
ends after some tries, with the reason, so that whoever runs it sees that, and may run it elsewhere.
"""

import logging
import signal
import time
from collections.abc import Callable
from typing import Any, Final

from service.server.ready_workers import ReadyWorkers

MOST_FAILURES: Final = 5  # starts in a row, without any worker that can answer
FIRST_WAIT_S: Final = 1.0  # after the first failure; twice as long after each that follows
LONGEST_WAIT_S: Final = 30.0
logger = logging.getLogger("lookalike.service")


class WorkerReplacement:
    """Decides for one circus watcher which workers are started, and which told to end."""

    def __init__(
        self,
        watcher: Any,
        ready_workers: ReadyWorkers,
        *,
        who: str = "its workers",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Look after ``watcher``, which has not started yet; ``who``: what it starts."""
        self.watcher = watcher
        self._who = who
        self._ready_workers = ready_workers
        self._clock = clock
        self._size: int = watcher.numprocesses
        self._running: set[int] = set()  # workers that were started and not seen to end yet
        self._were_ready: set[int] = set()  # workers that could answer, of all there ever were
        self._failures = 0  # starts in a row
        self._resumes = 0.0  # when the next may be tried
        self._is_replacing = False  # all of them, one after another
        self._old: set[int] = set()  # workers that are yet to be replaced
        self._retired: set[int] = set()  # those that were told to end
        watcher.respawn = True  # BentoML lets the dead lie where it takes this for a container
        watcher.hooks["after_spawn"] = self._note_start

    def replace_all(self) -> None:
        """From now on, replace all workers that run now, one after another."""
        if self._is_replacing:
            logger.warning("the workers are being replaced already")
            return
        logger.info("all workers are replaced, one after another")
        self._is_replacing = True
        self._old = {*self.watcher.processes}
        self.watcher.numprocesses = self._size + 1

    def look(self) -> bool:
        """Note what has become of the workers; return whether missing ones may be started now."""
        present = {*self.watcher.processes}
        ready = self._ready_workers.pids()
        if ready - self._were_ready:
            self._failures = 0
            self._were_ready |= ready
        ended = self._running - present - self._retired
        failed = [pid for pid in ended if not self._ready_workers.was_ready(pid)]
        self._running = present
        self._old &= present
        self._retired &= present
        if failed:
            self._note_failures(len(failed))
        if self._is_replacing:
            self._go_on_replacing(ready, has_failed=bool(failed))
        return self._clock() >= self._resumes

    def reason_to_end(self) -> str | None:
        """Return why the whole server should end, a sentence; ``None``: it should not."""
        if not self._failures or self._ready_workers.pids():
            return None
        sentence = self._ready_workers.failure()
        if sentence is not None and not self._were_ready:
            return f"the service cannot start: {sentence}"
        if self._failures < MOST_FAILURES:
            return None
        why = sentence or "they ended before they could answer; the log says more"
        return f"the service ends: {self._who} could not start {self._failures} times: {why}"

    def _note_start(self, *, pid: int, **_: Any) -> bool:
        self._running.add(pid)
        return True

    def _note_failures(self, count: int) -> None:
        self._failures += count
        wait_s = min(LONGEST_WAIT_S, FIRST_WAIT_S * 2.0 ** (self._failures - 1))
        self._resumes = self._clock() + wait_s
        if self.reason_to_end() is None:
            logger.error("%s could not start; the next try is in %.0f s", self._who, wait_s)

    def _go_on_replacing(self, ready: set[int], *, has_failed: bool) -> None:
        """Tell old workers to end, as many as there are more that can answer than there need be."""
        if has_failed:
            logger.error("the workers are not replaced: a new one could not start; the others stay")
            self._old.clear()
            self._is_replacing = False
        serving = self._running - self._retired
        spare = len((ready | self._old) & serving) - self._size
        for pid in self._in_order(self._old)[: max(0, spare)]:
            self._retire(pid)
        if self._old:
            return
        self.watcher.numprocesses = self._size
        for pid in self._in_order(serving - self._retired)[: -self._size]:
            self._retire(pid)
        if self._is_replacing and not self._retired:
            self._is_replacing = False
            logger.info("all workers were replaced")

    def _retire(self, pid: int) -> None:
        """Have a worker finish what it has, and end; circus is not to wait for it."""
        process = self.watcher.processes[pid]
        process.send_signal(signal.SIGHUP)
        process.stopping = True  # or circus would tell it again, and do nothing else until it ends
        process.started = 0.0  # the oldest to circus, also where the clock was set back since
        self._old.discard(pid)
        self._retired.add(pid)

    def _in_order(self, pids: set[int]) -> list[int]:
        """Return workers in the order in which they were started."""
        return [pid for pid in self.watcher.processes if pid in pids]
