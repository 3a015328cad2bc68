"""Locks on files: one holder at a time, and none that has ended."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from files.locks import is_locked, locked, take_lock

ROOT = Path(__file__).parents[2]
HOLD = """
import sys; sys.path.insert(0, sys.argv[1])
from pathlib import Path
from files.locks import take_lock
take_lock(Path(sys.argv[2]), wait=True)
print("held", flush=True)
sys.stdin.read()
"""


def test_a_lock_has_one_holder_until_it_lets_go(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    assert not is_locked(path)
    held = take_lock(path, wait=False)
    assert is_locked(path)
    with pytest.raises(BlockingIOError), locked(path, wait=False):
        pass
    os.close(held)
    assert not is_locked(path)


def test_who_waits_gets_the_lock_after_its_holder(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    order: list[str] = []

    def second() -> None:
        with locked(path, wait=True):
            order.append("second")

    with locked(path, wait=False):
        thread = threading.Thread(target=second)
        thread.start()
        thread.join(0.1)
        order.append("first")
    thread.join()
    assert order == ["first", "second"]


def test_a_process_that_is_killed_lets_go(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(ROOT), str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        assert is_locked(path)
        process.kill()
        process.wait()
        assert not is_locked(path)


def test_a_failed_attempt_leaves_no_descriptor_open(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with locked(path, wait=False):
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(3):
            with pytest.raises(BlockingIOError):
                take_lock(path, wait=False)
        assert len(os.listdir("/proc/self/fd")) == before
