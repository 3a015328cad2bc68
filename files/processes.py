"""Which processes live: ids in, whether they are still those that were meant out.

A process id alone says little: it may belong to a process that has ended and was not waited for (a
zombie), or by now to another one. With the moment at which the process started it is unique.
"""

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

LOOK_S: Final = 0.2  # between two looks at the parent
_STARTED: Final = 19  # place among the fields behind the name, see proc_pid_stat(5)


def started_ticks(pid: int) -> int | None:
    """Return when a process started, in ticks since the machine did; ``None``: it does not live."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    state, *fields = status.rpartition(")")[2].split()  # the name before may hold anything
    return None if state in "ZX" else int(fields[_STARTED - 1])


def is_alive(pid: int, started: int) -> bool:
    """Return whether the process that started then lives; not a zombie, nor another of its id."""
    return started_ticks(pid) == started


def end_with_parent(parent: int, *, before: Callable[[], None] = lambda: None) -> None:
    """From now on, end at once when ``parent``, which started this process, has ended.

    What is written half is left so, as by a power cut; galleries and folders are made for that.
    A thread asks now and then who the parent is; the kernel names another once the parent has
    ended, before its id can come again. Sturdier than ``PR_SET_PDEATHSIG`` of prctl(2), which is
    sent when the *thread* ends that started the process, such as a job's, and than the end of a
    pipe, of which any process holds a copy that the parent forked meanwhile.

    Args:
        parent: its process id.
        before: is done first; what it raises is ignored.
    """
    watch = threading.Thread(target=_watch, args=(parent, before), name="parent", daemon=True)
    watch.start()


def _watch(parent: int, before: Callable[[], None]) -> None:
    while os.getppid() == parent:
        time.sleep(LOOK_S)
    try:
        before()
    finally:
        os._exit(1)
