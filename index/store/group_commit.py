"""Many threads' changes in few transactions: changes come in, each caller gets its own result.

Waiting for the disk is most of what a small write costs, so callers share it (group commit): while
one transaction is on its way to the disk, the changes that arrive queue up for the next.
"""

import threading
from collections import deque
from collections.abc import Callable
from typing import Any, Final, TypeVar, cast

from index.errors import StorageError, VectorIndexError
from index.store.oplog import trim_log
from index.store.sqlite.database import Database
from index.store.transaction import WriteTransaction

MAX_REQUESTS: Final = 256  # in one transaction, so that nobody waits long for others' changes
MAX_ITEMS: Final = 1024  # likewise; one request with more has a transaction of its own

T = TypeVar("T")


class GroupWriter:
    """Runs changes in the order they came, as many in one transaction as are waiting.

    Whoever finds nobody at work leads: it takes what waits, itself first, runs it in one
    transaction, and wakes the others with their results. Then the first that came meanwhile leads.
    No thread is ours.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self.on_commit: Callable[[], object] = lambda: None  # before anybody hears of a commit
        self._lock = threading.Lock()  # for the queue and for who leads; never held for long
        self._queue: deque[_Request] = deque()
        self._leader: _Request | None = None  # who is at work, or has been woken to be

    def run(self, change: Callable[[WriteTransaction], T], *, items: int) -> T:
        """Run ``change``, which touches about ``items`` items, and return its result, durable.

        Raises:
            ReadOnlyError, DiskFullError, StorageError, GalleryFolderError: as of
                ``Database.writing``, for all changes of the transaction alike.
        """
        request = _Request(change, items)
        try:
            with self._lock:
                self._queue.append(request)
                leads = self._leader is None
                if leads:
                    self._leader = request
            if not leads:
                request.wakeup.acquire()  # until it is done, or this caller is to lead
            if not request.done:
                self._lead()
        except BaseException:  # an interrupt, such as Ctrl-C: nobody may wait for this caller
            self._withdraw(request)
            raise
        if request.error is not None:
            raise request.error
        return cast("T", request.result)

    def _lead(self) -> None:
        batch: list[_Request] = []
        try:
            self._take(batch)
            with self._database.writing() as writer:
                transaction = WriteTransaction(writer)
                results = [request.change(transaction) for request in batch]
                if transaction.logged:
                    trim_log(writer, logged=transaction.logged)
            for request, result in zip(batch, results, strict=True):
                request.result = result
            self.on_commit()  # once for all of them: each on its own thread would take much longer
        except BaseException as error:
            for request in batch:
                request.error = error if request is batch[0] else _for_another(error)
        finally:
            for request in batch:
                request.done = True
                request.wakeup.release()
            self._hand_over()

    def _take(self, batch: list["_Request"]) -> None:
        """Move into ``batch`` what goes into one transaction: at least the queue's first."""
        with self._lock:
            items = 0
            while self._queue and len(batch) < MAX_REQUESTS:
                items += self._queue[0].items
                if batch and items > MAX_ITEMS:
                    break
                batch.append(self._queue.popleft())

    def _hand_over(self) -> None:
        """Let the first in the queue lead."""
        with self._lock:
            self._leader = self._queue[0] if self._queue else None
            if self._leader is not None:
                self._leader.wakeup.release()

    def _withdraw(self, request: "_Request") -> None:
        with self._lock:
            if request in self._queue:
                self._queue.remove(request)
            leads = self._leader is request
        if leads:
            self._hand_over()


class _Request:
    """One caller's change; ``wakeup`` is held until it is done, or until the caller is to lead."""

    __slots__ = ("change", "done", "error", "items", "result", "wakeup")

    def __init__(self, change: Callable[[WriteTransaction], Any], items: int) -> None:
        self.change = change
        self.items = items
        self.wakeup = threading.Lock()
        self.wakeup.acquire()
        self.done = False
        self.result: Any = None
        self.error: BaseException | None = None


def _for_another(error: BaseException) -> VectorIndexError:
    """Return the error for a caller whose change shared the transaction that ``error`` ended."""
    if isinstance(error, VectorIndexError):
        copy = type(error)(*error.args)
    else:
        copy = StorageError("another change of the same transaction failed; nothing was changed")
    copy.__cause__ = error
    return copy
