"""The log of a worker: one JSON object per line on standard error, written by a thread of its own.

To log is only to append to a queue. When standard error is a pipe that nobody reads, the thread
waits, the queue fills, and further lines are counted and thrown away; the service goes on.
"""

import json
import logging
import os
import select
import sys
import threading
import time
from collections import deque
from datetime import UTC, datetime
from typing import Any, Final

from pydantic_core import to_json

QUEUE_LINES: Final = 8192  # two seconds of the busiest worker
# Lines are written this much later at most: waking a thread for every line would take the
# interpreter away from requests. What is worth a warning is written at once.
DELAY_S: Final = 0.05
FLUSH_S: Final = 2.0  # at shutdown, for whoever reads our standard error to catch up
# Loggers with handlers of their own, which would block on a full pipe: a command's, libraries'.
_OTHERS: Final = ("lookalike", "bentoml", "uvicorn", "uvicorn.error", "circus")


class LogQueue:
    """A bounded queue of lines, and the thread that writes them to a file descriptor."""

    def __init__(self, descriptor: int, *, limit: int = QUEUE_LINES) -> None:
        self.dropped = 0
        self._descriptor = descriptor
        self._limit = limit
        self._lines: deque[dict[str, Any]] = deque()
        self._lock = threading.Lock()  # for the count of what was dropped
        self._pending = threading.Event()  # there is something to write
        self._urgent = threading.Event()  # write it now
        self._writing = False
        threading.Thread(target=self._run, name="log", daemon=True).start()

    def put(self, line: dict[str, Any], *, urgent: bool = False) -> None:
        """Have ``line`` written, which has its ``time`` in Unix seconds; from any thread."""
        if len(self._lines) >= self._limit:
            with self._lock:
                self.dropped += 1
            return
        self._lines.append(line)
        if urgent:
            self._urgent.set()
        if not self._pending.is_set():
            self._pending.set()

    def flush(self, *, timeout_s: float = FLUSH_S) -> bool:
        """Wait until everything is written; return whether it came to that in time."""
        deadline = time.monotonic() + timeout_s
        while self._lines or self._writing:
            if time.monotonic() >= deadline:
                return False
            self._urgent.set()
            self._pending.set()
            time.sleep(DELAY_S / 10)
        return True

    def _run(self) -> None:
        while True:
            self._pending.wait()
            self._urgent.wait(DELAY_S)
            self._pending.clear()
            self._urgent.clear()
            self._writing = True  # before the queue is emptied: ``flush`` must see one of the two
            lines = [self._lines.popleft() for _ in range(len(self._lines))]
            if lines:
                self._write(b"".join(map(_serialize, lines)), lines=len(lines))
            self._writing = False

    def _write(self, data: bytes, *, lines: int) -> None:
        rest = memoryview(data)
        while rest:
            try:
                rest = rest[os.write(self._descriptor, rest) :]
            except BlockingIOError:  # somebody made the descriptor so
                select.select([], [self._descriptor], [])
            except OSError:  # nobody is there to read it, or to be told
                with self._lock:
                    self.dropped += lines
                return


class LogHandler(logging.Handler):
    """Hands records of Python's logging to a ``LogQueue``."""

    def __init__(self, queue: LogQueue) -> None:
        super().__init__()
        self._queue = queue

    def emit(self, record: logging.LogRecord) -> None:
        """Queue a record, with its trace when it has one."""
        line: dict[str, Any] = {
            "time": record.created,
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["trace"] = _FORMATTER.formatException(record.exc_info)
        self._queue.put(line, urgent=record.levelno >= logging.WARNING)


_FORMATTER: Final = logging.Formatter()


def configure_logging(level: str) -> LogQueue:
    """Send all logging, and the traces of threads that fail, to standard error as JSON lines.

    Args:
        level: lowest level of our own lines; of libraries, warnings and errors are logged.

    Returns:
        The queue, to which request lines are handed directly.
    """
    queue = LogQueue(sys.stderr.fileno())
    handler = LogHandler(queue)
    for name in (None, *_OTHERS):
        logger = logging.getLogger(name)
        logger.handlers = [handler] if name is None else []
        logger.setLevel(logging.WARNING)
        logger.propagate = True
    logging.getLogger("lookalike").setLevel(level.upper())
    threading.excepthook = _log_thread_failure
    return queue


def _log_thread_failure(failure: threading.ExceptHookArgs) -> None:
    name = failure.thread.name if failure.thread is not None else "unknown"
    error = failure.exc_value
    logging.getLogger("lookalike.service").error("the thread %s failed", name, exc_info=error)


def _serialize(line: dict[str, Any]) -> bytes:
    line["time"] = datetime.fromtimestamp(line["time"], UTC).isoformat(timespec="milliseconds")
    try:
        return to_json(line) + b"\n"
    except ValueError:  # text that is not Unicode, from a library's message
        return json.dumps(line, default=str).encode() + b"\n"
