"""The process with the network, as the supervisor sees it: what starts it, and where it listens."""

import os
import socket
from pathlib import Path
from typing import Final

from bentoml.serving import create_watcher
from circus.sockets import CircusSocket  # type: ignore[import-untyped]

from files.module_command import module_command, module_environment
from service.server.bento_supervisor import EncoderProcess
from service.telemetry.shared_metrics import shared_folder

PROGRAM: Final = "service.encoding.program"
SOCKET: Final = "encoder"
_UMASK: Final = 0o177  # for this user alone, as the folder is
_BACKLOG: Final = 128  # workers' lanes that wait while it starts


class EncoderListener(CircusSocket):  # type: ignore[misc] # circus has no types
    """Where workers connect: at a name in the folder that only this server's processes use."""

    def __init__(self, server_id: str) -> None:
        self._place = shared_folder(server_id) / f"{SOCKET}.sock"
        super().__init__(
            name=SOCKET,
            path=str(self._place),
            family=socket.AF_UNIX,
            type=socket.SOCK_SEQPACKET,
            backlog=_BACKLOG,
            umask=_UMASK,
        )

    def bind_and_listen(self) -> None:
        """Listen, also where the name of the folder is longer than that of a socket may be."""
        self._place.parent.mkdir(mode=0o700, exist_ok=True)
        folder = os.open(self._place.parent, os.O_PATH | os.O_DIRECTORY)
        try:
            self.path = f"/proc/self/fd/{folder}/{self._place.name}"
            super().bind_and_listen()
        finally:
            self.path = str(self._place)
            os.close(folder)


def encoder_process(model_folder: Path, server_id: str, workers: int) -> EncoderProcess:
    """Return the process for so many workers; nothing is started yet."""
    program = module_command(PROGRAM, f"$(circus.sockets.{SOCKET})", str(model_folder))
    watcher = create_watcher(
        name=SOCKET,
        cmd=program[0],
        args=program[1:],
        env=module_environment(LOOKALIKE_WORKERS=str(workers)),
    )
    watcher.respawn = True  # in a container, too: workers wait for it
    return EncoderProcess(watcher, EncoderListener(server_id))
