"""Rate limits over all workers of a server: a name and its limit in, passed or refused out.

The library `limits` decides, with its sliding window counter; the counts lie in a file that all
workers map into memory. A worker that counted alone could only guess its share: one client's
connection stays with one worker.
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
from typing import Final

from limits import RateLimitItemPerMinute
from limits.storage import SlidingWindowCounterSupport, Storage
from limits.strategies import SlidingWindowCounterRateLimiter

from service.errors import ListTooLongError, TooManyRequestsError

# Two names in one slot count as one. So memory is bounded, however many addresses there are: 1 MiB.
_SLOTS: Final = 65_536
_MARK_BYTES: Final = 65_536  # of eight marks each
_SLOT: Final = struct.Struct("<dII")  # end of the window (s), requests in the one before, and in it


class RateLimiter:
    """Counts the requests of the last minute by name, and remembers names."""

    def __init__(
        self, path: Path, *, secret: str, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Count in the file at ``path``, which all workers share; it is made if it is not there.

        ``secret``, the same in all workers, keeps outsiders from choosing names of one slot.
        """
        self._counters = _SharedCounters(path, secret, clock)
        self._limiter = SlidingWindowCounterRateLimiter(self._counters)

    def count(self, name: str, per_minute: int, sentence: str, *, cost: int = 1) -> None:
        """Count one request of ``name``, or what costs as much as several; some 5 µs.

        Raises:
            TooManyRequestsError: saying ``sentence``; the request is not counted.
            ListTooLongError: it costs more than a whole minute allows.
        """
        if cost > per_minute:
            raise ListTooLongError(f"{sentence}: send fewer at once")
        if not self._limiter.hit(RateLimitItemPerMinute(per_minute), name, cost=cost):
            self._refuse(name, per_minute, sentence)

    def check(self, name: str, per_minute: int, sentence: str) -> None:
        """Check, without counting, that ``name`` has a request left.

        Raises:
            TooManyRequestsError: saying ``sentence``.
        """
        if not self._limiter.test(RateLimitItemPerMinute(per_minute), name):
            self._refuse(name, per_minute, sentence)

    def mark(self, name: str) -> None:
        """Remember ``name`` as long as the server runs, in all workers."""
        self._counters.mark(name)

    def is_marked(self, name: str) -> bool:
        """Return whether ``name`` was marked; of half a million others, one seems so too."""
        return self._counters.is_marked(name)

    def _refuse(self, name: str, per_minute: int, sentence: str) -> None:
        item = RateLimitItemPerMinute(per_minute)
        window_s = item.get_expiry()
        key = item.key_for(name)
        previous, _, current, expires_in_s = self._counters.get_sliding_window(key, window_s)
        left_s = expires_in_s - window_s  # of this window, at whose end its own count fades
        if previous and current < per_minute:  # until the window before counts for less
            left_s -= (per_minute - current) * window_s / previous
        # One more is let in just after that instant, hence the millisecond. (`get_window_stats`
        # uses the time of day, and says at a window's first instant: now.)
        raise TooManyRequestsError(sentence, retry_after_s=max(1, math.ceil(left_s + 0.001)))


class _SharedCounters(Storage, SlidingWindowCounterSupport):
    """Counters in a mapped file, guarded by a lock that the kernel releases with its process."""

    STORAGE_SCHEME = None

    def __init__(self, path: Path, secret: str, clock: Callable[[], float]) -> None:
        super().__init__()
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        size = _SLOTS * _SLOT.size + _MARK_BYTES
        os.ftruncate(self._file, size)  # zeros, where it is new
        self._memory = mmap.mmap(self._file, size)
        self._secret = secret.encode()
        self._clock = clock  # one for all processes: monotonic counts from the machine's start

    def acquire_sliding_window_entry(
        self, key: str, limit: int, expiry: int, amount: int = 1
    ) -> bool:
        with self._locked():
            offset, end, previous, current = self._slot(key, expiry)
            weight = (end - self._clock()) / expiry  # of the window before, in [0, 1]
            if math.floor(previous * weight) + current + amount > limit:
                return False
            _SLOT.pack_into(self._memory, offset, end, previous, current + amount)
            return True

    def get_sliding_window(self, key: str, expiry: int) -> tuple[int, float, int, float]:
        _, end, previous, current = self._slot(key, expiry)
        left_s = end - self._clock()
        return previous, left_s if previous else 0.0, current, left_s + expiry

    def clear_sliding_window(self, key: str, expiry: int) -> None:
        self.clear(key)

    def incr(self, key: str, expiry: int, amount: int = 1) -> int:
        with self._locked():
            offset, end, previous, current = self._slot(key, expiry)
            _SLOT.pack_into(self._memory, offset, end, previous, current + amount)
            return current + amount

    def get(self, key: str) -> int:
        end, _, current = _SLOT.unpack_from(self._memory, self._offset(key))
        return int(current) if self._clock() < end else 0

    def mark(self, name: str) -> None:
        offset, bit = self._mark(name)
        with self._locked():
            self._memory[offset] |= bit

    def is_marked(self, name: str) -> bool:
        offset, bit = self._mark(name)
        return bool(self._memory[offset] & bit)

    def get_expiry(self, key: str) -> float:
        return float(_SLOT.unpack_from(self._memory, self._offset(key))[0])

    def clear(self, key: str) -> None:
        _SLOT.pack_into(self._memory, self._offset(key), 0.0, 0, 0)

    def reset(self) -> int | None:
        self._memory[:] = bytes(len(self._memory))
        return None

    def check(self) -> bool:
        return True

    @property
    def base_exceptions(self) -> type[Exception]:
        return OSError

    def _slot(self, key: str, expiry: int) -> tuple[int, float, int, int]:
        """Return a name's offset, and its window now: its end, the counts before and in it."""
        offset = self._offset(key)
        stored_end, previous, current = _SLOT.unpack_from(self._memory, offset)
        end = (self._clock() // expiry + 1) * expiry
        if stored_end == end:
            return offset, end, previous, current
        return offset, end, current if stored_end == end - expiry else 0, 0

    def _offset(self, key: str) -> int:
        return self._digest(key) % _SLOTS * _SLOT.size

    def _mark(self, name: str) -> tuple[int, int]:
        place, bit = divmod(self._digest(name) % (8 * _MARK_BYTES), 8)
        return _SLOTS * _SLOT.size + place, 1 << bit

    def _digest(self, name: str) -> int:
        digest = hashlib.blake2b(name.encode(), digest_size=8, key=self._secret).digest()
        return int.from_bytes(digest)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        fcntl.flock(self._file, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(self._file, fcntl.LOCK_UN)
