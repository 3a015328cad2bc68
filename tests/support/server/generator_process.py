"""A generator of load that is to be trusted: in a process of its own, and its lateness known.

What it sends late it also measures late: a run in which that came about says nothing of the server.
"""

import contextlib
import multiprocessing
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any, Final, Protocol, TypeVar

import pytest

from tests.support.server.load_generator import Reply, percentile
from tests.support.server.targets_table import Target, print_table

T = TypeVar("T")
LATE_MS: Final = 10.0  # p99: a sixth of what a lone request takes in the test of an overload
TRIES: Final = 3
PATIENCE_S: Final = 600.0


class Paced(Protocol):
    """What came of requests whose time to be sent was planned."""

    @property
    def planned(self) -> Sequence[Reply]:
        """All such requests."""


Run = TypeVar("Run", bound=Paced)


def apart(work: Callable[..., T], *given: Any, **named: Any) -> T:
    """Return what ``work`` returns in another process, which goes before others where it may."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context, initializer=_hurry) as pool:
        return pool.submit(work, *given, **named).result(timeout=PATIENCE_S)


def _hurry() -> None:
    """Take precedence (as root), and with cores to spare one of them."""
    with contextlib.suppress(PermissionError):
        os.setpriority(os.PRIO_PROCESS, 0, -20)
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) > 2:
        os.sched_setaffinity(0, cores[-1:])


def lateness_ms(run: Paced) -> float:
    """Return by how much the generator was late to send, p99; nothing the server can help."""
    return percentile([reply.late_ms for reply in run.planned], 0.99)


def punctual(measure: Callable[[], Run], *, title: str) -> Run:
    """Return the first run that was sent on time.

    If there is none in a few, the test is skipped, with a table that says so: it found out nothing.
    """
    late = []
    for _ in range(TRIES):
        run = measure()
        late.append(lateness_ms(run))
        if late[-1] <= LATE_MS:
            return run
    targets = [
        Target(f"run {n}: sent late by, p99", "ms", ms, at_most=LATE_MS)
        for n, ms in enumerate(late, 1)
    ]
    print_table(f"{title}: INCONCLUSIVE, the load itself was late", targets)
    told = ", ".join(f"{ms:.0f}" for ms in late)
    pytest.skip(
        f"INCONCLUSIVE: in {TRIES} runs the load was sent {told} ms late (p99), more than "
        f"{LATE_MS:g}: NOTHING was found out about the server; repeat on a quiet machine"
    )
