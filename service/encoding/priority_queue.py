"""A queue in which what came alone goes before bulk, which yet is never left to wait for ever."""

from collections import deque
from typing import Final, Generic, TypeVar

T = TypeVar("T")
BULK_TURN: Final = 4  # of so many places one is bulk's, where there is any


class PriorityQueue(Generic[T]):
    """First come, first served, but for bulk; used by several threads without a lock."""

    def __init__(self) -> None:
        self._single: deque[T] = deque()
        self._bulk: deque[T] = deque()
        self._passed = 0  # singles since bulk had its turn; to lose a count does no harm

    def put(self, work: T, *, is_bulk: bool) -> None:
        """Queue ``work`` behind its like."""
        (self._bulk if is_bulk else self._single).append(work)

    def pop(self) -> T | None:
        """Return what comes next, or ``None``: there is nothing."""
        if self._bulk and (not self._single or self._passed >= BULK_TURN - 1):
            self._passed = 0
            return _popped(self._bulk) or _popped(self._single)
        self._passed += 1
        return _popped(self._single) or _popped(self._bulk)


def _popped(queue: deque[T]) -> T | None:
    try:
        return queue.popleft()
    except IndexError:  # taken by another thread, or never there
        return None
