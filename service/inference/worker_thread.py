"""A thread for one kind of work, which sleeps when there is none.

It is not woken when it is awake, because waking a thread costs more than decoding a small image.
"""

import threading
from collections.abc import Callable
from queue import SimpleQueue

# Does something and returns True, or returns False: there is nothing to do.
Work = Callable[[], bool]


class WorkerThread:
    """A thread that works until there is nothing to do, then sleeps until it is woken."""

    def __init__(self, name: str, work: Work) -> None:
        self._work = work
        self._wakings: SimpleQueue[bool] = SimpleQueue()
        self._is_idle = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def wake(self) -> bool:
        """Wake the thread if it sleeps, and return whether it did."""
        if not self._is_idle:
            return False
        self._is_idle = False
        self._wakings.put(True)
        return True

    def join(self) -> None:
        """Let the thread end once nothing is left to do, and wait for it."""
        self._wakings.put(False)
        self._thread.join()

    def _run(self) -> None:
        goes_on = True
        while goes_on:
            while self._work():
                pass
            # Whoever adds work after this line sees a sleeper; what came before it, the next does.
            self._is_idle = True
            if self._work():
                self._is_idle = False
                continue
            goes_on = self._wakings.get()
            self._is_idle = False
        while self._work():
            pass
