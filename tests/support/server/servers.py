"""Real servers over real sockets: `lookalike serve` in a process of its own."""

import contextlib
import itertools
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from tests.support.paths import ROOT

START_S = 180.0  # on the busiest machine
PORTS = 2_000  # for each process of a test run


@dataclass(frozen=True)
class Server:
    """A running server."""

    url: str
    process: subprocess.Popen[bytes]
    log: Path

    def client(self, **settings: object) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=30, **settings)  # type: ignore[arg-type]

    def workers(self) -> list[int]:
        """Return the processes that answer requests."""
        return [pid for pid in children(self.process.pid) if "worker" in command_of(pid)]

    def kill(self) -> None:
        """End all its processes at once, with no chance to tidy up, as a power cut would."""
        for pid in (self.process.pid, *children(self.process.pid)):
            os.kill(pid, signal.SIGKILL)
        self.process.wait(timeout=10)

    def kill_worker(self, pid: int) -> None:
        """End one worker, and wait until the server has replaced it."""
        os.kill(pid, signal.SIGKILL)
        deadline = time.monotonic() + START_S
        while pid in self.workers() or not self.workers() or not is_ready(self):
            assert time.monotonic() < deadline, "the worker was not replaced"
            time.sleep(0.1)

    def stop(self) -> int:
        """Ask it to stop, wait until it has, and return its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=40)


class StrictServer:
    """A server with keys and small limits, and the keys' tokens."""

    def __init__(self, running: Server, tokens: dict[str, str]) -> None:
        self.running = running
        self.url = running.url
        self.tokens = tokens

    def headers(self, key: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.tokens[key]}"}


def free_port() -> int:
    """Return a port that nothing listens on, and that stays so until a server has started.

    It is below those that outgoing connections are given, and each process of a test run has its
    own.
    """
    return next(port for port in _ports if _is_free(port))


def _is_free(port: int) -> bool:
    with socket.socket() as probe, contextlib.suppress(OSError):
        probe.bind(("127.0.0.1", port))
        return True
    return False


def _of_this_process() -> Iterator[int]:
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    begin = random.SystemRandom().randrange(PORTS)  # another run may be under way
    for number in itertools.count(begin):
        yield 16_000 + PORTS * (worker % 8) + number % PORTS


_ports = _of_this_process()


def serve_command(
    model: Path, gallery: Path, port: int, *options: str, program: Sequence[str] = ("cli.main",)
) -> list[str]:
    """Return the command of a server; ``program`` is run in place of `lookalike`."""
    command = [sys.executable, "-m", *program, "serve", "--model", str(model)]
    return [*command, "--gallery", str(gallery), "--port", str(port), *options]


def clean_environment(**extra: str) -> dict[str, str]:
    """Return this process's environment without settings that would leak into a server."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("LOOKALIKE_", "BENTOML_", "PROMETHEUS_"))
    }
    return {**kept, "PYTHONPATH": str(ROOT), **extra}


@contextmanager
def running_server(
    model: Path,
    gallery: Path,
    log: Path,
    *options: str,
    wait: bool = True,
    program: Sequence[str] = ("cli.main",),
    **environment: str,
) -> Iterator[Server]:
    """Start `lookalike serve`, wait until it is ready, and stop it after the block.

    A gallery that does not exist is made.
    """
    port = free_port()
    if not gallery.exists():
        options = ("--create", *options)
    command = serve_command(model, gallery, port, *options, program=program)
    with _running(command, port, log, cwd=log.parent, wait=wait, environment=environment) as server:
        yield server


@contextmanager
def running_bento_server(log: Path, *, wait: bool = True, **environment: str) -> Iterator[Server]:
    """Start the service by BentoML's own command, wait until it is ready, and stop it after."""
    port = free_port()
    command = [sys.executable, "-m", "bentoml", "serve", "service.app:Lookalike", f"--port={port}"]
    with _running(command, port, log, cwd=ROOT, wait=wait, environment=environment) as server:
        yield server


@contextmanager
def _running(
    command: Sequence[str],
    port: int,
    log: Path,
    *,
    cwd: Path,
    wait: bool,
    environment: Mapping[str, str],
) -> Iterator[Server]:
    """Run a server; all its processes are gone after the block."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=clean_environment(**environment),
            cwd=cwd,
            start_new_session=True,
        )
        server = Server(f"http://127.0.0.1:{port}", process, log)
        try:
            if wait:
                wait_until_ready(server)
            yield server
        finally:
            if process.poll() is None:
                left = children(process.pid)
                server.stop()
                assert not [pid for pid in left if Path(f"/proc/{pid}").exists()]


@contextmanager
def running_at(
    path: Path, model: Path, gallery: Path, log: Path, *options: str
) -> Iterator[Server]:
    """Start `lookalike serve` at the Unix socket ``path``, as ``running_server`` does at a port."""
    told = ("--unix-socket", str(path), *options)
    with running_server(model, gallery, log, *told, wait=False) as server:
        deadline = time.monotonic() + START_S
        while not _is_ready_at(path):
            assert server.process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)
        yield server


def client_at(path: Path) -> httpx.Client:
    """Return a client of the server at a Unix socket."""
    transport = httpx.HTTPTransport(uds=str(path))
    return httpx.Client(base_url="http://localhost", timeout=30, transport=transport)


@contextmanager
def open_folder() -> Iterator[Path]:
    """Make a folder that other users may enter, as nginx's may be one; pytest's are not so."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


def _is_ready_at(path: Path) -> bool:
    try:
        with client_at(path) as client:
            return client.get("/readyz").status_code == 200
    except httpx.TransportError:
        return False


def wait_until_ready(server: Server, *, timeout_s: float = START_S) -> None:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if server.process.poll() is not None:
            raise AssertionError(f"the server ended:\n{server.log.read_text()}")
        if is_ready(server):
            return
        time.sleep(0.1)
    raise AssertionError(f"not ready after {timeout_s} s:\n{server.log.read_text()}")


def is_ready(server: Server) -> bool:
    try:
        return httpx.get(f"{server.url}/readyz", timeout=5).status_code == 200
    except httpx.TransportError:  # not listening yet
        return False


def answered(response: httpx.Response) -> Any:
    """Return the JSON of an answer, which must be one that says success: else the test says it."""
    assert response.is_success, f"{response.status_code} {response.text}"
    return response.json()


def children(pid: int) -> list[int]:
    """Return the processes that ``pid`` started."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def command_of(pid: int) -> str:
    """Return a process's command line."""
    return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
