"""Many requests at a server, several at once; every answer that should not have been comes back.

A fault is an answer of 5xx, one that the table of errors does not have, one that takes too long,
and a connection that breaks. Who is told that the server is busy asks again. A late answer is asked
for again, alone: it is a fault only when it comes late each time, so that a busy machine is not
taken for a slow image.
"""

import http.client
import json
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from service.http.problem_details import MEDIA_TYPE, PROBLEMS

PATIENCE_S = 30.0  # until a connection is given up
TRIES = 5


@dataclass(frozen=True)
class FuzzRequest:
    """One request."""

    name: str
    body: bytes
    media_type: str = "application/octet-stream"
    path: str = "/v1/classify"
    method: str = "POST"


@dataclass
class FuzzReport:
    """What came of all requests: answers counted by status and code, and sentences on faults."""

    answers: Counter[tuple[int, str | None]] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    slowest_s: float = 0.0


def send_all(
    url: str, requests: Iterable[FuzzRequest], *, connections: int = 6, limit_s: float = 2.0
) -> FuzzReport:
    """Send all of ``requests`` over as many connections at a time, and return what came of it."""
    where, report = urlsplit(url), FuzzReport()
    source, lock = iter(requests), threading.Lock()
    late: list[FuzzRequest] = []

    def send() -> None:
        connection = http.client.HTTPConnection(str(where.hostname), where.port, PATIENCE_S)
        for one in _shared(source, lock):
            fault, key, seconds = _answer(connection, one)
            for _ in range(TRIES):
                if key != (503, "overloaded"):
                    break
                time.sleep(1)  # as the answer asks for: the first large picture waits for a process
                fault, key, seconds = _answer(connection, one)
            with lock:
                report.answers[key] += 1
                if fault is not None:
                    report.faults.append(f"{one.name}: {fault}")
                elif seconds > limit_s:
                    late.append(one)
                else:
                    report.slowest_s = max(report.slowest_s, seconds)
        connection.close()

    threads = [threading.Thread(target=send) for _ in range(connections)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    report.faults += _still_late(url, late, limit_s=limit_s)
    return report


def peak_mebibytes(pid: int) -> int:
    """Return the most memory that a process has held so far."""
    (line,) = [
        line
        for line in Path(f"/proc/{pid}/status").read_text().splitlines()
        if line.startswith("VmHWM:")
    ]
    return int(line.split()[1]) // 1024


def _shared(source: Iterator[FuzzRequest], lock: threading.Lock) -> Iterator[FuzzRequest]:
    while True:
        with lock:
            one = next(source, None)
        if one is None:
            return
        yield one


def _answer(
    connection: http.client.HTTPConnection, one: FuzzRequest
) -> tuple[str | None, tuple[int, str | None], float]:
    """Return what is wrong with the answer, if anything, its status and code, and its seconds."""
    started = time.monotonic()
    try:
        connection.request(one.method, one.path, one.body, {"Content-Type": one.media_type})
        response = connection.getresponse()
        body = response.read()
    except (OSError, http.client.HTTPException) as error:
        connection.close()  # the next request opens it again
        return f"no answer: {error!r}", (0, None), time.monotonic() - started
    seconds = time.monotonic() - started
    status, code = response.status, None
    if status >= 400 and response.headers.get_content_type() == MEDIA_TYPE:
        code = json.loads(body).get("code")
    return _fault_of(status, code), (status, code), seconds


def _fault_of(status: int, code: str | None) -> str | None:
    if status in (200, 207) or (status < 500 and (status, code) in PROBLEMS.values()):
        return None
    return f"answered {status} {code}"


def _still_late(url: str, late: list[FuzzRequest], *, limit_s: float) -> list[str]:
    where = urlsplit(url)
    faults = []
    for one in late:
        connection = http.client.HTTPConnection(str(where.hostname), where.port, PATIENCE_S)
        taken = [_answer(connection, one)[2] for _ in range(TRIES)]
        connection.close()
        if min(taken) > limit_s:
            faults.append(f"{one.name}: took {min(taken):.1f} s, alone, {TRIES} times")
    return faults
