"""What a worker takes on: requests by number and by time, bytes of bodies, memory of decoding.

Past a bound a request is refused immediately; only decoding, on threads of its own, waits.
"""

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from service.errors import OverloadedError

BUSY: Final = 2  # one for the network and one that it finds ready after that: never refused
MEMORY_S: Final = 1.0  # of busy time, over which the rate is an average
LONE_SHARE: Final = 0.1  # of the newest lone request in the average of them
PATIENCE: Final = 1.5  # a queue may be as long as this many lone requests take


class Admission:
    """Counts requests, and knows how long the queue of them is in time.

    While at least ``BUSY`` requests are under way the worker is busy, so what it completes in that
    time is its rate; requests under way divided by the rate are the wait of the last of them
    (Little's law). A new one is refused when that wait would be longer than ``max_wait_s``, or than
    one and a half requests take that have the worker for themselves, whichever is longer: so the
    bound suits a network of 1 ms and one of 1 s. Used on one event loop, so it needs no lock.
    """

    def __init__(
        self, limit: int, *, max_wait_s: float, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self.limit = limit
        self.max_wait_s = max_wait_s
        self.admitted = 0  # requests under way
        self._clock = clock
        self._number = 0  # of the newest request
        self._lone_s = 0.0  # what a request takes that has the worker for itself; 0: unknown
        self._busy_s = 0.0  # weighted time, and completions in it; 0: the rate is unknown
        self._completed = 0.0
        self._busy_since: float | None = None

    def expect(self, request_s: float) -> None:
        """Take ``request_s`` as what a request takes, until some were seen."""
        self._lone_s = request_s
        self._busy_s, self._completed = request_s, 1.0

    @property
    def expected_wait_s(self) -> float:
        """How long the requests under way will take; 0 while nothing is known."""
        return self.admitted * self._busy_s / self._completed if self._completed else 0.0

    def check(self) -> None:
        """Accept that one more request comes.

        Raises:
            OverloadedError: there is too much to do already.
        """
        if self.admitted < BUSY and self.admitted < self.limit:
            return
        if self.admitted >= self.limit:
            raise OverloadedError(f"{self.limit} requests are being worked on; try again shortly")
        wait_s = self.expected_wait_s
        if wait_s > max(self.max_wait_s, PATIENCE * self._lone_s):
            raise OverloadedError(
                f"{self.admitted} requests are being worked on; try again shortly",
                retry_after_s=max(1, round(wait_s)),
            )

    @contextmanager
    def admit(self) -> Iterator[None]:
        """Hold one place for as long as the block runs.

        Raises:
            OverloadedError: there is too much to do already.
        """
        self.check()
        started = self._clock()
        self._number += 1
        number = self._number
        was_lone = self.admitted == 0
        self.admitted += 1
        if self.admitted == BUSY:
            self._busy_since = started
        try:
            yield
        finally:
            ended = self._clock()
            if self._busy_since is not None:
                self._count(ended - self._busy_since)
                self._busy_since = ended
            self.admitted -= 1
            if self.admitted < BUSY:
                self._busy_since = None
            if was_lone and number == self._number:
                taken_s = ended - started
                share = LONE_SHARE if self._lone_s else 1.0
                self._lone_s += share * (taken_s - self._lone_s)

    def _count(self, busy_s: float) -> None:
        """Count one completed request and the busy time since the one before."""
        kept = math.exp(-busy_s / MEMORY_S)
        self._busy_s = self._busy_s * kept + busy_s
        self._completed = self._completed * kept + 1


class BodyBudget:
    """The bytes of all bodies that a worker holds; used on one event loop."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.held = 0

    @contextmanager
    def reserve(self) -> Iterator["Reservation"]:
        """Give a share, empty at first, for as long as the block runs."""
        share = Reservation(self)
        try:
            yield share
        finally:
            self.held -= share.bytes


class Reservation:
    """One request's share of the budget."""

    def __init__(self, budget: BodyBudget) -> None:
        self.bytes = 0
        self._budget = budget

    def grow_to(self, size: int) -> None:
        """Hold at least ``size`` bytes.

        Raises:
            OverloadedError: there are not as many left; what was held stays.
        """
        more = size - self.bytes
        if more <= 0:
            return
        if self._budget.held + more > self._budget.limit:
            raise OverloadedError("too many bytes of requests are held; try again shortly")
        self._budget.held += more
        self.bytes = size


class MemoryGate:
    """Lets threads decode as long as their estimated memory fits a budget; first come, first go."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.taken = 0
        self._changed = threading.Condition()
        self._queue: deque[object] = deque()

    @contextmanager
    def passage(self) -> Iterator[Callable[[int], None]]:
        """Give a function that waits for so many bytes, which are given back after the block.

        It is called once. More than the whole budget waits until nobody else holds any.
        """
        taken = 0

        def take(wanted: int) -> None:
            nonlocal taken
            taken = self._take(min(wanted, self.limit))

        try:
            yield take
        finally:
            with self._changed:
                self.taken -= taken
                self._changed.notify_all()

    def _take(self, wanted: int) -> int:
        ticket = object()
        with self._changed:
            self._queue.append(ticket)
            self._changed.wait_for(
                lambda: self._queue[0] is ticket and self.taken + wanted <= self.limit
            )
            self._queue.popleft()
            self.taken += wanted
            self._changed.notify_all()
        return wanted
