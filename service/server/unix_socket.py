"""A Unix socket to listen on: its path in, checked, and the supervisor's listener out."""

import errno
import socket
from pathlib import Path
from typing import Final

from circus.sockets import CircusSocket  # type: ignore[import-untyped]

from service.errors import ServiceConfigError

MAX_PATH_BYTES: Final = 107  # unix(7), without the zero at its end
_UMASK: Final = 0o111  # everybody may ask, as at a port; the folder says who gets as far as here


class UnixListener(CircusSocket):  # type: ignore[misc] # circus has no types
    """The socket at ``path``, in place of the port that ``instead_of`` is about to listen on."""

    def __init__(self, path: Path, instead_of: CircusSocket) -> None:
        super().__init__(
            name=instead_of.name, path=str(path), backlog=instead_of.backlog, umask=_UMASK
        )

    def bind_and_listen(self) -> None:
        """Listen, in place of a server that has ended without taking its socket away."""
        check_path(Path(self.path))
        Path(self.path).unlink(missing_ok=True)
        super().bind_and_listen()

    def close(self) -> None:
        """Close, once: by the second time the path may be that of the next server."""
        if self.fileno() != -1:
            super().close()


def check_path(path: Path) -> None:
    """Check that a server can listen there.

    Raises:
        ServiceConfigError: it cannot, for one because another one does, or a file is there.
    """
    if len(bytes(path)) > MAX_PATH_BYTES:
        raise ServiceConfigError(
            f"cannot listen at {path}: the path of a Unix socket has at most {MAX_PATH_BYTES} bytes"
        )
    if not path.parent.is_dir():
        raise ServiceConfigError(f"cannot listen at {path}: there is no such folder")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(str(path))
        except FileNotFoundError:
            return
        except ConnectionRefusedError:
            if path.is_socket():  # of a server that was killed
                return
            reason = "a file is there already"
        except OSError as error:
            if error.errno != errno.EAGAIN:  # which is a server that is too busy to accept
                raise ServiceConfigError(f"cannot listen at {path}: {error.strerror}") from error
            reason = "another server does"
        else:
            reason = "another server does"
    raise ServiceConfigError(f"cannot listen at {path}: {reason}")
