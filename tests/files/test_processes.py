"""Which processes live: neither zombies nor those that an id belonged to before."""

import os
import subprocess
import sys
import time

import pytest

from files.processes import is_alive, started_ticks

SLEEP = [sys.executable, "-c", "import time; time.sleep(60)"]


def test_a_process_is_alive_until_it_ends() -> None:
    with subprocess.Popen(SLEEP) as process:
        started = started_ticks(process.pid)
        assert started is not None
        assert is_alive(process.pid, started)
        process.kill()
    assert started_ticks(process.pid) is None
    assert not is_alive(process.pid, started)


def test_a_process_that_ended_and_was_not_waited_for_is_not_alive() -> None:
    with subprocess.Popen(SLEEP) as process:
        started = started_ticks(process.pid)
        assert started is not None
        os.kill(process.pid, 9)
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # it has ended, and is a zombie
        os.kill(process.pid, 0)  # its id is still there
        assert not is_alive(process.pid, started)


def test_another_process_of_the_same_id_is_not_the_one_that_was_meant() -> None:
    own = started_ticks(os.getpid())
    assert own is not None
    assert is_alive(os.getpid(), own)
    assert not is_alive(os.getpid(), own - 1)


@pytest.mark.parametrize("name", ["a) Z 1 (b", "x y"])
def test_a_name_with_brackets_and_spaces_is_no_harm(name: str) -> None:
    code = f"import time; open('/proc/self/comm', 'w').write({name!r}); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", code]) as process:
        before = started_ticks(process.pid)
        while name not in open(f"/proc/{process.pid}/comm").read():  # noqa: SIM115
            time.sleep(0.01)
        assert before is not None
        assert is_alive(process.pid, before)
        process.kill()
