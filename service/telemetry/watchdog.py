"""Which threads are at work, and since when: work that never ends is a reason to restart."""

import threading
import time
from collections.abc import Callable
from typing import Final, Literal, ParamSpec, TypeVar

Activity = Literal["decode", "network", "write"]
Arguments = ParamSpec("Arguments")
Returned = TypeVar("Returned")

# Nothing that is well takes so long: 25 million pixels are decoded in 2 s, and 32 photos through
# VGG-19 take 25 s on one slow core. A writer waits 10 s for another process.
STUCK_S: Final = 60.0


class Watchdog:
    """Notes when each thread began what it is doing."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._started: dict[tuple[Activity, int], float] = {}

    def track(
        self, activity: Activity, function: Callable[Arguments, Returned]
    ) -> Callable[Arguments, Returned]:
        """Return ``function``, tracked as work of ``activity`` while it runs."""

        def run(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Returned:
            key = (activity, threading.get_ident())
            self._started[key] = self._clock()
            try:
                return function(*args, **kwargs)
            finally:
                del self._started[key]

        return run

    def longest_s(self, activity: Activity) -> float:
        """Return for how long the slowest thread of ``activity`` has been at work on one thing."""
        start_times = [
            started for (one, _), started in list(self._started.items()) if one == activity
        ]
        return self._clock() - min(start_times) if start_times else 0.0

    def is_stuck(self, activity: Activity) -> bool:
        """Whether a thread of ``activity`` is at work that will not end."""
        return self.longest_s(activity) > STUCK_S
