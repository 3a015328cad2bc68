"""The server behind `lookalike up`: started, announced once it really answers, and watched over.

It runs in a process of its own that this one looks after, so that the memory of a training is given
back before, and the folder can be watched beside it. A signal to this process ends both.
"""

import contextlib
import ctypes
import http.client
import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import asdict, dataclass
from types import FrameType
from typing import TYPE_CHECKING, Any, Final

from cli.support.bento_process import browser_host, server_command
from cli.support.console import print_info
from files.module_command import module_command, module_environment

if TYPE_CHECKING:
    from cli.up.options import UpOptions
    from cli.up.workspace import Workspace

LOOK_S: Final = 0.1  # between two questions whether it answers
_DEATH_SIGNAL: Final = 1  # PR_SET_PDEATHSIG of prctl(2)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerArguments:
    """Arguments of this process."""

    command: list[str]  # of the server
    host: str
    port: int
    watched: dict[str, Any] | None  # arguments of ``watch_folder``; None: nothing is watched


def exec_server(workspace: "Workspace", options: "UpOptions") -> None:
    """Replace this process by one that serves the workspace.

    Raises:
        VisionError, VectorIndexError, ServiceConfigError: something cannot be used.
    """
    settings: dict[str, object] = {
        "model": workspace.model.resolve(),
        "gallery": workspace.gallery.resolve(),
        "device": options.device,
        "log_level": os.environ.get("LOOKALIKE_LOG_LEVEL", "warning"),  # calm, unless asked
    }
    os.environ.pop("LOOKALIKE_UNIX_SOCKET", None)  # it is asked at its port
    command = server_command(settings, host=options.host, port=options.port)
    watched = None
    if options.watch:
        watched = {
            "source": workspace.source,
            "folder": str(workspace.folder.resolve()),
            "prune": options.prune,
            "device": options.device,
        }
    arguments = ServerArguments(
        command=command, host=options.host, port=options.port, watched=watched
    )
    sys.stdout.flush()  # what was printed would go with this process
    ours = module_command("cli.up.server", json.dumps(asdict(arguments)))
    os.execve(ours[0], ours, module_environment())


def page_url(host: str, port: int) -> str:
    """Return the address of the page, as a browser on this machine takes it."""
    return f"http://{browser_host(host)}:{port}"


def main(arguments: ServerArguments) -> int:
    """Serve until stopped; return the exit code."""
    stopping = threading.Event()
    stop = _on_signal(stopping)
    server = subprocess.Popen(
        arguments.command,
        start_new_session=True,  # Ctrl-C comes to this process, which passes it on once
        preexec_fn=_end_with_parent,  # noqa: PLW1509 - this process has no other thread yet
        env=module_environment(),
    )
    stop.append(server)
    if stopping.is_set():
        server.terminate()
    if _wait_until_it_answers(server, arguments):
        watching = "; the folder is watched" if arguments.watched else ""
        url = page_url(arguments.host, arguments.port)
        print_info(f"5/5 the page is at {url} (Ctrl-C ends it){watching}")
        if arguments.watched is not None:
            from cli.up.folder_watch import watch_folder  # noqa: PLC0415 - only where it is asked for

            threading.Thread(
                target=watch_folder, kwargs={**arguments.watched, "stopping": stopping}, daemon=True
            ).start()
    elif not stopping.is_set():
        print_info("lookalike: the server ended before it answered")
    server.wait()
    return 0 if stopping.is_set() else server.returncode or 1


def _on_signal(stopping: threading.Event) -> list["subprocess.Popen[bytes]"]:
    """Pass signals to end on to the processes of the list that is returned."""
    servers: list[subprocess.Popen[bytes]] = []

    def end(_number: int, _frame: FrameType | None) -> None:
        if not stopping.is_set():
            stopping.set()
            for server in servers:
                server.terminate()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, end)
    return servers


def _end_with_parent() -> None:
    """Have the kernel end this process when its parent ends, however that comes about."""
    with contextlib.suppress(AttributeError, OSError):  # not Linux
        ctypes.CDLL(None).prctl(_DEATH_SIGNAL, signal.SIGKILL)  # as whoever ended that one


def _wait_until_it_answers(server: "subprocess.Popen[bytes]", arguments: ServerArguments) -> bool:
    """Return whether the server came to answer that it is ready; False: it ended before."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(arguments.host, arguments.host)
    while server.poll() is None:
        with contextlib.suppress(OSError, http.client.HTTPException):
            connection = http.client.HTTPConnection(host, arguments.port, timeout=5)
            connection.request("GET", "/readyz")
            if connection.getresponse().status == http.client.OK:
                return True
        time.sleep(LOOK_S)
    return False


if __name__ == "__main__":
    code = main(ServerArguments(**json.loads(sys.argv[1])))
    sys.stderr.flush()
    os._exit(code)  # a thread may be at work on the gallery: what it has not finished is not there
