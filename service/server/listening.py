"""The beginning of a worker: it listens once it can answer, and until one can, one answers probes.

The socket is the supervisor's and listens from the start; what nobody accepts waits in the kernel.
"""

import asyncio
import os
import signal
import socket
from collections.abc import Callable
from typing import Final, Self

import click
import uvicorn

from service.server.ready_workers import ReadyWorkers

LOOK_S: Final = 0.05  # between two looks at who is ready


class ProbeListener:
    """A second door to uvicorn's server, for the time in which that one does not listen yet.

    What comes in is a connection of that server like any other, and outlives the door.
    """

    def __init__(self, server: uvicorn.Server, socket_number: int) -> None:
        self._server = server
        self._socket_number = socket_number
        self._listener: asyncio.AbstractServer | None = None

    @classmethod
    def of_this_process(cls) -> Self:
        """Return that of the uvicorn which BentoML runs in this process."""
        server = signal.getsignal(signal.SIGTERM).__self__  # type: ignore[union-attr]
        assert isinstance(server, uvicorn.Server)
        return cls(server, click.get_current_context().params["fd"])

    async def hold(self, ready_workers: ReadyWorkers, is_able: Callable[[], bool]) -> None:
        """Come back once this worker can answer, or is told to end."""
        while not (is_able() or await self._server.on_tick(0)):  # which keeps the date, too
            if ready_workers.take_probes() and not ready_workers.pids():
                await self._open()
            else:
                self._close()
                ready_workers.release_probes()
            await asyncio.sleep(LOOK_S)
        self._close()
        ready_workers.release_probes()

    async def _open(self) -> None:
        if self._listener is not None:
            return
        server = self._server
        self._listener = await asyncio.get_running_loop().create_server(
            lambda: server.config.http_protocol_class(  # type: ignore[call-arg]
                config=server.config,
                server_state=server.server_state,
                app_state=server.lifespan.state,
            ),
            sock=socket.socket(fileno=os.dup(self._socket_number)),
            ssl=server.config.ssl,
            backlog=server.config.backlog,
        )

    def _close(self) -> None:
        if self._listener is not None:
            self._listener.close()
            self._listener = None
