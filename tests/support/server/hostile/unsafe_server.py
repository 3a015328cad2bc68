"""A server without any of our care, to see that the tests of it can fail.

    python -m tests.support.server.hostile.unsafe_server --port 4000 [--leak]

It takes everything, works on one request after the other, never closes a connection that says
nothing, and stops after a second, whatever is left. With ``--leak`` every request leaves memory,
a descriptor and sometimes a thread behind.
"""

import argparse
import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import uvicorn

from tests.support.server.servers import ROOT, Server, clean_environment, free_port

WORK_S = 0.03  # of one request
LEAK_BYTES = 2**16


class UnsafeApp:
    """An ASGI application that answers 200 to everything, in the end."""

    def __init__(self, *, leak: bool) -> None:
        self._lane = ThreadPoolExecutor(1)
        self._leak = leak
        self._kept: list[object] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        while (await receive()).get("more_body"):
            pass
        if scope["path"] not in ("/livez", "/readyz"):
            await asyncio.get_running_loop().run_in_executor(self._lane, self._work)
        body = b'{"predictions": []}'
        headers = [(b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    def _work(self) -> None:
        time.sleep(WORK_S)
        if not self._leak:
            return
        self._kept += [os.urandom(LEAK_BYTES), os.open("/dev/null", os.O_RDONLY)]
        if len(self._kept) % 10 == 0:
            threading.Thread(target=threading.Event().wait, daemon=True).start()


@contextmanager
def unsafe_server(log: Path, *options: str) -> Iterator[Server]:
    """Start one, wait until it answers, and end it after the block."""
    port = free_port()
    command = [
        sys.executable,
        "-m",
        "tests.support.server.hostile.unsafe_server",
        "--port",
        str(port),
        *options,
    ]
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=subprocess.STDOUT, env=clean_environment(), cwd=ROOT
        )
    server = Server(f"http://127.0.0.1:{port}", process, log)
    try:
        for _ in range(300):
            with suppress(httpx.TransportError):
                httpx.get(f"{server.url}/livez", timeout=5)
                break
            time.sleep(0.1)
        yield server
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait(timeout=10)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--leak", action="store_true")
    arguments = parser.parse_args()
    uvicorn.run(
        UnsafeApp(leak=arguments.leak),
        port=arguments.port,
        log_level="warning",
        lifespan="off",
        timeout_graceful_shutdown=1,
    )


if __name__ == "__main__":
    main()
