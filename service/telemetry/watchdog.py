"""Which threads are at work, and since when: work that never ends is a reason to restart."""

import threading
import time
from collections.abc import Callable
from typing import Final, Literal

Activity = Literal["decode", "network", "write"]
# Nothing that is well takes so long: 25 million pixels are decoded in 2 s, and 32 photos through
# VGG-19 take 25 s on one slow core. A writer waits 10 s for another process.
STUCK_S: Final = 60.0
_Place = tuple[Activity, int]  # and a thread


class _Tracked:
    """A block of work; ``contextmanager`` would take three times as long."""

    __slots__ = ("_began", "_place", "_started")

    def __init__(self, started: dict[_Place, float], place: _Place, began: float) -> None:
        self._started = started
        self._place = place
        self._began = began

    def __enter__(self) -> None:
        self._started[self._place] = self._began

    def __exit__(self, *_: object) -> None:
        del self._started[self._place]


class Watchdog:
    """Notes when each thread began what it is doing."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._started: dict[_Place, float] = {}

    def track(self, activity: Activity) -> _Tracked:
        """Note that this thread is at work of ``activity`` while the block runs."""
        return _Tracked(self._started, (activity, threading.get_ident()), self._clock())

    def longest_s(self, activity: Activity) -> float:
        """Return for how long the slowest thread of ``activity`` has been at work on one thing."""
        start_times = [
            started for (one, _), started in list(self._started.items()) if one == activity
        ]
        return self._clock() - min(start_times) if start_times else 0.0

    def is_stuck(self, activity: Activity) -> bool:
        """Whether a thread of ``activity`` is at work that will not end."""
        return self.longest_s(activity) > STUCK_S
