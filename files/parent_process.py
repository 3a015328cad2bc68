"""The end of a process with the one that started it: a process id in, nothing left behind.

A thread asks now and then who the parent is; the kernel names another once the parent has ended.
Sturdier than ``PR_SET_PDEATHSIG`` of prctl(2), which is sent when the *thread* ends that started
the process, such as a job's, and than the end of a pipe, of which any process holds a copy that the
parent forked meanwhile.
"""

import os
import threading
import time
from collections.abc import Callable
from typing import Final

LOOK_S: Final = 0.2  # between two looks


def end_with_parent(parent: int, *, before: Callable[[], None] = lambda: None) -> None:
    """From now on, end at once when ``parent``, which started this process, has ended.

    What is written half is left so, as by a power cut; galleries and folders are made for that.

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
