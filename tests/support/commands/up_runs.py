"""`lookalike up` as a person types it: real processes of the real command, on small folders."""

import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from tests.support.commands.run_command import COMMAND_S, Command, lookalike, start
from tests.support.images.pngs import encoded, picture
from tests.support.processes import family
from tests.support.server.servers import free_port

QUICK = ("--budget", "5s")  # for a training that need not be good
WAIT_S = 120.0  # for something to come about, on the busiest machine


def write_few(folder: Path, classes: tuple[str, ...] = ("coat", "hat"), each: int = 10) -> Path:
    """Write photos of some classes."""
    for kind, label in enumerate(classes):
        (folder / label).mkdir(parents=True)
        for number in range(each):
            image = picture(1000 * kind + number, (200, 150))
            (folder / label / f"{number}.jpg").write_bytes(encoded(image, "JPEG"))
    return folder


def up(*arguments: str | bytes, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run `up` to its end, quickly and without a server."""
    return lookalike("up", *QUICK, "--no-serve", *arguments, cwd=cwd)


def sentence_of(done: subprocess.CompletedProcess[str]) -> str:
    """Return the one sentence of a command that failed."""
    assert "Traceback" not in done.stdout + done.stderr
    assert "something went wrong that should not have" not in done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("lookalike: ")]
    return line


def stages_of(log: str) -> list[str]:
    """Return the lines of the stages, without their numbers."""
    return re.findall(r"^\d/5 (.*)$", log, re.MULTILINE)


@dataclass(frozen=True)
class Page:
    """A page that `up` serves."""

    url: str
    process: Command
    log: Path

    def count(self) -> int:
        """Return how many photos search finds."""
        count: int = httpx.get(f"{self.url}/v1/gallery", timeout=30).json()["count"]
        return count

    def ids(self) -> set[str]:
        """Return the ids of all photos."""
        answer = httpx.get(f"{self.url}/v1/items?limit=1000", timeout=30).json()
        return {item["id"] for item in answer["items"]}

    def wait_until(self, are_right: Callable[[set[str]], bool]) -> None:
        """Wait until the ids of all photos are as they should be."""
        deadline = time.monotonic() + WAIT_S
        while not are_right(self.ids()):
            assert time.monotonic() < deadline, f"{self.ids()}\n{self.log.read_text()}"
            time.sleep(0.2)

    def wait_until_said(self, words: str) -> None:
        """Wait until the log has these words."""
        deadline = time.monotonic() + WAIT_S
        while words not in self.log.read_text():
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.2)


@contextmanager
def page_of(*arguments: str, cwd: Path, log: Path) -> Iterator[Page]:
    """Run `up` until it says where the page is; stop it after the block, all of it."""
    port = free_port()
    with log.open("wb") as output:
        command = ("up", *QUICK, "--port", str(port), *arguments)
        process = start(command, cwd=cwd, stdout=output, stderr=output)
    try:
        deadline = time.monotonic() + COMMAND_S
        while f"the page is at http://127.0.0.1:{port}" not in log.read_text():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)
        yield Page(f"http://127.0.0.1:{port}", process, log)
    finally:
        if process.poll() is None:
            members = family(process.pid)
            process.send_signal(signal.SIGINT)
            assert process.wait(timeout=60) == 0, log.read_text()
            deadline = time.monotonic() + 10
            while any(Path(f"/proc/{pid}").exists() for pid in members):
                assert time.monotonic() < deadline, "a process was left"
                time.sleep(0.1)


def kill_when(made: str, arguments: Sequence[str], *, cwd: Path) -> None:
    """Start `up` and kill it, with all its processes, once a file of the pattern ``made`` exists.

    The file must not be there before.
    """
    assert not list(cwd.glob(made)), "it would be killed before it began"
    process = start(("up", *QUICK, "--no-serve", *arguments), cwd=cwd)
    while process.poll() is None and not list(cwd.glob(made)):
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait(timeout=30)
