"""Containers of an image, run as docs/container.md says, by docker or podman."""

import json
import os
import subprocess
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

from scripts.container.engine import pick_engine

IMAGE = os.environ.get("IMAGE", "lookalike:cpu")
START_S = 180.0  # on the busiest machine
GRACE_S = 60  # as docs/container.md says
# What it recommends beside a volume: nothing may be written, gained or called.
HARDENED = (
    *("--read-only", "--tmpfs", "/tmp", "--cap-drop", "all"),
    *("--security-opt", "no-new-privileges", "--network", "none"),
)
# podman's default limits need a capability that root in a container has not.
PODMAN = ("--cgroups=disabled", "--ulimit", "nofile=4096:4096", "--ulimit", "nproc=4096:4096")
# Asks the server inside: method, path and type as arguments, the body on standard input.
ASK = r"""
import http.client, sys
connection = http.client.HTTPConnection("127.0.0.1", 3000, timeout=30)
connection.request(sys.argv[1], sys.argv[2], sys.stdin.buffer.read(), {"Content-Type": sys.argv[3]})
answer = connection.getresponse()
sys.stdout.buffer.write(b"%d\n%s" % (answer.status, answer.read()))
"""


@cache
def engine() -> str:
    """Return the engine: what ``CONTAINER`` names, or what is there."""
    return pick_engine(os.environ.get("CONTAINER", ""))


def run(
    *command: str, stdin: bytes = b"", timeout_s: float | None = None
) -> "subprocess.CompletedProcess[bytes]":
    """Run a command of the engine."""
    return subprocess.run(
        [engine(), *command], input=stdin, capture_output=True, check=False, timeout=timeout_s
    )


def said(*command: str) -> str:
    """Return what a command of the engine printed; it must not fail."""
    done = run(*command)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode().strip()


def options(
    volume: str | None, user: str | None, environment: dict[str, str], more: Sequence[str]
) -> list[str]:
    """Return the options of a hardened container."""
    chosen = [*HARDENED, *(PODMAN if engine() == "podman" else ()), *more]
    chosen += ["--volume", f"{volume}:/data"] if volume else []
    chosen += ["--user", user] if user else []
    for name, value in environment.items():
        chosen += ["--env", f"{name}={value}"]
    return chosen


@dataclass(frozen=True)
class Container:
    """A container that was started."""

    id: str

    def execute(self, *command: str, stdin: bytes = b"") -> "subprocess.CompletedProcess[bytes]":
        return run("exec", "--interactive", self.id, *command, stdin=stdin)

    def says(self, *command: str) -> str:
        """Return what a command in it printed; it must not fail."""
        done = self.execute(*command)
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout.decode().strip()

    def ask(
        self, method: str, path: str, body: bytes = b"", kind: str = "image/png"
    ) -> tuple[int, Any]:
        """Return the status and the JSON that its server answers."""
        done = self.execute("python", "-I", "-c", ASK, method, path, kind, stdin=body)
        assert done.returncode == 0, done.stderr.decode()
        status, _, text = done.stdout.partition(b"\n")
        return int(status), json.loads(text) if text.startswith(b"{") else text.decode()

    def inspect(self, template: str) -> str:
        return said("inspect", "--format", template, self.id)

    def logs(self) -> str:
        done = run("logs", self.id)
        return (done.stdout + done.stderr).decode()

    def wait_until_ready(self) -> float:
        """Return after how many seconds ``/readyz`` said so, as HEALTHCHECK sees it."""
        began = time.monotonic()
        while time.monotonic() < began + START_S:
            if self.execute("python", "-I", "/app/health.py").returncode == 0:
                return time.monotonic() - began
            assert self.inspect("{{.State.Running}}") == "true", self.logs()
            time.sleep(0.1)
        raise AssertionError(self.logs())

    def stop(self) -> int:
        """Stop it as an operator does, and return the exit code of its server."""
        said("stop", "--time", str(GRACE_S), self.id)
        return int(self.inspect("{{.State.ExitCode}}"))


@contextmanager
def container(
    *command: str,
    volume: str | None = None,
    user: str | None = None,
    environment: dict[str, str] | None = None,
    more: Sequence[str] = (),
) -> Iterator[Container]:
    """Start a container, which is removed at the end."""
    chosen = options(volume, user, environment or {}, more)
    started = Container(said("run", "--detach", *chosen, IMAGE, *command))
    try:
        yield started
    finally:
        run("rm", "--force", "--volumes", started.id)


def ends(
    *command: str,
    volume: str | None = None,
    user: str | None = None,
    environment: dict[str, str] | None = None,
    more: Sequence[str] = (),
) -> tuple[int, str]:
    """Run a container that ends by itself; return its exit code and what it said."""
    name = f"lookalike-check-{uuid.uuid4().hex}"
    chosen = ["--name", name, *options(volume, user, environment or {}, more)]
    try:
        done = run("run", "--rm", *chosen, IMAGE, *command, timeout_s=START_S)
    finally:
        run("rm", "--force", "--volumes", name)
    lines = (done.stdout + done.stderr).decode().splitlines()
    # podman without systemd says twice that it starts no timer for HEALTHCHECK.
    return done.returncode, "\n".join(line for line in lines if "systemd" not in line)


@contextmanager
def new_volume() -> Iterator[str]:
    """Make a volume, which is removed at the end."""
    name = said("volume", "create", f"lookalike-check-{uuid.uuid4().hex}")
    try:
        yield name
    finally:
        run("volume", "rm", "--force", name)
