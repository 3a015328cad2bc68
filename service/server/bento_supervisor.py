"""The process that supervises the workers, which is BentoML's: what of it we change.

Its control ports are closed. They are on loopback, but take commands from every local user, whoever
it is. And it looks at its workers every second: with BentoML's ten, which no option changes, a
server of two workers would be half a server for that long after one died.
``tests/service/api/test_contract.py`` tells when a new version undoes this.
"""

import contextlib
import ctypes
import socket
import struct
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from bentoml._internal.utils import circus

from service.config import ServiceSettings
from service.errors import ServiceConfigError
from service.server.unix_socket import UnixListener

CHECK_S: Final = 1
ENCODER_SOCKET: Final = "LOOKALIKE_ENCODER_SOCKET"  # the variable that tells workers where it is
_SO_ATTACH_FILTER: Final = 26  # of socket(7)
# Classic BPF on the TCP header (bpf(4)): code, jump if so, jump if not, value.
_NO_SYN: Final = (
    (0x30, 0, 0, 13),  # load the byte of flags
    (0x45, 0, 1, 0x02),  # is SYN among them?
    (0x06, 0, 0, 0),  # drop it
    (0x06, 0, 0, 0xFFFFFFFF),  # or take all of it
)


class EncoderProcess(NamedTuple):
    """What runs beside the workers, and computes for them."""

    watcher: Any  # circus's
    listener: Any  # a CircusSocket: where workers connect


class _Arbiter(circus.Arbiter):
    """BentoML's supervisor, whose commands come from its own process only: by signals."""

    # Makes what runs beside so many workers; None: nothing does.
    beside: Callable[[int], EncoderProcess] | None = None

    def __init__(
        self, watchers: list[Any], endpoint: str, pubsub_endpoint: str, **options: Any
    ) -> None:
        if options.get("plugins"):
            raise ServiceConfigError(
                "--reload needs a control port, which this service never opens"
            )
        options["check_delay"] = CHECK_S
        for watcher in watchers:  # as many workers as there will be, whoever said how many
            watcher.env["LOOKALIKE_SERVER_SIZE"] = str(watcher.numprocesses)
        path = ServiceSettings.from_environment().unix_socket
        if path is not None:
            options["sockets"] = [UnixListener(path, one) for one in options["sockets"]]
        self._add_encoder_process(watchers, options.setdefault("sockets", []))
        super().__init__(watchers, "inproc://control", "inproc://events", **options)

    def _add_encoder_process(self, watchers: list[Any], sockets: list[Any]) -> None:
        """Have one process compute for all workers, and tell them where it is; if there is one."""
        process = None
        if self.beside is not None:
            process = self.beside(sum(watcher.numprocesses for watcher in watchers))
        for watcher in watchers:
            watcher.env.pop(ENCODER_SOCKET, None)
            if process is not None:
                watcher.env[ENCODER_SOCKET] = process.listener.path
        if process is not None:
            watchers.append(process.watcher)
            sockets.append(process.listener)

    def stop(self) -> Any:
        """Stop the workers, and let nobody connect whom none of them would accept any more."""
        self.loop.call_later(ServiceSettings.from_environment().drain_s, self._shut)
        return super().stop()

    def _shut(self) -> None:
        for listener in self.sockets.values():
            with contextlib.suppress(OSError):  # not TCP, or not Linux
                refuse_connections(listener)
            listener.close()  # the workers have it open still, and the path of a Unix socket goes


def refuse_connections(listener: socket.socket) -> None:
    """Have the kernel drop attempts to connect; handshakes that began are finished.

    When the last process closes a socket that listens, the connections that wait to be accepted are
    reset, with the requests on them. After this no new ones come, so those can be accepted before.
    Who is dropped tries again a second later (RFC 6298), and is refused, or meets the next server.

    Raises:
        OSError: this is no TCP socket, or the kernel has no such filters.
    """
    if listener.family not in (socket.AF_INET, socket.AF_INET6):
        raise OSError("not a TCP socket")
    program = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *one) for one in _NO_SYN))
    filters = struct.pack("HP", len(_NO_SYN), ctypes.addressof(program))
    listener.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, filters)


def adapt_supervisor(beside: Callable[[int], EncoderProcess] | None = None) -> None:
    """Have BentoML make our supervisor when it makes one in this process.

    Args:
        beside: makes the process that computes for so many workers; None: they do it themselves.
    """
    _Arbiter.beside = beside
    circus.Arbiter = _Arbiter  # type: ignore[misc] # BentoML offers no other way
