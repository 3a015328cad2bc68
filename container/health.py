"""Is the server of this container ready? Ends with 0 if it is, else with 1 and why not."""

import http.client
import os
import socket
import sys

TIMEOUT_S = 4


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=TIMEOUT_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(TIMEOUT_S)
        self.sock.connect(self._path)


def main() -> int:
    """Ask ``/readyz`` where `lookalike serve` listens by its settings; return the exit code."""
    path = os.environ.get("LOOKALIKE_UNIX_SOCKET")
    port = int(os.environ.get("LOOKALIKE_PORT", "3000"))
    connection = (
        _UnixConnection(path)
        if path
        else http.client.HTTPConnection("localhost", port, timeout=TIMEOUT_S)
    )
    try:
        connection.request("GET", "/readyz")
        answer = connection.getresponse()
        said = answer.read(4096).decode(errors="replace")
    except (OSError, http.client.HTTPException) as error:
        said, ready = str(error), False
    else:
        ready = answer.status == http.HTTPStatus.OK
    sys.stdout.write(f"{said}\n")
    return 0 if ready else 1


if __name__ == "__main__":
    sys.exit(main())
