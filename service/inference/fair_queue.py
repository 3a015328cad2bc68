"""Work of several callers in, one piece after another out: whoever had least comes next."""

import threading
from collections import deque
from typing import Generic, TypeVar

T = TypeVar("T")


class FairQueue(Generic[T]):
    """A queue for each call of each caller; used by several threads.

    Each piece of work has a price. Callers take turns so that all get the same price done, as in
    start-time fair queueing (Goyal, Vin and Cheng, 1996): one who comes late, or anew, begins
    where the others are, and neither waits for what they have queued nor overtakes for what he
    did not use. The calls of one caller, who may be many people behind one address, take turns too.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        # Of each caller those of its calls, the call whose turn it is first.
        self._queues: dict[str, dict[int, deque[tuple[T, int]]]] = {}
        self._had: dict[str, int] = {}  # price done for each caller that has a queue
        self._now = 0  # what the caller had whose turn it was last

    def put(self, work: T, *, caller: str, price: int, call: int = 0) -> None:
        """Queue ``work`` behind what its ``call``, by whatever number, has queued."""
        with self._lock:
            if caller not in self._queues:
                self._queues[caller] = {}
                self._had[caller] = max(self._now, self._had.get(caller, 0))
            self._queues[caller].setdefault(call, deque()).append((work, price))

    def pop(self) -> T | None:
        """Return what comes next, or ``None``: there is nothing."""
        with self._lock:
            if not self._queues:
                return None
            caller = min(self._queues, key=self._had.__getitem__)
            calls = self._queues[caller]
            call = next(iter(calls))
            queue = calls.pop(call)
            work, price = queue.popleft()
            if queue:
                calls[call] = queue  # behind the others
            self._now = self._had[caller]
            self._had[caller] += price
            if not calls:
                del self._queues[caller]
                self._forget()
            return work

    def _forget(self) -> None:
        """Forget callers without work that have had no more than the others."""
        if not self._queues:
            self._now = 0
            self._had.clear()
            return
        for caller in [one for one, had in self._had.items() if had <= self._now]:
            if caller not in self._queues:
                del self._had[caller]
