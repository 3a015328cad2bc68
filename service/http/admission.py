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
    time is its rate; the cost of what is under way divided by the rate is the wait of the last of
    them (Little's law). They take turns, so one that costs little waits no longer than if all cost
    as little. A new one is refused when that wait would be longer than ``max_wait_s``, or than one
    and a half times as long as it takes by itself, whichever is longer: so the bound suits a
    network of 1 ms and one of 1 s. Whoever has fewer under way than an equal share of what the
    bound allows is let in all the same: one caller's flood is refused to himself.

    Used on one event loop, so it needs no lock.
    """

    def __init__(
        self, limit: int, *, max_wait_s: float, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self.limit = limit
        self.max_wait_s = max_wait_s
        self.admitted = 0  # requests under way
        self._cost = 0  # of them all
        self._of_callers: dict[str, int] = {}  # requests under way of each who has any
        self._clock = clock
        self._number = 0  # of the newest request
        self._lone_s = 0.0  # what a cost of 1 takes that has the worker for itself; 0: unknown
        self._busy_s = 0.0  # weighted time, and cost completed in it; 0: the rate is unknown
        self._completed = 0.0
        self._busy_since: float | None = None

    def expect(self, cost_s: float) -> None:
        """Take ``cost_s`` as what a cost of 1 takes, until some were seen."""
        self._lone_s = cost_s
        self._busy_s, self._completed = cost_s, 1.0

    def wait_s(self, cost: int = 1) -> float:
        """Return how long a request of that cost will wait; 0 while nothing is known."""
        if not self._completed:
            return 0.0
        return min(self._cost, cost * self.admitted) * self._busy_s / self._completed

    def check(self, caller: str, *, cost: int = 1) -> None:
        """Accept that one more request comes.

        Raises:
            OverloadedError: there is too much to do already.
        """
        if self.admitted < BUSY and self.admitted < self.limit:
            return
        wait_s = self.wait_s(cost)
        most_s = max(self.max_wait_s, PATIENCE * self._lone_s * cost)
        if wait_s <= most_s and self.admitted < self.limit:
            return
        room = min(float(self.limit), self.admitted * most_s / wait_s if wait_s else math.inf)
        own = self._of_callers.get(caller, 0)
        callers = len(self._of_callers) + (own == 0)
        if callers > 1 and (own + 1) * callers <= room:
            return
        raise OverloadedError(
            f"{self.admitted} requests are being worked on; try again shortly",
            retry_after_s=max(1, round(wait_s)),
        )

    @contextmanager
    def admit(self, caller: str, *, cost: int = 1) -> Iterator[None]:
        """Hold one place for as long as the block runs.

        Args:
            caller: whose the request is; the empty name is one caller, too.
            cost: what it costs, as a multiple of the least that a request does.

        Raises:
            OverloadedError: there is too much to do already.
        """
        self.check(caller, cost=cost)
        started = self._clock()
        self._number += 1
        number = self._number
        was_lone = self.admitted == 0
        self.admitted += 1
        self._cost += cost
        self._of_callers[caller] = self._of_callers.get(caller, 0) + 1
        if self.admitted == BUSY:
            self._busy_since = started
        try:
            yield
        finally:
            ended = self._clock()
            if self._busy_since is not None:
                self._count(ended - self._busy_since, cost)
                self._busy_since = ended
            self._leave(caller, cost)
            if was_lone and number == self._number:
                taken_s = (ended - started) / cost
                share = LONE_SHARE if self._lone_s else 1.0
                self._lone_s += share * (taken_s - self._lone_s)

    def _leave(self, caller: str, cost: int) -> None:
        self.admitted -= 1
        self._cost -= cost
        left = self._of_callers[caller] - 1
        if left:
            self._of_callers[caller] = left
        else:
            del self._of_callers[caller]
        if self.admitted < BUSY:
            self._busy_since = None

    def _count(self, busy_s: float, cost: int) -> None:
        """Count one completed request and the busy time since the one before."""
        kept = math.exp(-busy_s / MEMORY_S)
        self._busy_s = self._busy_s * kept + busy_s
        self._completed = self._completed * kept + cost


class BodyMemoryBudget:
    """The bytes of all bodies that a worker holds; used on one event loop."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.held = 0
        self._of_callers: dict[str, int] = {}  # bytes of each who has any

    @contextmanager
    def reserve(self, caller: str) -> Iterator["Reservation"]:
        """Give a share, empty at first, for as long as the block runs."""
        share = Reservation(self, caller)
        try:
            yield share
        finally:
            if share.bytes:
                self._take(caller, -share.bytes)

    def hold(self, caller: str, more: int) -> None:
        """Hold ``more`` bytes of ``caller``; whoever has less than an equal share always may.

        Raises:
            OverloadedError: there are not as many left.
        """
        if self.held + more > self.limit:
            own = self._of_callers.get(caller, 0)
            callers = len(self._of_callers) + (own == 0)
            if callers == 1 or (own + more) * callers > self.limit:
                raise OverloadedError("too many bytes of requests are held; try again shortly")
        self._take(caller, more)

    def _take(self, caller: str, more: int) -> None:
        self.held += more
        own = self._of_callers.get(caller, 0) + more
        if own:
            self._of_callers[caller] = own
        else:
            del self._of_callers[caller]


class Reservation:
    """One request's share of the budget."""

    def __init__(self, budget: BodyMemoryBudget, caller: str) -> None:
        self.bytes = 0
        self._budget = budget
        self._caller = caller

    def grow_to(self, size: int) -> None:
        """Hold at least ``size`` bytes.

        Raises:
            OverloadedError: there are not as many left; what was held stays.
        """
        more = size - self.bytes
        if more > 0:
            self._budget.hold(self._caller, more)
            self.bytes = size


class MemoryLimiter:
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
