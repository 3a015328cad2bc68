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
class Shot:
    """One request."""

    name: str
    body: bytes
    media_type: str = "application/octet-stream"
    path: str = "/v1/classify"
    method: str = "POST"


@dataclass
class Toll:
    """What came of all requests: answers counted by status and code, and sentences on faults."""

    answers: Counter[tuple[int, str | None]] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    slowest_s: float = 0.0


def bombard(url: str, shots: Iterable[Shot], *, connections: int = 6, limit_s: float = 2.0) -> Toll:
    """Send all of ``shots`` over as many connections at a time, and return what came of it."""
    where, toll = urlsplit(url), Toll()
    source, lock = iter(shots), threading.Lock()
    late: list[Shot] = []

    def shoot() -> None:
        connection = http.client.HTTPConnection(str(where.hostname), where.port, PATIENCE_S)
        for shot in _shared(source, lock):
            fault, key, seconds = _answer(connection, shot)
            for _ in range(TRIES):
                if key != (503, "overloaded"):
                    break
                time.sleep(1)  # as the answer asks for: the first large picture waits for a process
                fault, key, seconds = _answer(connection, shot)
            with lock:
                toll.answers[key] += 1
                if fault is not None:
                    toll.faults.append(f"{shot.name}: {fault}")
                elif seconds > limit_s:
                    late.append(shot)
                else:
                    toll.slowest_s = max(toll.slowest_s, seconds)
        connection.close()

    threads = [threading.Thread(target=shoot) for _ in range(connections)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    toll.faults += _still_late(url, late, limit_s=limit_s)
    return toll


def peak_mebibytes(pid: int) -> int:
    """Return the most memory that a process has held so far."""
    (line,) = [
        line
        for line in Path(f"/proc/{pid}/status").read_text().splitlines()
        if line.startswith("VmHWM:")
    ]
    return int(line.split()[1]) // 1024


def _shared(source: Iterator[Shot], lock: threading.Lock) -> Iterator[Shot]:
    while True:
        with lock:
            shot = next(source, None)
        if shot is None:
            return
        yield shot


def _answer(
    connection: http.client.HTTPConnection, shot: Shot
) -> tuple[str | None, tuple[int, str | None], float]:
    """Return what is wrong with the answer, if anything, its status and code, and its seconds."""
    started = time.monotonic()
    try:
        connection.request(shot.method, shot.path, shot.body, {"Content-Type": shot.media_type})
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


def _still_late(url: str, late: list[Shot], *, limit_s: float) -> list[str]:
    where = urlsplit(url)
    faults = []
    for shot in late:
        connection = http.client.HTTPConnection(str(where.hostname), where.port, PATIENCE_S)
        taken = [_answer(connection, shot)[2] for _ in range(TRIES)]
        connection.close()
        if min(taken) > limit_s:
            faults.append(f"{shot.name}: took {min(taken):.1f} s, alone, {TRIES} times")
    return faults
