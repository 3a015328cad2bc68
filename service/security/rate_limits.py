"""Rate limits over all workers of a server: a name and its limit in, passed or refused out.

The counts lie in a file that all workers map into memory. A worker that counted alone could only
guess its share: one client's connection stays with one worker.
"""

import fcntl
import hashlib
import math
import mmap
import os
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

from service.errors import ListTooLongError, TooManyRequestsError

_MINUTE_S: Final = 60
# Two names in one slot count as one. So memory is bounded, however many addresses there are: 1 MiB.
_SLOTS: Final = 65_536
_MARK_BYTES: Final = 65_536  # of eight marks each
_SLOT: Final = struct.Struct("<dII")  # a window


class _Window(NamedTuple):
    end: float  # of the current minute, by the clock
    previous: int  # requests in the minute before
    current: int  # requests in this one


class RateLimiter:
    """Counts requests per minute by name, and remembers names.

    A sliding window counter, as Cloudflare described it ("How we built rate limiting capable of
    scaling to millions of domains", 2017): of the minute before, what still lies within the last 60
    seconds counts, as if its requests had come evenly.
    """

    def __init__(
        self, path: Path, *, secret: str, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Count in the file at ``path``, which all workers share; it is made if it is not there.

        Args:
            path: of the file.
            secret: the same in all workers; it keeps outsiders from choosing names of one slot.
            clock: one for all processes; monotonic counts from the machine's start.
        """
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        size = _SLOTS * _SLOT.size + _MARK_BYTES
        os.ftruncate(self._file, size)  # zeros, where it is new
        self._memory = mmap.mmap(self._file, size)
        self._secret = secret.encode()
        self._clock = clock

    def count(self, name: str, per_minute: int, sentence: str, *, cost: int = 1) -> None:
        """Count one request of ``name``, or what costs as much as several; some 5 µs.

        Raises:
            TooManyRequestsError: saying ``sentence``; the request is not counted.
            ListTooLongError: it costs more than a whole minute allows.
        """
        if cost > per_minute:
            raise ListTooLongError(f"{sentence}: send fewer at once")
        offset = self._slot(name, per_minute)
        with self._locked():
            window = self._window(offset)
            self._check_room(window, per_minute, sentence, cost=cost)
            counted = window._replace(current=window.current + cost)
            _SLOT.pack_into(self._memory, offset, *counted)

    def check(self, name: str, per_minute: int, sentence: str) -> None:
        """Check, without counting, that ``name`` has a request left.

        Raises:
            TooManyRequestsError: saying ``sentence``.
        """
        window = self._window(self._slot(name, per_minute))
        self._check_room(window, per_minute, sentence, cost=1)

    def mark(self, name: str) -> None:
        """Remember ``name`` as long as the server runs, in all workers."""
        offset, bit = self._mark(name)
        with self._locked():
            self._memory[offset] |= bit

    def is_marked(self, name: str) -> bool:
        """Return whether ``name`` was marked; of half a million others, one seems so too."""
        offset, bit = self._mark(name)
        return bool(self._memory[offset] & bit)

    def _check_room(self, window: _Window, per_minute: int, sentence: str, *, cost: int) -> None:
        left_s = max(0.0, window.end - self._clock())  # of this minute
        still_counted = math.floor(window.previous * left_s / _MINUTE_S)
        if still_counted + window.current + cost <= per_minute:
            return
        if window.previous and window.current < per_minute:
            # Until the minute before counts for less. Else until this one does, from its end on.
            left_s -= (per_minute - window.current) * _MINUTE_S / window.previous
        # One more is let in just after that instant, hence the millisecond.
        raise TooManyRequestsError(sentence, retry_after_s=max(1, math.ceil(left_s + 0.001)))

    def _window(self, offset: int) -> _Window:
        """Return a slot's window as of now."""
        stored = _Window(*_SLOT.unpack_from(self._memory, offset))
        end = (self._clock() // _MINUTE_S + 1) * _MINUTE_S
        if stored.end == end:
            return stored
        return _Window(end, stored.current if stored.end == end - _MINUTE_S else 0, 0)

    def _slot(self, name: str, per_minute: int) -> int:
        """Return the offset of a name's slot, another one if its limit changes."""
        return self._digest(f"{name}/{per_minute}") % _SLOTS * _SLOT.size

    def _mark(self, name: str) -> tuple[int, int]:
        place, bit = divmod(self._digest(name) % (8 * _MARK_BYTES), 8)
        return _SLOTS * _SLOT.size + place, 1 << bit

    def _digest(self, name: str) -> int:
        digest = hashlib.blake2b(name.encode(), digest_size=8, key=self._secret).digest()
        return int.from_bytes(digest)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        fcntl.flock(self._file, fcntl.LOCK_EX)  # which the kernel releases with the process
        try:
            yield
        finally:
            fcntl.flock(self._file, fcntl.LOCK_UN)
