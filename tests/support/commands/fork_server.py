"""A process that has loaded the libraries, and forks a process for each command that is asked for.

    python -m tests.support.commands.fork_server

Python's start and torch's import take two seconds of a core, a fork some milliseconds. What is
forked is a process as any: of its own memory, streams, working folder, signals and exit code. The
libraries alone are loaded before; the product is imported by each command anew.

Standard input is a Unix socket (``SOCK_SEQPACKET``). A message is an ``Order`` as JSON, with four
descriptors: the streams of the command, and the socket that is told its number, then its wait
status. The end of standard input is the end of this process.
"""

import atexit
import ctypes
import importlib
import json
import os
import runpy
import select
import socket
import sys
import threading
from dataclasses import dataclass
from typing import Final

MESSAGE_BYTES: Final = 2**17
LIBRARIES: Final = (
    *("numpy", "PIL.Image", "torch", "torchvision", "timm", "scipy.stats", "scipy.optimize"),
    *("sklearn.decomposition", "sklearn.manifold", "faiss", "typer", "rich.progress", "pydantic"),
    *("apsw", "safetensors.torch", "PIL.ImageCms", "PIL.TiffImagePlugin", "pyarrow.parquet"),
)
# Of capabilities(7) and prctl(2).
DAC_OVERRIDE, DAC_READ_SEARCH, DROP_BOUND, CAPABILITY_VERSION = 1, 2, 24, 0x20080522


@dataclass(frozen=True)
class Order:
    """A command to run."""

    module: str
    arguments: list[str]
    folder: str
    environment: dict[str, str]
    privileged: bool  # or without root's right to read and write everything


def main() -> None:
    """Fork commands until standard input ends; in the fork, run the command and end with it."""
    for name in LIBRARIES:
        importlib.import_module(name)
    orders = socket.socket(fileno=0)
    under_way: dict[int, tuple[int, int]] = {}  # by a descriptor that is readable when it has ended
    while True:
        ready, _, _ = select.select([orders, *under_way], [], [])
        for ended in set(ready) & set(under_way):
            pid, told = under_way.pop(ended)
            _, status = os.waitpid(pid, 0)
            os.write(told, str(status).encode())
            _close(ended, told)
        if orders not in ready:
            continue
        data, descriptors, _, _ = socket.recv_fds(orders, MESSAGE_BYTES, 4)
        if not data:
            return
        *streams, told = descriptors
        pid = os.fork()
        if pid == 0:
            break
        os.write(told, str(pid).encode())
        under_way[os.pidfd_open(pid)] = (pid, told)
        _close(*streams)
    orders.detach()
    _close(told, *under_way, *(one for _, one in under_way.values()))
    order = Order(**json.loads(data))
    _become(order, streams)
    _end_with(_run(order.module))


def _run(module: str) -> int:
    """Run a module as a program, and return its exit code."""
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        sys.excepthook(*sys.exc_info())
        return 1
    return 0


def _end_with(code: int) -> None:
    """End as Python does, but for the modules: to take torch's apart takes a second."""
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _close(*descriptors: int) -> None:
    for one in descriptors:
        os.close(one)


def _become(order: Order, streams: list[int]) -> None:
    """Give this process the streams, the folder, the environment and the arguments of a command."""
    os.setsid()
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.environ.clear()
    os.environ.update(order.environment)
    os.chdir(order.folder)
    sys.path[0] = f"{sys.prefix}/bin"  # where the program lies, and no module
    sys.argv = ["", *order.arguments]
    sys.stdin = open(0, closefd=False)  # noqa: SIM115 - these stay open
    sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1, errors="backslashreplace", closefd=False)  # noqa: SIM115
    sys.__stdin__, sys.__stdout__, sys.__stderr__ = sys.stdin, sys.stdout, sys.stderr
    if not order.privileged:
        drop_privileges()


def drop_privileges() -> None:
    """Give up root's right to read and write everything, in this process and what it starts."""
    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION, 0)
    held = (ctypes.c_uint32 * 6)()  # effective, permitted, inheritable; twice
    assert libc.capget(header, held) == 0, os.strerror(ctypes.get_errno())
    for capability in (DAC_OVERRIDE, DAC_READ_SEARCH):
        libc.prctl(DROP_BOUND, capability)
        for position in range(3):
            held[position] &= ~(1 << capability)
    assert libc.capset(header, held) == 0, os.strerror(ctypes.get_errno())


if __name__ == "__main__":
    main()
